"""The strict reader in a jailed child: what ``extract_archive`` does, without the rights to do anything else.

The child is forked, so that it needs no configuration and no start; it speaks lines of JSON, the last of which is its
answer. What it says is not trusted: it has read what came from outside. Its parent keeps nothing that grows with the
archive, and decides; where a decompressor runs beside it, whole is what both say is whole.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import resource
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from swapd.archive.decoders import Source, check_compression
from swapd.archive.decompressor import BY_CHILD, Decompressor
from swapd.archive.extractor import Extracted, extract_stream
from swapd.archive.limits import Limits
from swapd.archive.streams import Piped, Stream
from swapd.host import jail, seccomp
from swapd.host.child import Child
from swapd.host.jail import Confinement, Layers
from swapd.model.errors import Failed, Issue, Rejected
from swapd.model.release import Compression, printable

log = logging.getLogger(__name__)

# What the child may have resident: below 64 MB, whatever the archive asks for. What it has from us when it is forked
# counts. A caller that is large itself (a worker has 26 MB) leaves it what a million names that are not ASCII take.
RESIDENT = 60 << 20
NEEDED = 27 << 20
STACK = 512 << 10  # of the thread that decompresses; the default is 8 MiB of that
TICK = 0.2  # seconds without a word of the child after which progress is reported all the same
SILENCE = 120.0  # seconds without one after which the child is taken to hang: it speaks five times a second
INTERVAL = 0.02  # seconds between two reports of the child's
AT_ONCE = 1 << 16  # most bytes that are read of it at once
LONGEST = 1 << 20  # bytes of one line
LARGEST_FILE = 1 << 62
SAFE = "The live release and the upload are untouched. Touch the tarball, or reload swapd, to have it taken up again."


def extract_jailed(
    descriptor: int,
    compression: Compression,
    into: int,
    limits: Limits,
    *,
    strip_components: int | None,
    progress: Callable[[int], None],
    keep_room: Callable[[], None] = lambda: None,
    keep_times: bool = True,
) -> Extracted:
    """As ``extract_archive``, in a child process that dies with this one, which must have one thread only.

    ``progress`` is called several times a second. ``keep_room`` is called by the child, for each MiB and each 256
    members: what it raises is ``OSError`` (ENOSPC) here. Besides: ``Failed`` where the child was killed (by the kernel
    when memory ran out, by somebody) or hangs. No process or descriptor is left, however it ends.
    """
    check_compression(Source(descriptor), compression)
    with contextlib.ExitStack() as stack:
        decompressor = None
        if compression in BY_CHILD:
            decompressor = stack.enter_context(contextlib.closing(Decompressor(descriptor, compression)))
        piped = Piped(decompressor.output, descriptor) if decompressor else None

        def extract(stream: Stream) -> Extracted:
            return extract_stream(stream, into, limits, strip_components, keep_times=keep_times)

        def work(say: int) -> dict[str, Any]:
            return _extract(descriptor, compression, piped, extract, say, keep_room)

        keep = {descriptor, into, *([decompressor.output] if decompressor else [])}
        child = stack.enter_context(contextlib.closing(Jailed(work, keep, _confine(into, limits.max_extracted))))
        if decompressor:
            decompressor.release()  # without a reader but the child, it ends when that does
        answer = child.listen(progress)
        _tell_layers(child.layers)
        if decompressor and answer.get("is_at_end"):
            # What the child made of an early end is beside the point when this raises.
            decompressor.finish()
        elif decompressor and "extracted" in answer:
            raise Failed("extractor-failed", "the extracting process said too early that all is there", SAFE)
        with _distrusting():
            return _read_answer(answer)


def find_layers(into: int) -> Layers:
    """The layers of the jail that a child has which extracts into this directory: each may be there or not."""
    with contextlib.closing(Jailed(lambda _: {}, {into}, _confine(into, 0))) as child:
        child.listen(lambda _: None)
        return child.layers


def _confine(into: int, largest: int) -> Confinement:
    size = jail.memory_size()
    data = size.data + max(RESIDENT - size.resident, NEEDED)
    limits = {resource.RLIMIT_DATA: data, resource.RLIMIT_FSIZE: min(largest, LARGEST_FILE)}
    return Confinement(into, limits=limits, calls=seccomp.WRITING)


class Jailed:
    """The child, and what it says."""

    def __init__(self, work: Callable[[int], dict[str, Any]], keep: set[int], confinement: Confinement) -> None:
        self.layers = Layers()
        parent = os.getpid()
        self._heard, say = os.pipe2(os.O_CLOEXEC)
        self._rest = b""

        def be_jailed() -> None:
            layers = jail.enter(confinement, parent)
            _say(say, {"jail": layers})
            _say(say, {"answer": work(say)})

        try:
            self._child = Child("extract", be_jailed, keep={*keep, say})
        except OSError as error:
            os.close(self._heard)
            raise Failed(
                "no-processes", f"no process can be started: {error.strerror}", "Raise TasksMax= of the unit."
            ) from error
        finally:
            os.close(say)

    def close(self) -> None:
        """It is gone after this."""
        os.close(self._heard)
        self._child.close()

    def listen(self, progress: Callable[[int], None]) -> dict[str, Any]:
        """Its answer; ``Failed`` where there is none. What ``progress`` raises passes through."""
        position = 0
        heard_at = time.monotonic()
        poll = select.poll()
        poll.register(self._heard, select.POLLIN)
        while True:
            if poll.poll(TICK * 1000):
                data = os.read(self._heard, AT_ONCE)
                if not data:
                    raise self._explain_end()
                heard_at = time.monotonic()
                with _distrusting():
                    lines = self._split(data)
                for line in lines:
                    with _distrusting():
                        report = json.loads(line)
                        if "answer" in report:
                            return dict(report["answer"])
                        if "jail" in report:
                            self.layers = Layers(report["jail"])
                        position = _count(report.get("position", position))
                    progress(position)  # for each, also when we are slower than the child
            elif time.monotonic() - heard_at > SILENCE:
                raise Failed("extractor-hangs", f"the extracting process said nothing for {SILENCE:g} s", SAFE)
            progress(position)

    def _split(self, data: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            raise ValueError("a line without end")
        return lines

    def _explain_end(self) -> Failed:
        status, end = self._child.wait(), self._child.describe_end()
        if status < 0:
            hint = "The kernel's log tells whether memory ran out (journalctl -k)."
            return Failed("extractor-killed", f"the extracting process {end}", f"{hint} {SAFE}")
        return Failed("extractor-failed", f"the extracting process {end}", SAFE)


def _tell_layers(layers: Layers) -> None:
    if layers.is_confined:
        log.debug("the extracting process was in its jail: %s", layers)
    else:
        log.warning("nothing but its own rules kept the extraction in its directory: %s", layers)


# What the child says, and how it is taken.


@contextlib.contextmanager
def _distrusting() -> Iterator[None]:
    """Within, what the child said is looked at; ``Failed`` where it is not what it should be."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        raise Failed("extractor-failed", "the extracting process does not speak as it should", SAFE) from error


def _say(to: int, report: dict[str, Any]) -> None:
    rest = json.dumps(report).encode() + b"\n"
    while rest:
        rest = rest[os.write(to, rest) :]


def _extract(
    descriptor: int,
    compression: Compression,
    piped: Piped | None,
    extract: Callable[[Stream], Extracted],
    say: int,
    keep_room: Callable[[], None],
) -> dict[str, Any]:
    """In the child: reads the archive; how it went, as an answer."""
    said_at = 0.0

    def report(position: int) -> None:
        nonlocal said_at
        try:
            keep_room()
        except Failed as failed:
            raise OSError(errno.ENOSPC, failed.message) from failed
        now = time.monotonic()
        if now - said_at >= INTERVAL or position == stream.size:
            said_at = now
            _say(say, {"position": position})

    answer: dict[str, Any]
    threading.stack_size(STACK)
    try:
        with Stream(descriptor, compression, report, piped) as stream:
            jail.forbid_processes()
            found = extract(stream)
        answer = {"extracted": [found.files, found.directories, found.links, found.bytes, found.newest]}
    except Rejected as rejected:
        answer = {"rejected": [[issue.problem, issue.message, issue.hint] for issue in rejected.issues]}
    except Failed as failed:
        answer = {"failed": [failed.problem, failed.message, failed.hint]}
    except OSError as error:
        answer = {"refused": [error.errno or 0, error.strerror or str(error), _name(error)]}
    return answer | {"is_at_end": piped is not None and piped.is_at_end}


def _name(error: OSError) -> str | None:
    return error.filename if isinstance(error.filename, str) else None


def _read_answer(answer: dict[str, Any]) -> Extracted:
    """What ``extract_archive`` would have returned, or raised."""
    if "extracted" in answer:
        *counts, newest = answer["extracted"]
        files, directories, links, size = map(_count, counts)
        return Extracted(files, directories, links, size, None if newest is None else _count(newest))
    if "rejected" in answer:
        raise Rejected(Issue(*map(_tame, issue)) for issue in answer["rejected"])
    if "failed" in answer:
        raise Failed(*map(_tame, answer["failed"]))
    number, text, name = answer["refused"]
    raise OSError(_count(number), _tame(text), *([_tame(name)] if name else []))


def _count(number: object) -> int:
    """A number that there can be; ``ValueError`` where it is none."""
    if type(number) is not int or not 0 <= number <= LARGEST_FILE:
        raise ValueError("not a count of anything")
    return number


def _tame(text: object) -> str:
    return printable(str(text), LONGEST)

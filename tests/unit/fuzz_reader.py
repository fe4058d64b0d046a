"""Fuzzes the reader of archives for a given time: ``python -m tests.unit.fuzz_reader WAY DIRECTORY SECONDS SEED``.

``guided``: extract_archive in this process, by atheris, which keeps what reaches code that nothing before it reached.
``blind``: the same by chance alone, where there is no atheris for this Python.
``jailed``: extract_jailed by chance, each time in a child of its own, whose memory is measured.

Below DIRECTORY is the scratch site, ``corpus`` with what was worth keeping, from this run and earlier ones, and what
broke it as ``crash-…``. Ends with 0 when nothing did.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from swapd.model.errors import Rejected
from swapd.model.release import Compression

PATIENCE = 60  # seconds for one example; the slowest take a tenth of one
LONGEST = 32 << 10  # bytes of one example
# How an example begins: which kind of stream follows, and what is done with it. So a fuzzer can change that, too.
HEAD = 2
KINDS = (Compression.NONE, Compression.NONE, Compression.NONE, Compression.NONE, Compression.NONE)
KINDS += (Compression.GZIP, Compression.XZ, Compression.BZIP2, Compression.ZSTD)
STRIPS = (0, None, 1, 2)
IS_SUMMED = 4
SLACK = 8 << 20  # pages of files, and a stack, which are not counted as data


class Fuzz:
    """Examples, one after the other; each is an archive with ``HEAD`` before it."""

    def __init__(self, directory: Path, *, is_jailed: bool) -> None:
        # Imported late, so that atheris sees it being imported.
        from tests.unit import archives, archives_mutated

        self.outcomes: Counter[str] = Counter()
        self.archives, self.mutated = archives, archives_mutated
        shutil.rmtree(directory / "site", ignore_errors=True)
        (directory / "site").mkdir(parents=True)
        self.site = archives.Site(directory / "site")
        self.is_jailed = is_jailed
        self.directory = directory

    def try_one(self, example: bytes) -> None:
        """Refused or extracted; anything else raises."""
        head, data = example[:HEAD].ljust(HEAD, b"\0"), example[HEAD:]
        kind, strip = KINDS[head[0] % len(KINDS)], STRIPS[head[1] % len(STRIPS)]
        if kind is Compression.ZSTD and not self.is_jailed:
            kind = Compression.NONE  # a process for each example: too slow for this way
        if kind is Compression.NONE and head[1] & IS_SUMMED:
            data = self.mutated.with_checksums(data)
        with self.archives.nothing_left_behind():
            try:
                self.site.extract(data, kind, strip=strip, limits=self.mutated.LIMITS, jailed=self.is_jailed)
                self.outcomes["extracted"] += 1
            except Rejected as rejected:
                self.outcomes[rejected.problem] += 1
        self.site.assert_nothing_outside_changed()
        self.site.assert_tree_is_tame()
        shutil.rmtree(self.site.staging)
        self.site.staging.mkdir()

    def seeds(self) -> Iterator[bytes]:
        """The hostile and the benign cases."""
        for number, data in enumerate(self.mutated.SEEDS):
            yield bytes([0, number % len(STRIPS)]) + data
        for kind, members in {**self.mutated.COMPRESSED, Compression.ZSTD: [self.zstd()]}.items():
            for data in members:
                yield bytes([KINDS.index(kind), 1]) + data

    def zstd(self) -> bytes:
        """A stream of its own, which is made by a program."""
        from tests.unit import archives_benign

        return self.archives.compress(archives_benign.SITE, Compression.ZSTD)

    def change(self, example: bytes, source: random.Random) -> bytes:
        """The example with a few changes; now and then with another's end."""
        mutations = [
            (
                source.choice(self.mutated.KINDS),
                source.randrange(LONGEST),
                source.randrange(LONGEST),
                source.choice(self.mutated.INTERESTING) if source.random() < 0.7 else source.randbytes(4),
            )
            for _ in range(source.randint(1, 6))
        ]
        head = bytearray(example[:HEAD].ljust(HEAD, b"\0"))
        head[1] = head[1] & ~IS_SUMMED | source.choice((0, IS_SUMMED))
        return (bytes(head) + self.mutated.mutated(example[HEAD:], mutations))[:LONGEST]

    def keep_crash(self, example: bytes) -> None:
        """For whoever looks at it: the example, and what happened."""
        path = self.directory / f"crash-{os.urandom(6).hex()}"
        path.write_bytes(example)
        traceback.print_exc()
        print(f"CRASH {path}", flush=True)


def fuzz_blindly(fuzz: Fuzz, seconds: float, source: random.Random) -> int:
    """By chance; how many examples broke it."""
    corpus = [*fuzz.seeds(), *(path.read_bytes() for path in sorted((fuzz.directory / "corpus").iterdir()))]
    crashes = 0
    until = time.monotonic() + seconds
    signal.signal(signal.SIGALRM, _hang)
    while time.monotonic() < until and crashes < 20:
        example = fuzz.change(source.choice(corpus), source)
        signal.alarm(PATIENCE)
        try:
            fuzz.try_one(example)
        except Exception:  # noqa: BLE001 - whatever it is, it is what is sought
            crashes += 1
            fuzz.keep_crash(example)
            shutil.rmtree(fuzz.site.root)
            fuzz.site.root.mkdir()
            fuzz.site = fuzz.archives.Site(fuzz.site.root)
        finally:
            signal.alarm(0)
    return crashes


def _hang(_: int, __: FrameType | None) -> None:
    raise TimeoutError(f"no end after {PATIENCE} s")


def fuzz_guided(directory: Path, seconds: float, seed: int) -> None:
    """By what atheris sees; does not return."""
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=["swapd.archive", "swapd.model", "swapd.host"]):
        fuzz = Fuzz(directory, is_jailed=False)
    source = random.Random(seed)
    for number, example in enumerate(fuzz.seeds()):
        (directory / "corpus" / f"seed-{number:04}").write_bytes(example)

    def change(example: bytes, most: int, _: int) -> bytes:
        changed = fuzz.change(example, source) if source.random() < 0.5 else atheris.Mutate(example, most)
        return bytes(changed[:most])

    def try_one(example: bytes) -> None:
        try:
            fuzz.try_one(example)
        except Exception:
            fuzz.keep_crash(example)
            raise

    options = [f"-max_total_time={seconds:.0f}", f"-seed={seed or 1}", f"-timeout={PATIENCE}", f"-max_len={LONGEST}"]
    options += ["-rss_limit_mb=1024", "-print_final_stats=1", f"-artifact_prefix={directory}/crash-", "-verbosity=1"]
    atheris.Setup([sys.argv[0], *options, str(directory / "corpus")], try_one, custom_mutator=change)
    atheris.Fuzz()


@contextlib.contextmanager
def measured(peaks: list[int]) -> Iterator[None]:
    """Within, the memory that each extracting child had at most, beyond what it may have, is noted."""
    from swapd.archive import jailed
    from swapd.host import jail
    from swapd.host.child import Child

    class Measured(Child):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            resident = jail.memory_size().resident
            self._allowed = resident + max(jailed.RESIDENT - resident, jailed.NEEDED) + SLACK
            super().__init__(*arguments, **named)

        def wait(self) -> int:
            if self._status is None:
                _, status, usage = os.wait4(self.pid, 0)
                self._status = os.waitstatus_to_exitcode(status)
                peaks.append(usage.ru_maxrss << 10)
                assert peaks[-1] <= self._allowed, f"it had {peaks[-1]} bytes, and may have {self._allowed}"
            return self._status

    whole: Callable[..., Child] = jailed.Child
    jailed.Child = Measured  # type: ignore[misc]
    try:
        yield
    finally:
        jailed.Child = whole  # type: ignore[misc, assignment]


def main() -> None:
    way, directory, seconds, seed = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    (directory / "corpus").mkdir(parents=True, exist_ok=True)
    print(f"{way} SEED={seed}", flush=True)
    if way == "guided":
        fuzz_guided(directory, seconds, seed)
    fuzz = Fuzz(directory, is_jailed=way == "jailed")
    peaks: list[int] = []
    with measured(peaks) if fuzz.is_jailed else contextlib.nullcontext():
        crashes = fuzz_blindly(fuzz, seconds, random.Random(seed))
    print(f"{way}: {fuzz.outcomes.total()} executions, {crashes} crashes, at most {max(peaks, default=0)} bytes")
    print(*(f"{count} {outcome}" for outcome, count in fuzz.outcomes.most_common()), sep="\n")
    sys.exit(1 if crashes else 0)


if __name__ == "__main__":
    main()

"""How an extraction in the jail ends: killed, hanging, lying, or with all the memory it can get."""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 - socket looks it up, and in the jail there is nothing to look at
import itertools
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swapd.archive import jailed
from swapd.archive.jailed import Jailed
from swapd.host import jail
from swapd.host.child import Child
from swapd.model.errors import Failed, Rejected
from swapd.model.release import Compression
from tests.unit.archives import (
    END,
    MTIME,
    Site,
    compress,
    file,
    hard_link,
    header,
    nothing_left_behind,
    opened,
    pax,
    symlink,
    tar,
)
from tests.unit.archives_benign import SITE

ROOT = Path(__file__).parents[2]


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


MANY = tar(*(file(b"%d" % at, b"") for at in range(20_000)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_killed_child_is_this_hosts_fault(number: signal.Signals, tmp_path: Path) -> None:
    """As the kernel does when memory runs out; as a broken library would."""
    site = Site(tmp_path)

    def kill(position: int) -> None:
        if position:
            os.kill(children()[-1], number)

    with nothing_left_behind(), pytest.raises(Failed) as failure:
        site.extract(MANY, jailed=True, progress=kill)

    assert failure.value.problem == "extractor-killed"
    assert number.name in failure.value.message
    site.assert_nothing_outside_changed()


@pytest.mark.parametrize("compression", [Compression.XZ, Compression.ZSTD])
def test_a_killed_decompressor_is_this_hosts_fault(compression: Compression, tmp_path: Path) -> None:
    site = Site(tmp_path)
    data = compress(tar(file(b"a", os.urandom(30 << 20))), compression)

    def kill(_: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(children()[0], signal.SIGKILL)

    with nothing_left_behind(), pytest.raises(Failed) as failure:
        site.extract(data, compression, jailed=True, progress=kill)

    assert failure.value.problem == f"{compression.value}-failed"
    assert "SIGKILL" in failure.value.message


def test_a_child_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jailed, "SILENCE", 0.5)

    def stop(position: int) -> None:
        if position:
            os.kill(children()[-1], signal.SIGSTOP)

    with nothing_left_behind(), pytest.raises(Failed) as failure:
        Site(tmp_path).extract(MANY, jailed=True, progress=stop)
    assert failure.value.problem == "extractor-hangs"


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    reading, writing = os.pipe()

    def be_parent() -> None:
        with opened(tmp_path, os.O_DIRECTORY) as into:
            child = Jailed(lambda _: signal.pause() or {}, {into}, jailed._confine(into, 0))
            heard, _, _ = select.select([child._heard], [], [], 30)
            if heard and b"jail" in os.read(child._heard, 4096):  # from then on
                os.write(writing, b"%d\n" % child._child.pid)
            signal.pause()

    parent = Child("parent", be_parent, keep={writing})
    try:
        pidfd = os.pidfd_open(int(os.read(reading, 20)))
        with contextlib.closing(parent):
            assert not select.select([pidfd], [], [], 0)[0]
        assert select.select([pidfd], [], [], 30)[0], "it lives on"
        os.close(pidfd)
    finally:
        parent_status = parent.wait()
        os.close(reading)
        os.close(writing)
    assert parent_status == -signal.SIGKILL


def test_nothing_that_it_forks_outlives_it(tmp_path: Path) -> None:
    """With root's uid, no limit keeps it from forking."""
    reading, writing = os.pipe()

    def work(_: int) -> dict[str, int]:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(writing, b"%d\n" % os.getpid())
                signal.pause()
            os._exit(0)
        os.wait()
        return {"done": 1}

    with opened(tmp_path, os.O_DIRECTORY) as into, nothing_left_behind():
        with contextlib.closing(Jailed(work, {into, writing}, jail.Confinement())) as child:
            assert child.listen(lambda _: None) == {"done": 1}
            pidfd = os.pidfd_open(int(os.read(reading, 20)))
            assert not select.select([pidfd], [], [], 0)[0]
        assert select.select([pidfd], [], [], 0)[0], "it lives on"
        os.close(pidfd)
    os.close(reading)
    os.close(writing)


LIES: dict[str, Callable[[int], Any]] = {
    "no answer": lambda _: os._exit(3),
    "no lines": lambda say: os.write(say, b"\xff garbage\n"),
    "a number": lambda say: os.write(say, b"17\n"),
    "a list": lambda say: os.write(say, b'["answer"]\n'),
    "an answer that is none": lambda say: os.write(say, b'{"answer": 5}\n'),
    "a position that is none": lambda say: os.write(say, b'{"position": {}}\n'),
    "a position that no file has": lambda say: os.write(say, b'{"position": 1%s}\n' % (b"0" * 4000)),
    "a position before the beginning": lambda say: os.write(say, b'{"position": -1}\n'),
    "more files than there can be": lambda _: {"extracted": [10**4000, 1, 1, 1, 1]},
    "an error that is none": lambda _: {"refused": [10**4000, "no", None]},
    "nested": lambda say: os.write(say, b"[" * 60_000 + b"\n"),
    "an endless line": lambda say: [os.write(say, b"x" * 60_000) for _ in range(100)],
    "layers that are none": lambda say: os.write(say, b'{"jail": 7}\n'),
    "an empty answer": lambda _: {},
    "too little": lambda _: {"extracted": [1]},
    "an empty rejection": lambda _: {"rejected": []},
    "too early": lambda _: {"extracted": [1, 1, 1, 1, 1], "is_at_end": False},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_child_that_was_taken_over_is_not_believed(lie: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def extract(*arguments: Any) -> Any:
        answer = LIES[lie](arguments[-1])
        return answer if isinstance(answer, dict) else os._exit(0)

    monkeypatch.setattr(jailed, "_extract", extract)
    with nothing_left_behind(), pytest.raises(Failed) as failure:
        Site(tmp_path).extract(compress(SITE, Compression.ZSTD), Compression.ZSTD, jailed=True)
    assert failure.value.problem == "extractor-failed"


def test_its_words_are_made_fit_for_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jailed, "_extract", lambda *_: {"rejected": [["x", "a\x1b[31m\nb", "c"]]})
    with pytest.raises(Rejected) as refusal:
        Site(tmp_path).extract(SITE, jailed=True)
    assert refusal.value.message == "a\\x1b[31m\\nb"


def test_an_error_of_the_host_comes_through(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.tarball.write_bytes(SITE)
    with opened(site.tarball, os.O_RDONLY) as descriptor, opened(site.staging, os.O_DIRECTORY) as into:
        site.staging.rmdir()
        with nothing_left_behind(), pytest.raises(FileNotFoundError):
            jailed.extract_jailed(
                descriptor, Compression.NONE, into, jailed.Limits(1 << 20, 100), strip_components=None, progress=print
            )


MEASURE = """
import os, sys
from swapd.archive import Limits, extract_jailed, jailed
from swapd.model.errors import SwapdError
from swapd.model.release import Compression

jailed.NEEDED, jailed.RESIDENT = eval(sys.argv[3])
tarball, into = (os.open(path, os.O_RDONLY) for path in sys.argv[1:3])
peak = 0

def look(_):
    global peak
    for pid in open(f"/proc/self/task/{os.getpid()}/children").read().split():
        lines = [line.split() for line in open(f"/proc/{pid}/status")]
        peak = max([peak, *(int(line[1]) << 10 for line in lines if line[0] == "VmHWM:")])

try:
    extract_jailed(tarball, Compression.NONE, into, Limits(1 << 40, 10**6), strip_components=0, progress=look)
except SwapdError as error:
    print(error.problem, peak)
else:
    print("extracted", peak)
"""


def measure(site: Site, members: Iterable[bytes], limits: str = "jailed.NEEDED, jailed.RESIDENT") -> tuple[str, int]:
    """How the extraction ends in a process that is no larger than a worker, and what its child had resident at most."""
    with open(site.tarball, "wb") as tarball:
        tarball.writelines(members)
    command = [sys.executable, "-c", MEASURE, site.tarball, site.staging, limits]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    how, peak = done.stdout.split()
    return how, int(peak)


def long_links(count: int) -> Iterator[bytes]:
    """What is held to the end: texts of 16 MB."""
    yield file(b"a")
    for at in range(count):
        yield pax((b"linkpath", b"./" * 2000 + b"a")) + symlink(b"%d" % at, b"")
    yield END


def short_links(count: int) -> Iterator[bytes]:
    yield file(b"a")
    for at in range(count):
        yield symlink(b"%07d" % at, b"a")
    yield END


def long_headers(count: int) -> Iterator[bytes]:
    for at in range(count):
        yield pax((b"comment", b"x" * (250 << 10))) + file(b"%d" % at, b"")
    yield END


def names_not_ascii(count: int) -> Iterator[bytes]:
    for at in range(count):
        yield pax((b"path", f"é{at}".encode() + b"/\xc3\xa9" * 120)) + file(b"f", b"")
    yield END


def a_header_of_2_gib() -> Iterator[bytes]:
    yield header(b"x", b"x", 2 << 30)


@pytest.mark.parametrize(
    ("members", "how"),
    [
        (long_links(3900), "extracted"),
        (long_links(4100), "too-many-symlinks"),
        (short_links(60_000), "extracted"),
        (long_headers(200), "extracted"),
        (names_not_ascii(300), "extracted"),
        (a_header_of_2_gib(), "header-too-large"),
    ],
    ids=["long links", "longer links", "short links", "long headers", "names", "header of 2 GiB"],
)
def test_it_stays_below_64_mb(members: Iterator[bytes], how: str, tmp_path: Path) -> None:
    ended, peak = measure(Site(tmp_path), members)
    assert ended == how
    assert peak < 64_000_000


def many_files(count: int) -> Iterator[bytes]:
    """As a shop has them: a hundred to a directory, each with a content and a time of its own, and some links."""
    for at in range(count):
        name = b"shop/%03d/%02d/%d.html" % (at // 10_000, at // 100 % 100, at)
        yield file(name, b"%d\n" % at * (at % 20), mode=0o755 if at % 50 == 0 else 0o644, mtime=MTIME + at)
        if at % 1000 == 0:
            yield hard_link(b"shop/twin-%d" % at, name)
            yield symlink(b"shop/link-%d" % at, name[5:])
    yield END


def described(root: Path) -> list[bytes]:
    """What there is to see of every entry, but its content and its owner."""
    shown = {"d": "mode %m", "l": "to %l", "f": "mode %m size %s names %n time %T@"}
    kinds = [["-type", kind, "-printf", f"%P {kind} {what}\\n"] for kind, what in shown.items()]
    command = ["find", root, "-mindepth", "1", *kinds[0], "-o", *kinds[1], "-o", *kinds[2], "-o", "-print"]
    return sorted(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines())


def test_a_hundred_thousand_files_equal_gnu_tars(tmp_path: Path) -> None:
    """From the file as it is read, with no more memory than a few files take."""
    site, gnu, count = Site(tmp_path), tmp_path / "gnu", 100_000
    ended, peak = measure(site, many_files(count))
    assert ended == "extracted"
    assert peak < 64_000_000
    gnu.mkdir()
    subprocess.run(["tar", "-x", "-f", site.tarball, "-C", gnu, "--no-same-owner"], umask=0o022, check=True)
    expected = described(gnu)
    assert len(expected) > count
    assert described(site.staging) == expected
    subprocess.run(["diff", "-r", "--no-dereference", "--brief", gnu, site.staging], check=True)


@pytest.mark.soak
def test_a_million_names_that_are_not_ascii_fit(tmp_path: Path) -> None:
    """A number is kept for each. Also where the caller is large and leaves it no more than it needs."""
    count = 995_000
    names = (header(b"%03d/\xc3\xa9%d" % (at // 1000, at)) for at in range(count))
    ended, peak = measure(Site(tmp_path), itertools.chain(names, [END]), "jailed.NEEDED, 0")
    assert ended == "extracted"
    assert peak < 64_000_000


def test_too_much_memory_is_the_archives_fault(tmp_path: Path) -> None:
    assert measure(Site(tmp_path), long_links(3900), "12 << 20, 0")[0] == "needs-too-much-memory"

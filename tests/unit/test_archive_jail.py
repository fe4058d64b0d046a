"""The jail seen from inside: what a child that was taken over by the bytes it reads could do, and how it ends."""

from __future__ import annotations

import contextlib
import ctypes
import encodings.idna  # noqa: F401 - socket looks it up, and in the jail there is nothing to look at
import errno
import mmap
import os
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swapd.archive import jailed
from swapd.archive.jailed import Jailed, find_layers
from swapd.host import jail, landlock
from swapd.host.child import Child
from swapd.model.errors import Failed, Rejected
from swapd.model.release import Compression
from tests.unit.archives import END, Site, compress, file, header, nothing_left_behind, opened, pax, symlink, tar
from tests.unit.archives_benign import SITE
from tests.unit.jails import SETTINGS, Setting, as_in_the_unit, as_nobody, as_we_are, is_root, without_landlock

ROOT = Path(__file__).parents[2]
PIDFD_GETFD = 438
CLONE_NEWUSER = 0x10000000


def abi() -> int:
    try:
        return landlock.abi()
    except OSError:
        return 0


def look_from_inside(site: Site, attempts: dict[str, Callable[[], object]]) -> dict[str, str]:
    """What became of each attempt in the jail: the error's name, or ``done``."""

    def work(_: int) -> dict[str, str]:
        jail.forbid_processes()
        return {name: outcome(attempt) for name, attempt in attempts.items()}

    with opened(site.staging, os.O_DIRECTORY) as into:
        os.dup2(into, SAME)
        try:
            with contextlib.closing(Jailed(work, {SAME}, jailed._confine(SAME, 1 << 20))) as child:
                return child.listen(lambda _: None)
        finally:
            os.close(SAME)


SAME = 100  # the descriptor under which the attempts know the staging directory


def outcome(attempt: Callable[[], object]) -> str:
    try:
        got = attempt()
        if type(got) is int:
            os.close(got)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except ValueError as error:
        return str(error)
    return "done"


def call(number: int, *arguments: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    if result == -1:
        raise OSError(ctypes.get_errno(), "")
    return int(result)


def bind_socket() -> None:
    with socket.socket(socket.AF_UNIX) as made:
        os.fchdir(SAME)
        made.bind("socket")


def connect(port: int) -> None:
    with socket.socket() as made:
        made.connect(("127.0.0.1", port))


def take_descriptor_of(pid: int) -> None:
    """What ptrace(2) allows is what this asks, without stopping anybody."""
    pidfd = os.pidfd_open(pid)
    try:
        os.close(call(PIDFD_GETFD, pidfd, 0, 0))
    finally:
        os.close(pidfd)


def write_much() -> None:
    descriptor = os.open("much", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=SAME)
    try:
        os.pwrite(descriptor, b"x", 2 << 20)
    finally:
        os.close(descriptor)


def execute_own() -> None:
    """A program that the archive brought. Were it executed, there would be no answer."""
    with open(os.open("program", os.O_CREAT | os.O_WRONLY, 0o755, dir_fd=SAME), "w") as program:
        program.write("#!/bin/sh\n")
    os.fchdir(SAME)
    os.execv("./program", ["program"])  # noqa: S606 - as one who was taken over would


def attempts_on(site: Site, port: int) -> dict[str, Callable[[], object]]:
    parent, new = os.getpid(), os.O_CREAT | os.O_EXCL | os.O_WRONLY
    return {
        "read outside": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "list outside": lambda: os.open("/etc", os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK),
        "read /proc": lambda: os.open("/proc/self/mem", os.O_RDONLY),
        "read above": lambda: os.open("../canary/file", os.O_RDONLY, dir_fd=SAME),
        "write outside": lambda: os.open(site.canary / "file", os.O_WRONLY),
        "make outside": lambda: os.open(site.canary / "new", new),
        "make above": lambda: os.open("../canary/new", new, dir_fd=SAME),
        "remove outside": lambda: os.unlink(site.canary / "file"),
        "rename outside": lambda: os.rename(site.canary / "file", site.canary / "moved"),
        "link from outside": lambda: os.link(site.canary / "file", "linked", dst_dir_fd=SAME),
        "character device": lambda: os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3), dir_fd=SAME),
        "block device": lambda: os.mknod("disk", stat.S_IFBLK | 0o666, os.makedev(8, 0), dir_fd=SAME),
        "fifo": lambda: os.mkfifo("fifo", dir_fd=SAME),
        "socket": bind_socket,
        "connect": lambda: connect(port),
        "execute": lambda: os.execv("/usr/bin/true", ["true"]),  # noqa: S606
        "execute own": execute_own,
        "kill parent": lambda: os.kill(parent, 0),
        "ptrace parent": lambda: take_descriptor_of(parent),
        "setuid": lambda: os.setresuid(12345, 12345, 12345),
        "setgid": lambda: os.setresgid(12345, 12345, 12345),
        "chown": lambda: os.chown(".", 12345, 12345, dir_fd=SAME),
        "chroot": lambda: os.chroot("."),
        "large file": write_much,
        "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 40, 1 << 40)),
        "memory": lambda: mmap.mmap(-1, 256 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
        "process": os.fork,
    }


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("setting", SETTINGS)
def test_nothing_can_be_done_in_it(
    setting: Setting, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path)
    tmp_path.chmod(0o755)
    for above in tmp_path.parents[:2]:
        above.chmod(above.stat().st_mode | stat.S_IXOTH)  # what holds is the jail, not a mode on the way
    (site.canary / "file").chmod(0o666)
    site.canary.chmod(0o777)
    attempts = attempts_on(site, port)
    # What a layer is there for cannot be refused without it.
    if setting is without_landlock or abi() == 0:
        del attempts["fifo"], attempts["socket"]
    elif setting is as_in_the_unit and abi() < 6:
        del attempts["kill parent"]
    if setting is as_in_the_unit:
        del attempts["process"]  # RLIMIT_NPROC is not for root's uid
    if setting is not as_we_are and abi() < 4:
        del attempts["connect"]
    setting(monkeypatch)

    found = look_from_inside(site, attempts)

    assert {name for name, became in found.items() if became == "done"} == set()
    assert found.keys() == attempts.keys()
    assert sorted(os.listdir(site.canary)) == ["below", "file", "link"]
    assert sorted(os.listdir(tmp_path)) == ["canary", "staging"]


def test_the_attempts_succeed_outside_of_it(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is never possible would prove nothing."""
    monkeypatch.chdir(tmp_path)  # and back: some of them go elsewhere
    site = Site(tmp_path)
    attempts = attempts_on(site, port)
    harmless = ["read outside", "list outside", "read /proc", "read above", "write outside", "fifo", "socket"]
    harmless += ["connect", "kill parent", "large file", "link from outside", "make outside", "memory"]
    harmless += ["ptrace parent", "chown"] if os.geteuid() == 0 else []
    with opened(site.staging, os.O_DIRECTORY) as into:
        os.dup2(into, SAME)
        try:
            found = {name: outcome(attempts[name]) for name in harmless}
        finally:
            os.close(SAME)
    assert found == dict.fromkeys(harmless, "done")


@is_root
@pytest.mark.parametrize(
    ("setting", "missing"),
    [
        (as_we_are, set()),
        (as_in_the_unit, {"network", "chroot", "uid", "bounding-set"}),
        (without_landlock, {"landlock"}),
        (as_nobody, {"network", "chroot", "uid", "bounding-set"}),
    ],
)
def test_says_which_layers_are_in_force(
    setting: Setting, missing: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if abi() < 2:
        missing = missing | {"landlock"}
    setting(monkeypatch)
    with opened(tmp_path, os.O_DIRECTORY) as into, nothing_left_behind():
        layers = find_layers(into)
    assert {name for name, why_not in layers.items() if why_not} == missing
    assert all(name in str(layers) for name in missing)
    assert layers.is_confined


def test_warns_when_nothing_confines_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    as_in_the_unit(monkeypatch)
    without_landlock(monkeypatch)
    Site(tmp_path).extract(SITE, jailed=True)
    assert any(
        "nothing but its own rules" in record.message for record in caplog.records if record.levelname == "WARNING"
    )


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("compression", Compression)
def test_extracts_with_whatever_layers_there_are(
    setting: Setting, compression: Compression, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links and renames between directories included, which Landlock treats apart."""
    setting(monkeypatch)
    site = Site(tmp_path)
    content = tar(file(b"top/a/b", b"x"), file(b"top/c/d"), symlink(b"top/e/f", b"../a/b"))
    with nothing_left_behind():
        site.extract(compress(content, compression), compression, strip=None, jailed=True)
    assert (site.staging / "e" / "f").read_bytes() == b"x"
    site.assert_nothing_outside_changed()


# How it ends


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


def test_too_much_memory_is_the_archives_fault(tmp_path: Path) -> None:
    assert measure(Site(tmp_path), long_links(3900), "12 << 20, 0")[0] == "needs-too-much-memory"

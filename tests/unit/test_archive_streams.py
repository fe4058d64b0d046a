"""How an extraction goes on and how it breaks off: progress, interruptions, faults of the host, bounds of memory."""

from __future__ import annotations

import errno
import functools
import os
import resource
import signal
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swapd.archive import Limits, decoders, extract_archive, streams
from swapd.archive import jailed as extracting
from swapd.archive.streams import Stream
from swapd.model.errors import Failed, Interrupted, Rejected
from swapd.model.release import Compression
from tests.unit.archives import LIMITS, Site, compress, directory, file, nothing_left_behind, opened, pax, symlink, tar
from tests.unit.archives_benign import SITE

MIB = 1 << 20
LARGE = tar(
    *(file(b"%d" % at, os.urandom(MIB // 16) + bytes(MIB // 2)) for at in range(14)),
    *(symlink(b"l%d" % at, b"1") for at in range(600)),
)
MANY = tar(*(file(b"%d" % at, b"") for at in range(1200)))


compressed = functools.cache(compress)  # xz and bzip2 take their time


class Interrupter:
    """A progress function that raises at its n-th call."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, _: int) -> None:
        self.left -= 1
        if self.left <= 0:
            raise Interrupted("extract")


@pytest.mark.parametrize("jailed", [False, True])
@pytest.mark.parametrize("compression", Compression)
def test_progress_comes_often_and_ends_at_the_size(compression: Compression, jailed: bool, tmp_path: Path) -> None:
    seen: list[int] = []
    data = compressed(LARGE, compression)

    Site(tmp_path).extract(data, compression, progress=seen.append, jailed=jailed)

    assert seen == sorted(seen)
    assert seen[-1] == len(data)
    if not jailed:  # which tells several times a second
        assert len(seen) >= len(LARGE) // MIB


def test_progress_comes_for_many_small_members(tmp_path: Path) -> None:
    calls: list[int] = []
    Site(tmp_path).extract(MANY, progress=calls.append)
    assert len(calls) >= 1200 // 256 + 2  # and the first block, and the end


@pytest.mark.parametrize("jailed", [False, True])
@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("call", [1, 2, 5, 14])
def test_an_interruption_leaves_nothing_running(
    compression: Compression, call: int, jailed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extracting, "INTERVAL", 0.0)  # not too fast for us
    monkeypatch.setattr(extracting, "AT_ONCE", 8)  # however late we hear of it, one report after the other
    site = Site(tmp_path)
    data = compressed(LARGE, compression)

    with nothing_left_behind(), pytest.raises(Interrupted):
        site.extract(data, compression, progress=Interrupter(call), jailed=jailed)

    site.assert_nothing_outside_changed()
    site.assert_tree_is_tame()


def test_a_closed_stream_reads_no_further(tmp_path: Path) -> None:
    tarball = tmp_path / "tarball"
    tarball.write_bytes(compress(os.urandom(12 * MIB), Compression.GZIP))
    seen: list[int] = []
    with opened(tarball, os.O_RDONLY) as descriptor:
        with Stream(descriptor, Compression.GZIP, seen.append) as stream:
            stream.next_block()
        stream.report()
    assert seen[-1] < tarball.stat().st_size


def test_an_interruption_is_heard_while_nothing_comes_out(tmp_path: Path) -> None:
    site = Site(tmp_path)
    empty_members = compress(b"", Compression.GZIP) * 300_000

    with nothing_left_behind(), pytest.raises(Interrupted):
        site.extract(compress(SITE[:512], Compression.GZIP) + empty_members, Compression.GZIP, progress=Interrupter(4))


def test_streams_in_a_row_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "MAX_STREAMS", 50)
    empty = compress(b"", Compression.GZIP)
    whole = compress(SITE, Compression.GZIP)
    site = Site(tmp_path)

    site.extract(whole + empty * 49, Compression.GZIP)

    with pytest.raises(Rejected) as refusal:
        Site(scratch(tmp_path)).extract(whole + empty * 50, Compression.GZIP)
    assert refusal.value.problem == "too-many-streams"


def scratch(tmp_path: Path) -> Path:
    (tmp_path / "second").mkdir()
    return tmp_path / "second"


@pytest.mark.parametrize("compression", Compression)
def test_reads_from_the_beginning_wherever_the_offset_is(compression: Compression, tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.tarball.write_bytes(compress(SITE, compression))
    with opened(site.tarball, os.O_RDONLY) as descriptor, opened(site.staging, os.O_DIRECTORY) as into:
        os.lseek(descriptor, 100, os.SEEK_SET)
        site.tarball.unlink()
        extract_archive(descriptor, compression, into, LIMITS, strip_components=None, progress=lambda _: None)
    assert (site.staging / "index.php").exists()


@pytest.mark.parametrize("name", ["file", ".hidden", "link"])
def test_wants_an_empty_staging_directory(name: str, tmp_path: Path) -> None:
    site = Site(tmp_path)
    (site.staging / name).symlink_to("../canary") if name == "link" else (site.staging / name).touch()

    with nothing_left_behind(), pytest.raises(Failed) as failure:
        site.extract(SITE)

    assert failure.value.problem == "staging-not-empty"


# zstd, the child


@contextmanager
def zstd_that(does: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another program in zstd's place, where every uid may execute it."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o711)  # noqa: S103 - which is the point
        program = Path(directory, "zstd")
        program.write_text(f"#!/bin/sh\n{does}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
        yield


def test_says_that_zstd_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = compress(SITE, Compression.ZSTD)
    monkeypatch.setenv("PATH", str(tmp_path))

    with nothing_left_behind(), pytest.raises(Failed) as failure:
        Site(tmp_path).extract(data, Compression.ZSTD)

    assert failure.value.problem == "zstd-missing"
    assert not isinstance(failure.value, Interrupted)


@pytest.mark.parametrize("jailed", [False, True])
@pytest.mark.parametrize("ending", ["exit 70", "kill -KILL $$", "cat >/dev/null; exit 37"])
def test_a_zstd_that_fails_is_not_the_tarballs_fault(
    ending: str, jailed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = compress(SITE, Compression.ZSTD)
    with (
        zstd_that(f"echo 'no \033[31mspace' >&2\n{ending}", monkeypatch),
        nothing_left_behind(),
        pytest.raises(Failed) as failure,
    ):
        Site(tmp_path).extract(data, Compression.ZSTD, jailed=jailed)

    assert failure.value.problem == "zstd-failed"
    assert "no \\x1b[31mspace" in failure.value.message


@pytest.mark.parametrize("jailed", [False, True])
def test_a_hanging_zstd_can_be_interrupted(jailed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = compress(SITE, Compression.ZSTD)
    with zstd_that("exec sleep 600", monkeypatch), nothing_left_behind(), pytest.raises(Interrupted):
        Site(tmp_path).extract(data, Compression.ZSTD, progress=Interrupter(3), jailed=jailed)


def test_a_hanging_zstd_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PATIENCE", 0.5)
    data = compress(SITE, Compression.ZSTD)

    with zstd_that("exec sleep 600", monkeypatch), nothing_left_behind(), pytest.raises(Failed) as failure:
        Site(tmp_path).extract(data, Compression.ZSTD, jailed=True)

    assert failure.value.problem == "decompressor-hangs"


def zstd_children() -> list[int]:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(child) for child in children if Path(f"/proc/{child}/comm").read_text() == "zstd\n"]


def test_zstd_may_not_take_all_memory(tmp_path: Path) -> None:
    """The program reads xz frames too, behind a first one of its own, and has no limit for these."""
    limits: list[str] = []

    def look(_: int) -> None:
        for child in zstd_children():
            limits.extend(Path(f"/proc/{child}/limits").read_text().splitlines())

    Site(tmp_path).extract(compressed(LARGE, Compression.ZSTD), Compression.ZSTD, progress=look)
    assert any(line.split()[:4] == ["Max", "address", "space", str(512 * MIB)] for line in limits)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_does_not_end_zstd(number: signal.Signals, tmp_path: Path) -> None:
    sent: list[int] = []

    def signal_all(_: int) -> None:
        for child in zstd_children():
            os.kill(child, number)
            sent.append(child)

    Site(tmp_path).extract(compressed(LARGE, Compression.ZSTD), Compression.ZSTD, progress=signal_all)
    assert sent


# Faults of the host


@contextmanager
def soft_limit(kind: int, value: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def test_a_file_that_cannot_grow_is_an_error_of_the_host(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.tarball.write_bytes(tar(file(b"a", bytes(150_000))))  # one write, of which the kernel takes two thirds
    with (
        opened(site.tarball, os.O_RDONLY) as descriptor,
        opened(site.staging, os.O_DIRECTORY) as into,
        nothing_left_behind(),
        soft_limit(resource.RLIMIT_FSIZE, 100_000),
        pytest.raises(OSError, match=os.strerror(errno.EFBIG)),
    ):
        extract_archive(descriptor, Compression.NONE, into, LIMITS, strip_components=None, progress=lambda _: None)


def test_a_symlink_that_somebody_plants_is_not_followed(tmp_path: Path) -> None:
    """Nobody else may write to a staging directory; should one do, nothing outside is reached all the same."""
    site = Site(tmp_path)

    def plant(_: int) -> None:
        if not (site.staging / "a").is_symlink():
            (site.staging / "a").symlink_to(site.canary)
            (site.staging / "file").symlink_to(site.canary / "file")

    for data in (tar(file(b"a/pwned")), tar(directory(b"a/below/pwned")), tar(file(b"file", b"pwned"))):
        with nothing_left_behind(), pytest.raises(Rejected):
            site.extract(data, progress=plant)
        site.assert_nothing_outside_changed()
        (site.staging / "a").unlink()
        (site.staging / "file").unlink()


def test_too_few_descriptors_are_an_error_of_the_host(tmp_path: Path) -> None:
    site = Site(tmp_path)
    deep = tar(pax((b"path", b"d/" * 120 + b"f")), file(b"a"))
    with opened(tmp_path, os.O_DIRECTORY) as lowest_free, nothing_left_behind():
        few = soft_limit(resource.RLIMIT_NOFILE, lowest_free + 60)
        with few, pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            site.extract(deep)


def test_a_staging_directory_that_went_away_is_an_error_of_the_host(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.tarball.write_bytes(SITE)
    with opened(site.tarball, os.O_RDONLY) as descriptor, opened(site.staging, os.O_DIRECTORY) as into:
        site.staging.rmdir()
        with nothing_left_behind(), pytest.raises(FileNotFoundError):
            extract_archive(descriptor, Compression.NONE, into, LIMITS, strip_components=None, progress=lambda _: None)


def test_what_is_not_a_regular_file_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with (
        opened(tmp_path, os.O_DIRECTORY) as directory,
        nothing_left_behind(),
        pytest.raises(ValueError, match="regular"),
    ):
        extract_archive(directory, Compression.NONE, directory, LIMITS, strip_components=None, progress=lambda _: None)


# Memory


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP, Compression.XZ])
def test_memory_does_not_grow_with_the_archive(compression: Compression, tmp_path: Path) -> None:
    site = Site(tmp_path)
    data = compress(tar(file(b"zeros", bytes(50 * MIB))), compression)
    tracemalloc.start()
    try:
        site.extract(data, compression, limits=Limits(1 << 40, 100))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * MIB

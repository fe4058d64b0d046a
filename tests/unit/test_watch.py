"""What raises the flag of a watch, what it cannot see and says so, and what makes it start anew."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.events import FileModifiedEvent

from swapd.host import linux, reach
from swapd.host.linux import has_writer, mounted_filesystem
from swapd.host.watch import CROWD, Watch, _Flag
from swapd.stages.mark import announce
from tests.support.httpd import PROJECT, state_of
from tests.support.mounts import tmpfs
from tests.support.silent import fuse
from tests.support.waiting import PATIENCE, wait_until

QUEUED = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


class Flag(threading.Event):
    """A watch's flag, with the watch."""

    def __init__(self) -> None:
        super().__init__()
        self.watch = Watch(lambda _: self.set())

    def follow(self, *directories: Path) -> None:
        """Watches them; the flag is down after that."""
        self.watch.watch(directories)
        self.clear()


@pytest.fixture
def flag() -> Iterator[Flag]:
    flag = Flag()
    yield flag
    flag.watch.close()


def close(drop: Path) -> None:
    (drop / "upload").write_text("whole")


def move(drop: Path) -> None:
    (drop.parent / "elsewhere").rename(drop / "moved")


def link(drop: Path) -> None:
    os.link(drop.parent / "elsewhere", drop / "linked")


def remove(drop: Path) -> None:
    (drop / "there").unlink()


@pytest.mark.parametrize("act", [close, move, link, remove, announce])
def test_what_is_news(tmp_path: Path, flag: Flag, act: Callable[[Path], None]) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    (drop / "there").touch()
    (tmp_path / "elsewhere").touch()
    flag.follow(drop)
    act(drop)
    assert flag.wait(PATIENCE)


def test_reading_and_the_writes_of_an_upload_are_no_news_unless_there_is_a_crowd_of_them(tmp_path: Path) -> None:
    raised: list[Path] = []
    watch = Watch(raised.append)
    directories = [tmp_path / "one", tmp_path / "other"]
    for directory in directories:
        directory.mkdir()
    watch.watch(directories)
    try:
        flag = _Flag(directories[0], raised.append, watch._count)
        opened = FileModifiedEvent("shop.tar.gz")
        opened.event_type = "opened"  # the oldest watchdog has no class for it
        for _ in range(CROWD):
            flag.dispatch(opened)
        for _ in range(CROWD - 1):
            flag.dispatch(FileModifiedEvent("shop.tar.gz"))
        assert raised == []
        flag.dispatch(FileModifiedEvent("shop.tar.gz"))
        assert raised == directories, "the queue is one for all of them"
    finally:
        watch.close()


def test_a_drop_directory_that_is_a_symbolic_link(tmp_path: Path, flag: Flag) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "other").mkdir()
    drop = tmp_path / "drop"
    drop.symlink_to("real")
    flag.follow(drop)
    close(drop)
    assert flag.wait(PATIENCE)
    assert flag.watch.find_trouble() is None
    (tmp_path / "new").symlink_to("other")
    (tmp_path / "new").rename(drop)
    assert "another directory" in str(flag.watch.find_trouble())


def test_one_that_is_missing_and_comes_back(tmp_path: Path, flag: Flag) -> None:
    drop, file = tmp_path / "drop", tmp_path / "file"
    file.touch()
    flag.follow(drop, file)
    assert set(flag.watch.missing) == {drop, file}
    assert flag.watch.find_trouble() is None
    drop.mkdir()
    assert "there again" in str(flag.watch.find_trouble())


OVERFLOWN = """
import sys
from pathlib import Path
from swapd.host.watch import Watch
watch = Watch(lambda _: print("flag", flush=True))
watch.watch([Path(sys.argv[1])])
print("ready", flush=True)
sys.stdin.read()
watch.close()
"""


def test_what_was_lost_because_the_queue_was_full(tmp_path: Path) -> None:
    """The close of the sidecar gives no event any more; what comes later than it raises the flag all the same."""
    program = [sys.executable, "-c", OVERFLOWN, str(tmp_path)]
    with (
        (tmp_path / "a.tar").open("wb", buffering=0) as one,
        (tmp_path / "b.tar").open("wb", buffering=0) as two,
        subprocess.Popen(
            program, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as watcher,
    ):
        try:
            assert read_line(watcher) == "ready"
            os.kill(watcher.pid, signal.SIGSTOP)
            wait_until(lambda: state_of(watcher.pid) == "T", "the watcher to stop")
            for _ in range(QUEUED // 2 + 500):  # the kernel drops what is the same as the event before it
                one.write(b"x")
                two.write(b"x")
            (tmp_path / "a.tar.sha256").write_text("lost")
            os.kill(watcher.pid, signal.SIGCONT)
            assert read_line(watcher) == "flag"
        finally:
            watcher.kill()


def read_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], PATIENCE)[0], "it says nothing"
    return process.stdout.readline().decode().rstrip()


@pytest.mark.root
class TestFilesystems:
    def test_a_local_one_is_not_polled(self, tmp_path: Path, flag: Flag) -> None:
        with tmpfs(tmp_path / "drop") as drop:
            flag.follow(drop)
            assert (flag.watch.remote, flag.watch.unwatched) == ({}, {})

    def test_fuse_is_polled_and_watched(self, tmp_path: Path, flag: Flag) -> None:
        drop = tmp_path / "drop"
        with fuse(tmp_path, drop):
            flag.follow(drop)
            assert flag.watch.remote[drop].startswith("fuse")
            close(drop)  # by this machine's sshd: told at once
            assert flag.wait(PATIENCE)
            flag.watch.close()

    def test_fuse_whose_program_died(self, tmp_path: Path, flag: Flag) -> None:
        drop = tmp_path / "drop"
        with fuse(tmp_path, drop) as program:
            program.kill()
            program.wait()
            flag.follow(drop)
            assert set(flag.watch.missing) == {drop}
            assert flag.watch.find_trouble() is None
        assert "there again" in str(flag.watch.find_trouble())

    def test_one_that_hangs_does_not_answer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reach, "PATIENCE", 0.5)
        asked, drops = reach.Reach(), [tmp_path / "one", tmp_path / "other"]
        for drop in drops:
            drop.mkdir()
        with fuse(tmp_path, drops[0]) as program:
            wait_until(lambda: asked.find_silent(drops) == set(), "an answer of both")
            program.send_signal(signal.SIGSTOP)
            assert drops[0] in asked.find_silent(drops)
            program.send_signal(signal.SIGCONT)
            wait_until(lambda: asked.find_silent(drops) == set(), "an answer again")
        assert asked.find_silent([tmp_path / "nowhere", drops[1] / "file"]) == set(), "an error is an answer"

    def test_one_that_is_mounted_over_and_unmounted(self, tmp_path: Path, flag: Flag) -> None:
        drop = tmp_path / "drop"
        drop.mkdir()
        flag.follow(drop)
        with tmpfs(drop):
            assert "another directory" in str(flag.watch.find_trouble())
            flag.follow(drop)
            assert flag.watch.find_trouble() is None
            close(drop)
            assert flag.wait(PATIENCE)
        assert "another directory" in str(flag.watch.find_trouble())
        flag.follow(drop)
        close(drop)
        assert flag.wait(PATIENCE)


LIMITED = """
import select, sys
from pathlib import Path
from swapd.host.watcher import Watcher
limit, drop = Path("/proc/sys/user/max_inotify_watches"), Path(sys.argv[1])
watcher = Watcher()
limit.write_text("0")
watcher.watch([drop])
assert drop in watcher.unwatched and watcher.must_poll(drop) and not watcher.remote, watcher.unwatched
assert watcher.find_trouble() is None, watcher.find_trouble()
watcher.watch_unwatched()
assert drop in watcher.unwatched and not watcher.take_flags()
limit.write_text("10")
watcher.watch_unwatched()
assert not watcher.unwatched and not watcher.must_poll(drop)
assert watcher.take_flags() == [drop], "looked at once it is watched"
(drop / "upload").write_text("whole")
assert select.select([watcher.flags], [], [], 30)[0] and watcher.take_flags() == [drop]
watcher.close()
"""


@pytest.mark.root
def test_where_no_watch_is_left_and_then_there_is_one(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "drop") as drop:
        # A user namespace has limits of its own.
        command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", LIMITED, str(drop)]
        subprocess.run(command, cwd=PROJECT, check=True, timeout=PATIENCE)


def test_a_lease_that_is_refused_by_a_server_says_nothing_of_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On NFS and CIFS each request may be refused so; here this filesystem is taken for one of them."""
    upload = tmp_path / "shop.tar.gz"
    with upload.open("wb"), upload.open("rb") as file:
        assert has_writer(file.fileno()) is True
        monkeypatch.setattr(linux, "LEASED_BY_SERVER", {mounted_filesystem(file.fileno())})
        assert has_writer(file.fileno()) is None

"""The daemon between uploads: what it costs to wait, and that it goes on watching whatever befalls the watch."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from swapd.host.files import fingerprint
from swapd.host.watch import Watch
from swapd.host.watcher import NAME, Watcher
from swapd.model.record import Marker, now
from swapd.model.release import Outcome
from swapd.stages.mark import announce, remove_upload, write_marker
from tests.crash.actors import children_of
from tests.support.httpd import name_of
from tests.support.sites import Scratch, parse_site_name
from tests.support.tarballs import drop, site_content, write_tarball
from tests.support.waiting import wait_until

RESIDENT = 40 << 20  # bytes that the idle daemon may have, all its processes together


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_tarball(tmp_path / "shop-1.tar.gz", site_content("one"))


def watching(scratch: Scratch) -> int:
    """The process that watches; 0 while there is none."""
    children = children_of(scratch.daemon.process.pid)
    return next((pid for pid in children if name_of(pid) == f"swapd {NAME}"), 0)


def proportional_size(pid: int) -> int:
    """Bytes resident, what it shares with others divided among them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def ticks(pid: int) -> int:
    """Hundredths of a second of processor time."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))


def switches(pid: int) -> int:
    """How often its threads have gone to wait."""
    return sum(
        int(line.split()[1])
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


def test_an_idle_daemon_costs_next_to_nothing(scratch: Scratch, one: Path) -> None:
    incoming = scratch.add_site()
    for number in range(20):
        scratch.add_site(f"other{number}")
    daemon = scratch.start_daemon(watchdog=600.0)
    drop(one, incoming)
    scratch.wait_marker("shop-1.tar.gz.live")
    wait_until(lambda: not daemon.workers(), "the worker's end")
    pids = [daemon.process.pid, watching(scratch)]
    settled, since = -1, 0.0

    def rests() -> bool:
        """For longer than watchdog's threads hold back an event that may have a second half."""
        nonlocal settled, since
        before, settled = settled, sum(map(switches, pids))
        if before != settled:
            since = time.monotonic()
        return time.monotonic() - since > 2.0

    wait_until(rests, "it to rest")
    assert sum(map(proportional_size, pids)) < RESIDENT
    before = [(ticks(pid), switches(pid)) for pid in pids]
    with pytest.raises(AssertionError):
        wait_until(lambda: [(ticks(pid), switches(pid)) for pid in pids] != before, "it to do anything", patience=5)


def test_its_process_is_killed(scratch: Scratch, one: Path) -> None:
    incoming = scratch.add_site()
    daemon = scratch.start_daemon()
    old = watching(scratch)
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: watching(scratch) not in (0, old), "another process")
    wait_until(lambda: "was set up anew" in daemon.log(), "the journal to say so")
    drop(one, incoming)
    scratch.wait_marker("shop-1.tar.gz.live")


def test_it_ends_with_the_daemon(scratch: Scratch) -> None:
    scratch.add_site()
    daemon = scratch.start_daemon()
    pid = watching(scratch)
    daemon.kill()
    wait_until(lambda: not name_of(pid), "the process that watches to end")


def test_what_is_news(tmp_path: Path) -> None:
    """What others do in a drop directory, and a command's word; not swapd's own markers."""
    watcher = Watcher()
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    watcher.watch([one, other])
    try:
        marker = Marker(Outcome.PENDING, "waits", parse_site_name("shop"), now())
        write_marker(one, "a.tar.gz", marker)
        (other / "b.tar.gz").write_bytes(b"")
        seen = set[Path]()
        wait_until(lambda: seen.update(watcher.take_flags()) or other in seen, "the upload to be seen")
        assert one not in seen, "events come in order, of each directory"
        announce(one)
        wait_until(lambda: one in watcher.take_flags(), "the command's word")
        assert watcher.find_trouble() is None
        other.rename(tmp_path / "elsewhere")
        assert str(other) in (watcher.find_trouble() or "")
    finally:
        watcher.close()


def test_markers_are_no_news_nor_is_the_removal_of_what_is_live(tmp_path: Path) -> None:
    """With the watch in this process, so that the order of events is the kernel's."""
    flagged: list[Path] = []
    tarball = tmp_path / "a.tar.gz"
    tarball.touch()
    claimed = fingerprint(tarball.stat())
    watch = Watch(flagged.append)
    watch.watch([tmp_path])
    try:
        for outcome in Outcome:
            write_marker(tmp_path, "a.tar.gz", Marker(outcome, "", parse_site_name("shop"), now()))
        remove_upload(tmp_path, "a.tar.gz", claimed, ())
        before = len(flagged)
        (tmp_path / "b.tar.gz").write_bytes(b"")
        wait_until(lambda: flagged, "the upload to be seen")
        assert before == 0
    finally:
        watch.close()

"""When the metrics are written: on news, not too often, and often enough that a dead daemon can be told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swapd import metrics
from swapd.host import textfile
from swapd.host.linux import mount_points
from swapd.host.textfile import find_waiting, replace_file
from swapd.metrics import Metrics
from swapd.model.events import Event
from swapd.model.layout import Layout
from tests.support import exposition


class Clock:
    """In the place of ``time``, as far as it is asked there."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(metrics, "time", clock)
    return clock


class Told:
    """Metrics of a host without sites, and what is said of them."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.events: list[Event] = []
        self.metrics = Metrics(Layout(file.parent), self.events.append)
        self.metrics.configure(file)

    def tell(self, unheard: int = 0, *, is_up: bool = True, is_valid: bool = True) -> exposition.Metrics:
        self.metrics.tell([], is_configuration_valid=is_valid, unheard=unheard, is_up=is_up)
        return exposition.parse(self.file.read_text()) if self.file.exists() else exposition.Metrics()


@pytest.fixture
def told(tmp_path: Path, clock: Clock) -> Told:
    del clock
    return Told(tmp_path / "swapd.prom")


def test_news_are_written_once_the_last_ones_have_been_there_for_a_while(told: Told, clock: Clock) -> None:
    assert told.tell().get("swapd_configuration_valid") == 1
    assert told.metrics.wakes_at == clock.now + metrics.REST
    assert told.tell(is_valid=False).get("swapd_configuration_valid") == 1
    clock.now = told.metrics.wakes_at
    assert told.tell(is_valid=False).get("swapd_configuration_valid") == 0


def test_what_is_no_news_is_written_once_a_minute(told: Told, clock: Clock) -> None:
    first = told.tell().get("swapd_heartbeat_timestamp_seconds")
    clock.now += metrics.REST
    assert told.metrics.wakes_at == first + metrics.HEARTBEAT
    for _ in range(5):
        clock.now += 1
        assert told.tell().get("swapd_heartbeat_timestamp_seconds") == first
    clock.now = told.metrics.wakes_at
    assert told.tell().get("swapd_heartbeat_timestamp_seconds") == clock.now


def test_the_end_is_written_at_once(told: Told) -> None:
    told.tell()
    assert told.tell(is_up=False).get("swapd_up") == 0


def test_lost_journal_records_add_up_though_they_are_reported_meanwhile(told: Told, clock: Clock) -> None:
    for unheard, lost in ((2, 2), (3, 3), (0, 3), (4, 7), (4, 7), (1, 7), (2, 8)):
        clock.now += metrics.REST
        assert told.tell(unheard).get("swapd_journal_records_lost_total") == lost


def test_none_where_none_are_asked_for(told: Told) -> None:
    told.tell()
    told.metrics.configure(None)
    assert not told.file.exists()
    assert told.metrics.wakes_at == float("inf")
    told.tell()
    assert not told.file.exists()


def test_nobody_waits_for_another_machine(told: Told, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    there = textfile.mounts()
    monkeypatch.setattr(textfile, "mounts", lambda: [*there, (str(told.file.parent), "nfs4")])
    told.tell()
    assert not told.file.exists()
    assert "nfs4" in told.metrics.trouble
    clock.now += metrics.HEARTBEAT
    told.tell()
    (event,) = told.events
    assert str(told.file.parent) in event.message


def test_the_mount_that_counts_is_the_nearest_and_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [("/", "ext4"), ("/srv", "nfs4"), ("/srv/local", "xfs"), ("/srv/local/a b", "fuse.sshfs")]
    monkeypatch.setattr(textfile, "mounts", lambda: found)
    assert find_waiting(Path("/var/lib")) == ""
    assert find_waiting(Path("/srvx")) == ""
    assert find_waiting(Path("/srv/x")) == "nfs4"
    assert find_waiting(Path("/srv/local/x")) == ""
    assert find_waiting(Path("/srv/local/a b/c")) == "fuse.sshfs"
    found.append(("/srv", "ext4"))
    assert find_waiting(Path("/srv/x")) == ""


def test_mounts_have_types() -> None:
    assert ("/proc", "proc") in textfile.mounts()
    assert [place for place, _ in textfile.mounts()] == mount_points()


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "swapd.prom"
    (tmp_path / ".swapd.prom.new").symlink_to(tmp_path / "elsewhere")
    replace_file(path, b"one\n")
    with path.open("rb") as open_before:
        replace_file(path, b"two\n")
        assert open_before.read() == b"one\n"
    assert path.read_bytes() == b"two\n"
    assert path.stat().st_mode & 0o7777 == 0o644
    assert os.listdir(tmp_path) == ["swapd.prom"], "and nothing was written through a link that lay there"
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=r"swapd\.prom"):
        replace_file(path, b"three\n")
    assert os.listdir(tmp_path) == ["swapd.prom"], "nothing is left that a collector might read"

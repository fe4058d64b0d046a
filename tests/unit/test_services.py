"""Which service httpd is, and what its watchdog forbids: real control groups, and a systemctl that says what is due."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swapd.host.services import control_group, find_service, is_in_service, read_watchdog
from swapd.model.config import Pause, PauseMode
from swapd.model.errors import Failed, Issue
from swapd.model.layout import Layout
from swapd.model.units import parse_timespan
from swapd.stages import pause
from tests.support.httpd import Httpd, unique_name
from tests.support.waiting import wait_until
from tests.unit.test_pause import httpd, layout

__all__ = ["httpd", "layout"]

Systemctl = Callable[[str], Path]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("infinity", 0),
        ("30s", 30),
        ("1min 30s", 90),
        ("250ms", 0.25),
        ("1s 500ms", 1.5),
        ("1.5s", 1.5),
        ("20us", 20e-6),
        ("2min", 120),
        ("1h 1min 1s 1ms 1us", 3661.001001),
        ("1d", 86400),
        ("1w 1d", 691200),
        ("1month 2d", 2629800 + 172800),
        ("2y", 63115200),
    ],
)
def test_time_spans_as_systemd_prints_them(text: str, seconds: float) -> None:
    assert parse_timespan(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", " ", "s", "1", "5 s", "1m", "1min30s", "-1s", "1s,", "[not set]", "1 parsec"])
def test_what_is_no_time_span(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_timespan(text)


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemctl:
    """Writes a systemctl that is found before the real one; the file in which it says what it was asked."""

    def write(body: str) -> Path:
        place = tmp_path / "bin"
        place.mkdir(exist_ok=True)
        (place / "systemctl").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\n{body}\n')
        (place / "systemctl").chmod(0o755)
        monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
        return tmp_path / "asked"

    return write


class TestWatchdog:
    def test_systemd_is_asked_for_it(self, systemctl: Systemctl) -> None:
        asked = systemctl("echo 1min 30s")
        assert read_watchdog("apache2.service") == 90
        assert asked.read_text().split() == ["show", "--value", "--property=WatchdogUSec", "--", "apache2.service"]

    @pytest.mark.parametrize("body", ["echo 0", "echo infinity", "echo", "echo 3 parsecs", "exit 1", "kill -9 $$"])
    def test_none_where_systemd_names_none(self, systemctl: Systemctl, body: str) -> None:
        systemctl(body)
        assert read_watchdog("apache2.service") is None

    def test_none_where_there_is_no_systemctl(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert read_watchdog("apache2.service") is None


def test_our_own_control_group() -> None:
    group = control_group(os.getpid())
    assert any(line.endswith(f":{group}") for line in Path("/proc/self/cgroup").read_text().splitlines())


def test_one_that_is_gone_is_in_no_service() -> None:
    with Httpd(workers=0) as httpd:
        pass
    assert (control_group(httpd.master), find_service(httpd.master)) == ("", None)
    assert not is_in_service(httpd.master, "apache2.service")


@contextlib.contextmanager
def grouped(httpd: Httpd, path: str) -> Iterator[None]:
    """Its processes in a control group of this path, in the hierarchy that systemd uses or would; root only."""
    mounts = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup/systemd")]
    top = next((mount for mount in mounts if (mount / "cgroup.procs").exists()), None)
    if top is None or not os.access(top, os.W_OK):
        pytest.skip("no control groups can be made here")
    made = [top / Path(*Path(path).parts[: depth + 1]) for depth in range(len(Path(path).parts))]
    try:
        for directory in made:
            directory.mkdir()
        for pid in (httpd.master, *httpd.workers):
            (made[-1] / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        httpd.close()
        for directory in reversed(made):
            if directory.exists():
                wait_until(lambda directory=directory: not (directory / "cgroup.procs").read_text(), "its end")  # type: ignore[misc]
                directory.rmdir()


@pytest.mark.root
class TestService:
    @pytest.mark.parametrize(
        ("path", "is_service"),
        [
            ("{}.service", True),
            ("{}.slice/{}.service", True),
            ("{}.service/workers", True),
            ("{}.scope", False),
            ("user@{}.service/{}.service", False),  # a user's own service, of which the system's systemd knows nothing
        ],
    )
    def test_a_control_group_names_it(self, httpd: Httpd, path: str, is_service: bool) -> None:
        name = unique_name()
        with grouped(httpd, path.replace("{}", name)):
            assert find_service(httpd.master) == (f"{name}.service" if is_service else None)
            assert is_in_service(httpd.master, f"{name}.service") == (
                "/" + name + ".service" in f"/{path}".replace("{}", name)
            )
            assert not is_in_service(httpd.master, name)
            assert not is_in_service(os.getpid(), f"{name}.service")

    def find(self, httpd: Httpd, layout: Layout) -> list[Issue]:
        """What a pause of at most one second would warn of."""
        with pause.found(Pause(PauseMode.ALWAYS, (httpd.name,), 1.0), layout) as found:
            assert found is not None
            return found.quarry.warnings

    def test_a_watchdog_shorter_than_the_pause_forbids_it(
        self, httpd: Httpd, layout: Layout, systemctl: Systemctl
    ) -> None:
        asked = systemctl("echo 900ms")
        name = unique_name()
        with grouped(httpd, f"{name}.service"):
            with pytest.raises(Failed) as caught:
                self.find(httpd, layout)
            assert caught.value.problem == "watchdog-too-short"
            assert f"{name}.service" in caught.value.message
            assert asked.read_text().endswith(f"-- {name}.service\n")
            assert httpd.is_running()
            assert not layout.pause_record.exists(), "nothing was about to be stopped"

    @pytest.mark.parametrize(
        ("watchdog", "is_warned"),
        [("1s", True), ("1s 999ms", True), ("2s", False), ("30s", False), ("infinity", False)],
    )
    def test_one_that_half_of_it_may_be_too_short_is_warned_of(
        self, httpd: Httpd, layout: Layout, systemctl: Systemctl, watchdog: str, is_warned: bool
    ) -> None:
        systemctl(f"echo {watchdog}")
        name = unique_name()
        with grouped(httpd, f"{name}.service"):
            warnings = self.find(httpd, layout)
        assert len(warnings) == is_warned
        assert all(warning.problem == "watchdog-near" and f"{name}.service" in warning.message for warning in warnings)

    def test_without_a_service_nobody_is_asked(self, httpd: Httpd, layout: Layout, systemctl: Systemctl) -> None:
        asked = systemctl("echo 1ms")
        with grouped(httpd, f"{unique_name()}.scope"):
            assert self.find(httpd, layout) == []
        assert not asked.exists()

    def test_only_the_unit_that_is_configured_is_paused(self, httpd: Httpd, layout: Layout) -> None:
        name = unique_name()
        with grouped(httpd, f"{name}.service"), Httpd(workers=1, name=httpd.name):
            rules = Pause(PauseMode.ALWAYS, (httpd.name,), 1.0, unit=f"{name}.service")
            with pause.found(rules, layout) as found:
                assert found is not None
                assert [process.identity.pid for process in found.quarry.masters] == [httpd.master]

"""The metrics that the daemon writes for Prometheus: after each outcome, over restarts and crashes, and in trouble."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import exposition
from tests.support.daemon import Daemon
from tests.support.exposition import Metrics
from tests.support.httpd import Httpd
from tests.support.sites import Scratch
from tests.support.tarballs import drop, release_of, site_content, write_tarball
from tests.support.waiting import wait_until


@pytest.fixture
def file(scratch: Scratch) -> Path:
    """Where the metrics are asked for."""
    path = scratch.root / "exporter" / "swapd.prom"
    path.parent.mkdir()
    scratch.layout.defaults_file.parent.mkdir(parents=True, exist_ok=True)
    scratch.layout.defaults_file.write_text(f'[metrics]\ntextfile = "{path}"\n')
    return path


def read(file: Path) -> Metrics:
    return exposition.parse(file.read_text())


def wait_for(file: Path, condition: Callable[[Metrics], bool], what: str) -> Metrics:
    """The metrics, once they say so."""

    def found() -> Metrics | None:
        metrics = read(file) if file.exists() else None
        return metrics if metrics and condition(metrics) else None

    metrics = wait_until(found, what)
    assert metrics is not None
    return metrics


def number_of(metrics: Metrics, outcome: str, kind: str = "deployment", site: str = "shop") -> float:
    return metrics.get("swapd_deployments_total", site=site, kind=kind, outcome=outcome)


def wait_number(file: Path, number: int, outcome: str = "live", kind: str = "deployment") -> Metrics:
    def is_so(metrics: Metrics) -> bool:
        return metrics.has("swapd_up") and number_of(metrics, outcome, kind) == number

    return wait_for(file, is_so, f"{number} {kind}s to be {outcome}")


def start(scratch: Scratch, change: str) -> Daemon:
    """The daemon, with something in ``swapd.metrics`` that is otherwise."""
    program = f"from swapd import cli, metrics\n{change}\ncli.main()"
    return scratch.start_daemon(command_line=[sys.executable, "-c", program, *scratch.command_line("run")[3:]])


def make(directory: Path, name: str) -> Path:
    return write_tarball(directory / f"{name}.tar.gz", site_content(name))


def test_every_outcome_is_counted(scratch: Scratch, file: Path, httpd: Httpd, tmp_path: Path) -> None:
    incoming = scratch.add_site(httpd=httpd.name, must_contain=["index.html"])
    scratch.start_daemon()
    before = wait_for(file, lambda metrics: bool(metrics.labels("swapd_uploads_waiting")), "the first metrics")
    assert before.get("swapd_up") == before.get("swapd_configuration_valid") == 1
    assert file.stat().st_mode & 0o7777 == 0o644
    one, two = make(tmp_path, "one"), make(tmp_path, "two")
    drop(one, incoming)
    metrics = wait_number(file, 1)
    assert metrics.get("swapd_release_info", site="shop", release=release_of(one), strategy="symlink") == 1
    assert metrics.get("swapd_last_pause_processes", site="shop") == len(httpd.pids())
    assert metrics.get("swapd_pause_duration_seconds_count", site="shop") == 1
    assert metrics.get("swapd_stage_duration_seconds_count", site="shop", stage="extract") == 1
    assert metrics.get("swapd_deployment_duration_seconds_count", site="shop", kind="deployment") == 1
    drop(two, incoming)
    wait_number(file, 2)
    drop(two, incoming)
    wait_number(file, 1, "unchanged")
    drop(write_tarball(tmp_path / "bad.tar.gz", {"other.html": ""}), incoming)
    metrics = wait_number(file, 1, "rejected")
    (last,) = metrics.labels("swapd_last_deployment_info")
    assert (last["outcome"], last["problem"]) == ("rejected", scratch.wait_marker("bad.tar.gz.rejected")["problem"])
    wait_for(file, lambda metrics: metrics.get("swapd_site_trouble", site="shop") == 1, "the trouble")

    # By commands, too, without the daemon's doing.
    assert scratch.run("rollback", "shop").returncode == 0
    metrics = wait_number(file, 1, kind="rollback")
    assert metrics.get("swapd_stage_duration_seconds_count", site="shop", stage="refresh") <= 1
    wait_for(
        file,
        lambda metrics: metrics.has("swapd_release_info", site="shop", release=release_of(one), strategy="symlink"),
        "the one before to be live",
    )
    assert [name for name in os.listdir(file.parent) if name.endswith(".prom")] == [file.name]


def test_counters_survive_restarts_and_crashes(scratch: Scratch, file: Path, large: Path, tmp_path: Path) -> None:
    incoming = scratch.add_site()
    daemon = scratch.start_daemon()
    drop(make(tmp_path, "one"), incoming)
    wait_number(file, 1)
    daemon.stop()
    stopped = read(file)
    assert stopped.get("swapd_up") == 0
    assert number_of(stopped, "live") == 1

    # While nobody watched, and amid a deployment that its worker does not survive.
    scratch.deploy(make(tmp_path, "two"))
    daemon = scratch.start_daemon()
    metrics = wait_number(file, 2)
    assert metrics.get("swapd_up") == 1
    assert metrics.get("swapd_start_time_seconds") > stopped.get("swapd_start_time_seconds")
    drop(large, incoming)
    worker = scratch.hold_worker(daemon)
    wait_for(file, lambda metrics: metrics.get("swapd_deployment_under_way", site="shop") == 1, "it to be under way")
    daemon.kill()
    os.kill(worker, signal.SIGKILL)
    assert read(file).get("swapd_up") == 1, "it could not say so: its heartbeat tells"
    seen = read(file).counters
    scratch.start_daemon()
    scratch.wait_live(release_of(large))
    metrics = wait_number(file, 3)
    assert number_of(metrics, "failed") == 1
    assert {key: value for key, value in seen.items() if value > metrics.counters[key]} == {}


def test_what_waits_and_what_is_lost(scratch: Scratch, file: Path, tmp_path: Path) -> None:
    incoming = scratch.add_site(verify={"require": "digest", "settle": "100ms"})
    scratch.start_daemon()
    dropped = time.time()
    drop(make(tmp_path, "one"), incoming)
    metrics = wait_for(file, lambda metrics: metrics.get("swapd_uploads_waiting", site="shop") == 1, "it to wait")
    assert abs(metrics.get("swapd_oldest_upload_timestamp_seconds", site="shop") - dropped) < 60
    (incoming / "one.tar.gz").unlink()
    metrics = wait_for(file, lambda metrics: metrics.get("swapd_uploads_waiting", site="shop") == 0, "it to be gone")
    assert not metrics.has("swapd_oldest_upload_timestamp_seconds", site="shop")
    incoming.rename(incoming.with_name("elsewhere"))
    wait_for(file, lambda metrics: metrics.get("swapd_drop_directory_lost", site="shop") == 1, "it to be missed")
    incoming.with_name("elsewhere").rename(incoming)
    wait_for(file, lambda metrics: metrics.get("swapd_drop_directory_lost", site="shop") == 0, "it to be back")


def test_a_reload_changes_where_they_are_written(scratch: Scratch, file: Path) -> None:
    scratch.add_site()
    daemon = scratch.start_daemon()
    wait_for(file, lambda metrics: metrics.get("swapd_up") == 1, "the metrics")
    good = scratch.layout.defaults_file.read_text()
    scratch.layout.defaults_file.write_text(good.replace("swapd.prom", "swapd.txt"))
    daemon.reload()
    wait_for(file, lambda metrics: metrics.get("swapd_configuration_valid") == 0, "the bad configuration")
    daemon.wait_status("bad configuration")
    scratch.layout.defaults_file.write_text(good.replace("swapd.prom", "other.prom"))
    daemon.reload()
    other = file.with_name("other.prom")
    wait_for(other, lambda metrics: metrics.get("swapd_configuration_valid") == 1, "the good one")
    assert not file.exists(), "nobody would write it any more, and it would be read for ever"
    scratch.layout.defaults_file.write_text("")
    daemon.reload()
    assert list(file.parent.iterdir()) == []


def test_a_file_that_cannot_be_written_costs_no_deployment(scratch: Scratch, file: Path, tmp_path: Path) -> None:
    file.parent.rmdir()
    incoming = scratch.add_site()
    # Each change of state is written at once, so that one after the other cannot be.
    daemon = start(scratch, "metrics.REST = 0.0")
    daemon.wait_status("no metrics", str(file))
    for name in ("one", "two"):
        drop(make(tmp_path, name), incoming)
        scratch.wait_live(release_of(tmp_path / f"{name}.tar.gz"))
    daemon.wait_status("two@", "no metrics")
    assert daemon.log().count("no metrics") == 1, "it is said once"
    file.parent.mkdir()
    drop(make(tmp_path, "three"), incoming)
    wait_number(file, 3)
    wait_until(lambda: "no metrics" not in daemon.status_lines()[-1], "the trouble to be over")


def test_a_fault_of_ours_ends_the_metrics_and_nothing_else(scratch: Scratch, file: Path, tmp_path: Path) -> None:
    incoming = scratch.add_site()
    daemon = start(scratch, "del metrics.format_metrics")
    daemon.wait_status("no metrics: an unexpected error")
    drop(make(tmp_path, "one"), incoming)
    scratch.wait_live(release_of(tmp_path / "one.tar.gz"))
    assert "no metrics: an unexpected error" in daemon.wait_status("one@"), "as long as it is so"
    assert not file.exists()
    daemon.kill()
    scratch.daemons.remove(daemon)  # which is right to complain
    assert daemon.log().count("Traceback") == 1


def test_without_the_key_nothing_is_written(scratch: Scratch, tmp_path: Path) -> None:
    incoming = scratch.add_site()
    daemon = scratch.start_daemon()
    drop(make(tmp_path, "one"), incoming)
    scratch.wait_live(release_of(tmp_path / "one.tar.gz"))
    daemon.stop()
    assert not scratch.layout.totals("shop").exists()
    assert not list(scratch.root.rglob("*.prom"))

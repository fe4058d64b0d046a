"""Deployments to a site whose httpd runs: a real prefork process tree."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from swapd.host import records
from tests.support.httpd import Httpd, state_of
from tests.support.sites import Scratch, environment, leftovers
from tests.support.tarballs import drop, release_of, site_content, touch, write_tarball
from tests.support.trees import snapshot, texts, write_tree
from tests.support.waiting import wait_until

Plot = Callable[..., Scratch]
OLD = {"index.html": "by hand", "uploads/photo.jpg": "precious"}


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_tarball(tmp_path / "shop-1.tar.gz", site_content("one"))


@pytest.mark.parametrize("strategy", ["auto", "rename", "symlink"])
def test_httpd_is_paused_for_the_swap_and_runs_afterwards(plot: Plot, httpd: Httpd, one: Path, strategy: str) -> None:
    scratch = plot(httpd=httpd.name, strategy=strategy)
    live, daemon = write_tree(scratch.live(), OLD), scratch.daemon
    before = snapshot(live)
    drop(one, scratch.incoming)
    marker = scratch.wait_marker("shop-1.tar.gz.live")
    (record,) = scratch.deployments()
    assert record.pause is not None
    assert record.pause.processes == 4
    assert 0 < record.pause.duration_usec < 1_000_000
    assert marker["pause_usec"] == record.pause.duration_usec
    assert httpd.is_running()
    assert sorted(httpd.pids()) == sorted([httpd.master, *httpd.workers])
    assert texts(live) == site_content("one")
    assert live.is_symlink() == (strategy == "symlink")
    adopted = scratch.releases() / str(record.previous)
    assert adopted.name.startswith("adopted@")
    assert snapshot(adopted) == before, "nothing of what people had there is lost"
    assert leftovers(scratch.releases()) == leftovers(scratch.www) == []
    assert "4 httpd processes were paused for" in daemon.log()
    assert daemon.wait_status("live since", ", paused ")
    (site,) = scratch.json("status", scratch.site)["sites"]
    told = site["live"]["pause"]
    assert (told["processes"], told["duration_usec"]) == (4, record.pause.duration_usec)
    assert not scratch.layout.pause_record.exists()


def test_a_busy_server_that_forks_all_the_time(plot: Plot, httpd: Httpd, tmp_path: Path) -> None:
    httpd.tell("busy 1")
    httpd.tell("churn 4")
    scratch = plot(httpd=httpd.name)
    incoming = scratch.incoming
    for number in (1, 2):
        tarball = write_tarball(tmp_path / f"shop-{number}.tar.gz", site_content(str(number)))
        drop(tarball, incoming)
        scratch.wait_live(release_of(tarball))
        wait_until(httpd.is_running, "all to run")
    assert all(item.pause and item.pause.processes >= 5 for item in scratch.deployments())


@pytest.mark.parametrize("kind", ["absolute link", "relative link", "missing"])
def test_other_kinds_of_live_paths_are_adopted(plot: Plot, httpd: Httpd, one: Path, kind: str) -> None:
    scratch = plot(httpd=httpd.name)
    if kind != "missing":
        elsewhere = write_tree(scratch.www / f"{kind} by hand", OLD)
        scratch.live().symlink_to(elsewhere if kind == "absolute link" else elsewhere.name)
        before = snapshot(elsewhere)
    drop(one, scratch.incoming)
    scratch.wait_marker("shop-1.tar.gz.live")
    (record,) = scratch.deployments()
    assert record.pause is not None
    assert record.pause.processes == 4
    assert scratch.live().is_symlink()
    assert texts(scratch.live()) == site_content("one")
    if kind == "missing":
        assert record.previous is None
    else:
        assert snapshot((scratch.releases() / str(record.previous)).resolve()) == before
        assert snapshot(elsewhere) == before


def make_stuck(httpd: Httpd, fifo: Path) -> int:
    """One of its processes does not stop, until somebody opens the FIFO for writing."""
    os.mkfifo(fifo)
    (stuck,) = httpd.tell(f"stuck {fifo}")
    wait_until(lambda: state_of(stuck) == "D", "a process in vfork")
    return stuck


def test_a_server_that_is_not_to_be_paused_is_not(plot: Plot, httpd: Httpd, tmp_path: Path, one: Path) -> None:
    scratch = plot(httpd=httpd.name, pause={"mode": "never"})
    make_stuck(httpd, tmp_path / "fifo")
    drop(one, scratch.incoming)
    scratch.wait_marker("shop-1.tar.gz.live")
    assert [item.pause for item in scratch.deployments()] == [None]


def test_a_server_that_cannot_be_paused_keeps_its_release(plot: Plot, httpd: Httpd, tmp_path: Path, one: Path) -> None:
    scratch = plot(httpd=httpd.name, pause={"max": "100ms"})
    live = write_tree(scratch.live(), OLD)
    before = snapshot(live)
    stuck = make_stuck(httpd, tmp_path / "fifo")
    upload = drop(one, scratch.incoming)
    marker = scratch.wait_marker("shop-1.tar.gz.failed")
    assert marker["problem"] == "pause-timed-out"
    wait_until(httpd.is_running, "all to run")
    assert snapshot(live) == before
    assert upload.read_bytes() == one.read_bytes()
    assert leftovers(scratch.releases()) == []
    assert scratch.daemon.wait_status("shop-1.tar.gz failed")
    # The server is well again, and the administrator touches the tarball.
    (tmp_path / "fifo").open("w").close()
    wait_until(lambda: state_of(stuck) in "ZX", "its end")
    touch(upload)
    scratch.wait_marker("shop-1.tar.gz.live")
    assert scratch.deployments()[0].pause.processes == 5


def test_two_sites_on_one_server_are_paused_one_after_the_other(plot: Plot, httpd: Httpd, one: Path) -> None:
    sites = [plot(httpd=httpd.name) for _ in range(3)]
    for site in sites:
        drop(one, site.incoming)
    for site in sites:
        site.wait_marker("shop-1.tar.gz.live")
        assert [item.pause.processes for item in site.deployments() if item.pause] == [4]
    assert httpd.is_running()


class TestLeftover:
    """What a pauser left stopped that was killed with its guardian."""

    @pytest.fixture
    def leftover(self, scratch: Scratch, httpd: Httpd) -> Httpd:
        with subprocess.Popen(
            [sys.executable, "-m", "tests.support.pauser", str(scratch.root), httpd.name, "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        ) as pauser:
            assert pauser.stdout is not None
            pauser.stdout.readline()
            pauser.send_signal(signal.SIGSTOP)
            children = Path(f"/proc/{pauser.pid}/task/{pauser.pid}/children").read_text().split()
            for guardian in map(int, children):
                os.kill(guardian, signal.SIGKILL)
                wait_until(lambda guardian=guardian: state_of(guardian) in "ZX", "its end")  # type: ignore[misc]
            pauser.kill()
        assert httpd.is_at_rest()
        return httpd

    def test_the_command_resumes_it(self, scratch: Scratch, leftover: Httpd) -> None:
        done = scratch.run("resume")
        assert (done.returncode, done.stdout) == (0, "resumed 4 processes\n"), done
        wait_until(leftover.is_running, "all to run")
        again = scratch.run("resume")
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")

    def test_the_daemon_resumes_it_at_its_start(self, scratch: Scratch, leftover: Httpd) -> None:
        scratch.add_site(httpd=leftover.name)
        daemon = scratch.start_daemon()
        wait_until(leftover.is_running, "all to run")
        assert "resumed 4 httpd processes" in daemon.log()

    def test_a_record_that_nobody_understands_keeps_no_daemon_from_starting(self, scratch: Scratch, one: Path) -> None:
        records.make_state_directories(scratch.layout, "shop")  # type: ignore[arg-type]
        scratch.layout.pause_record.write_text("half a rec")
        incoming = scratch.add_site()
        daemon = scratch.start_daemon()
        assert str(scratch.layout.pause_record) in daemon.log()
        done = scratch.run("resume")
        assert done.returncode == 1
        assert str(scratch.layout.pause_record) in done.stderr
        # It is not guessed at: nothing is stopped on top of what may be stopped already.
        drop(one, incoming)
        marker = scratch.wait_marker("shop-1.tar.gz.failed")
        assert marker["problem"] == "bad-record"
        scratch.layout.pause_record.unlink()
        touch(incoming / one.name)
        scratch.wait_marker("shop-1.tar.gz.live")

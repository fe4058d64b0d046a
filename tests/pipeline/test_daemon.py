"""The daemon's life: what systemd is told, reloads, stops, and what it finds when it comes back."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from swapd.model.release import Outcome
from tests.support.daemon import WATCHDOG_SECONDS
from tests.support.sites import Scratch, leftovers
from tests.support.tarballs import drop, release_of, site_content, write_tarball
from tests.support.trees import texts, write_tree
from tests.support.waiting import wait_until


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_tarball(tmp_path / "shop-1.tar.gz", site_content("one"))


class TestSystemd:
    def test_what_it_is_told(self, scratch: Scratch) -> None:
        scratch.add_site()
        daemon = scratch.start_daemon()
        states = daemon.notify.states
        wait_until(lambda: states.count("WATCHDOG=1") > 3, "pings", 10 * WATCHDOG_SECONDS)
        assert daemon.status_lines() == ["shop: no release yet"], "said once, as it does not change"
        daemon.reload()
        reloading = next(state for state in states if state.startswith("RELOADING=1"))
        assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", reloading)
        assert states.index(reloading) < len(states) - 1 - states[::-1].index("READY=1")
        assert daemon.stop() == 0
        assert "STOPPING=1" in states

    def test_a_bad_configuration_at_the_start(self, scratch: Scratch) -> None:
        path = scratch.configure(keep=1)
        done = scratch.run("run")
        assert done.returncode == 78
        assert f"{path}:" in done.stderr
        assert "Traceback" not in done.stderr

    def test_no_site_yet(self, scratch: Scratch, one: Path) -> None:
        daemon = scratch.start_daemon()
        assert daemon.wait_status("no site configured")
        incoming = scratch.add_site()
        daemon.reload()
        drop(one, incoming)
        scratch.wait_marker("shop-1.tar.gz.live")

    def test_an_idle_daemon_has_no_worker(self, scratch: Scratch, one: Path) -> None:
        incoming = scratch.add_site()
        daemon = scratch.start_daemon()
        assert daemon.workers() == []
        drop(one, incoming)
        scratch.wait_marker("shop-1.tar.gz.live")
        wait_until(lambda: not daemon.workers(), "the worker's end")

    def test_a_terminals_interrupt_ends_it_in_order(self, scratch: Scratch) -> None:
        scratch.add_site()
        daemon = scratch.start_daemon()
        daemon.process.send_signal(signal.SIGINT)
        assert daemon.process.wait(30) == 0


class TestReload:
    def test_a_bad_configuration_leaves_the_good_one_in_force(self, scratch: Scratch, one: Path) -> None:
        incoming = scratch.add_site()
        daemon = scratch.start_daemon()
        path = scratch.layout.site_file("shop")
        good = path.read_text()
        path.write_text(f"keep = 1\n{good}")
        scratch.layout.site_file("blog").write_text("live = 3")
        daemon.reload()
        line = daemon.wait_status("bad configuration")
        assert f"{scratch.layout.site_file('blog')}:1, and 1 more" in line
        assert "shop: no release yet" in line
        assert f"{path}:1: keep" in daemon.log()
        drop(one, incoming)
        scratch.wait_marker("shop-1.tar.gz.live")
        path.write_text(good)
        scratch.layout.site_file("blog").unlink()
        daemon.reload()
        wait_until(lambda: "bad configuration" not in daemon.status_lines()[-1], "the trouble to be over")

    def test_sites_come_and_go(self, scratch: Scratch, one: Path) -> None:
        shop = scratch.add_site()
        daemon = scratch.start_daemon()
        blog = scratch.add_site("blog")
        daemon.reload()
        drop(one, blog)
        scratch.wait_marker("shop-1.tar.gz.live", "blog")
        scratch.layout.site_file("shop").unlink()
        daemon.reload()
        drop(one, shop)
        drop(one, blog, "blog-2.tar.gz")
        scratch.wait_marker("blog-2.tar.gz.live", "blog")
        assert scratch.markers("shop") == {}
        assert "shop" not in daemon.wait_status("blog: blog-2")

    def test_a_change_during_a_deployment_holds_for_the_next_one(
        self, scratch: Scratch, large: Path, one: Path
    ) -> None:
        incoming = scratch.add_site()
        daemon = scratch.start_daemon()
        drop(large, incoming)
        worker = scratch.hold_worker(daemon)
        drop(one, incoming)
        daemon.wait_status("extract", "1 waiting")
        scratch.configure(must_contain=["missing.php"])
        daemon.reload()
        os.kill(worker, signal.SIGCONT)
        scratch.wait_marker("large.tar.live")
        marker = scratch.wait_marker("shop-1.tar.gz.rejected")
        assert marker["problem"] == "missing-content"
        assert daemon.is_alive()

    def test_a_site_that_goes_during_a_deployment(self, scratch: Scratch, large: Path, one: Path) -> None:
        incoming, blog = scratch.add_site(), scratch.add_site("blog")
        daemon = scratch.start_daemon()
        drop(large, incoming)
        worker = scratch.hold_worker(daemon)
        scratch.layout.site_file("shop").rename(scratch.root / "aside")
        daemon.reload()
        os.kill(worker, signal.SIGCONT)
        drop(one, blog)
        scratch.wait_marker("shop-1.tar.gz.live", "blog")
        scratch.wait_marker("large.tar.live")
        (scratch.root / "aside").rename(scratch.layout.site_file("shop"))
        daemon.reload()
        drop(one, incoming)
        scratch.wait_marker("shop-1.tar.gz.live")


class TestStop:
    def test_a_stop_in_the_middle_of_a_deployment(self, scratch: Scratch, large: Path) -> None:
        write_tree(scratch.live(), {"index.html": "by hand"})
        incoming = scratch.add_site()
        daemon = scratch.start_daemon()
        upload = drop(large, incoming)
        worker = scratch.hold_worker(daemon)
        (under_way,) = scratch.pending()
        assert scratch.json("status")["sites"][0]["under_way"]["id"] == under_way.id
        daemon.process.terminate()
        wait_until(lambda: "interrupting the deployment of shop" in daemon.log(), "the stop to begin")
        os.kill(worker, signal.SIGCONT)
        assert daemon.process.wait(30) == 0

        (record,) = scratch.deployments()
        assert (record.id, record.outcome, record.problem) == (under_way.id, Outcome.FAILED, "interrupted")
        assert set(scratch.markers()) == {"large.tar.pending"}
        assert "taken up again" in scratch.markers()["large.tar.pending"]["hint"]
        assert upload.read_bytes() == large.read_bytes()
        assert texts(scratch.live()) == {"index.html": "by hand"}
        assert leftovers(scratch.releases()) == []
        daemon.stop()

        scratch.start_daemon()
        scratch.wait_live(release_of(large))
        assert [item.outcome for item in scratch.deployments()] == [Outcome.LIVE, Outcome.FAILED]
        wait_until(lambda: os.listdir(incoming) == ["large.tar.live"], "one marker, and nothing else")

    def test_a_stop_while_others_wait_in_line(self, scratch: Scratch, large: Path, one: Path) -> None:
        incoming = scratch.add_site()
        daemon = scratch.start_daemon()
        drop(large, incoming)
        worker = scratch.hold_worker(daemon)
        drop(one, incoming)
        marker = scratch.wait_marker("shop-1.tar.gz.pending")
        assert marker["reason"]
        daemon.process.terminate()
        os.kill(worker, signal.SIGCONT)
        assert daemon.process.wait(30) == 0
        assert set(scratch.markers()) == {"large.tar.pending", "shop-1.tar.gz.pending"}
        daemon.stop()
        scratch.start_daemon()
        scratch.wait_marker("large.tar.live")
        scratch.wait_marker("shop-1.tar.gz.live")


class TestCrash:
    """The crash ring kills at every step; this is what the other sites see of it."""

    def test_a_worker_that_is_killed_has_a_successor(self, scratch: Scratch, large: Path, one: Path) -> None:
        incoming, blog = scratch.add_site(), scratch.add_site("blog")
        daemon = scratch.start_daemon()
        drop(large, incoming)
        worker = scratch.hold_worker(daemon)
        drop(one, blog)
        scratch.wait_marker("shop-1.tar.gz.live", "blog")
        os.kill(worker, signal.SIGKILL)
        scratch.wait_live(release_of(large))
        again, crashed = scratch.deployments()
        assert (crashed.outcome, crashed.problem, crashed.attempt) == (Outcome.FAILED, "crashed", 1)
        assert (again.outcome, again.attempt) == (Outcome.LIVE, 2)
        wait_until(lambda: leftovers(scratch.releases()) == [], "what was left to be removed")
        assert "signal 9" in daemon.log()


class TestDropDirectory:
    def test_one_that_is_removed_and_made_again(self, scratch: Scratch, one: Path) -> None:
        incoming, blog = scratch.add_site(), scratch.add_site("blog")
        daemon = scratch.start_daemon()
        shutil.rmtree(incoming)
        line = daemon.wait_status("shop: its drop directory is lost")
        assert str(incoming) in line
        assert "swapd init shop" in daemon.log()
        drop(one, blog)
        scratch.wait_marker("shop-1.tar.gz.live", "blog")
        incoming.mkdir()
        wait_until(lambda: "is lost" not in daemon.status_lines()[-1], "it to be watched again")
        drop(one, incoming)
        scratch.wait_marker("shop-1.tar.gz.live")

    def test_one_that_is_replaced(self, scratch: Scratch, tmp_path: Path, one: Path) -> None:
        incoming = scratch.add_site()
        daemon = scratch.start_daemon()
        replacement = tmp_path / "replacement"
        replacement.mkdir()
        incoming.rename(tmp_path / "away")
        replacement.rename(incoming)
        wait_until(lambda: "set up anew" in daemon.log(), "the watch to be set up anew")
        drop(one, incoming)
        scratch.wait_marker("shop-1.tar.gz.live")

    def test_one_that_is_missing_at_the_start(self, scratch: Scratch, one: Path) -> None:
        incoming = scratch.add_site()
        incoming.rmdir()
        daemon = scratch.start_daemon()
        daemon.wait_status("is lost")
        incoming.mkdir()
        wait_until(lambda: "is lost" not in daemon.status_lines()[-1], "it to be watched")
        drop(one, incoming)
        scratch.wait_marker("shop-1.tar.gz.live")

"""Several complete uploads that wait, and which of them are deployed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from swapd.model.release import Outcome
from tests.support.sites import Scratch
from tests.support.tarballs import drop, release_of, site_content, touch, write_tarball
from tests.support.trees import texts
from tests.support.waiting import wait_until


def make(directory: Path, name: str) -> Path:
    return write_tarball(directory / f"{name}.tar.gz", site_content(name))


def drop_behind(scratch: Scratch, large: Path, tarballs: list[Path]) -> None:
    """All of them, while another one is deployed, which then goes on."""
    daemon = scratch.daemon
    drop(large, scratch.incoming)
    worker = scratch.hold_worker(daemon)
    for tarball in tarballs:
        drop(tarball, scratch.incoming)
        # Each for itself: the time of their last change is what orders them.
        wait_until(lambda t=tarball: scratch.markers().get(f"{t.name}.pending"), "it to be seen")  # type: ignore[misc]
    daemon.wait_status(f"{len(tarballs)} waiting")
    wait_until(
        lambda: all("turn" in scratch.markers().get(f"{t.name}.pending", {}).get("reason", "") for t in tarballs),
        "all to wait for their turn",
    )
    os.kill(worker, signal.SIGCONT)


def outcomes(scratch: Scratch) -> list[tuple[str, Outcome]]:
    return [(item.file_name, item.outcome) for item in reversed(scratch.deployments())]


def test_all_of_them_by_default(scratch: Scratch, large: Path, tmp_path: Path) -> None:
    scratch.add_site()
    scratch.start_daemon()
    tarballs = [make(tmp_path, name) for name in ("a", "b")]
    drop_behind(scratch, large, tarballs)
    scratch.wait_live(release_of(tarballs[1]))
    assert outcomes(scratch) == [(name, Outcome.LIVE) for name in ("large.tar", "a.tar.gz", "b.tar.gz")]


class TestLatest:
    def test_only_the_one_that_came_last(self, scratch: Scratch, large: Path, tmp_path: Path) -> None:
        incoming = scratch.add_site(queue="latest")
        daemon = scratch.start_daemon()
        tarballs = [make(tmp_path, name) for name in ("a", "b", "c")]
        drop_behind(scratch, large, tarballs)
        scratch.wait_live(release_of(tarballs[2]))
        marker = scratch.wait_marker("a.tar.gz.unchanged")
        assert marker["problem"] == "superseded"
        assert release_of(tarballs[2]) in marker["reason"]
        scratch.wait_marker("b.tar.gz.unchanged")
        wait_until(lambda: not scratch.pending(), "all to be told")
        assert outcomes(scratch)[:2] == [("large.tar", Outcome.LIVE), ("c.tar.gz", Outcome.LIVE)]
        assert set(outcomes(scratch)[2:]) == {(f"{n}.tar.gz", Outcome.UNCHANGED) for n in "ab"}
        assert (incoming / "a.tar.gz").read_bytes() == tarballs[0].read_bytes(), "nobody's upload is lost"
        assert "superseded by c@" in daemon.log()

        # A restart does not take it for new; a touch does; and a marker goes with its upload.
        daemon.stop()
        scratch.start_daemon()
        (incoming / "b.tar.gz").unlink()
        wait_until(lambda: "b.tar.gz.unchanged" not in scratch.markers(), "the marker to go")
        assert len(scratch.deployments()) == 4
        touch(incoming / "a.tar.gz")
        scratch.wait_live(release_of(tarballs[0]))

    def test_a_bad_one_costs_the_good_one_before_it_nothing(
        self, scratch: Scratch, large: Path, tmp_path: Path
    ) -> None:
        scratch.add_site(queue="latest", must_contain=["index.html"])
        scratch.start_daemon()
        good = make(tmp_path, "good")
        bad = write_tarball(tmp_path / "bad.tar.gz", {"other": "x"})
        drop_behind(scratch, large, [make(tmp_path, "old"), good, bad])
        scratch.wait_live(release_of(good))
        assert scratch.wait_marker("bad.tar.gz.rejected")["problem"] == "missing-content"
        scratch.wait_marker("old.tar.gz.unchanged")
        assert texts(scratch.live()) == site_content("good")

    def test_a_crash_after_the_swap_does_not_bring_an_old_one_back(
        self, scratch: Scratch, large: Path, tmp_path: Path
    ) -> None:
        scratch.add_site(queue="latest")
        daemon = scratch.start_daemon()
        old, new = make(tmp_path, "old"), make(tmp_path, "new")
        drop(large, scratch.incoming)
        scratch.hold_worker(daemon)
        drop(old, scratch.incoming)
        scratch.wait_marker("old.tar.gz.pending")
        drop(new, scratch.incoming)
        scratch.wait_marker("new.tar.gz.pending")
        for worker in daemon.workers():
            os.kill(worker, signal.SIGKILL)
        daemon.kill()
        # What a daemon leaves that ends after the newest went live and before the other was told.
        (scratch.incoming / "large.tar").unlink()
        assert scratch.run("deploy", "shop", scratch.incoming / "new.tar.gz").returncode == 0
        scratch.start_daemon()
        assert scratch.wait_marker("old.tar.gz.unchanged")["problem"] == "superseded"
        assert texts(scratch.live()) == site_content("new")

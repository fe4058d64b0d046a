"""Disks that fail: under a drop directory, under swapd's own state. The live sites, and the other sites, go on.

Each fault ends by itself once the disk is mended; the daemon here looks for that each second instead of each 30.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.mounts import Faults, failing
from tests.support.sites import Scratch
from tests.support.tarballs import drop, release_of, site_content, touch, write_tarball
from tests.support.trees import snapshot, texts, write_tree
from tests.support.waiting import wait_until

pytestmark = pytest.mark.root  # mounts
OLD = {"index.html": "by hand"}


class Host:
    """Two sites, of which shop has a disk that fails, and the daemon."""

    def __init__(self, scratch: Scratch, faults: Faults, tarballs: Path) -> None:
        self.scratch = scratch
        self.faults = faults
        self.incoming = scratch.add_site()
        scratch.add_site("blog")
        write_tree(scratch.live(), OLD)
        self._before = snapshot(scratch.live())
        self._tarballs = tarballs
        self._count = 0
        self.one = self.tarball("shop-1")
        self.daemon = scratch.start_hasty_daemon()

    def tarball(self, name: str) -> Path:
        return write_tarball(self._tarballs / f"{name}.tar.gz", site_content(name))

    def assert_blog_goes_on(self) -> None:
        """The daemon, and the other site's uploads."""
        self._count += 1
        tarball = self.tarball(f"blog-{self._count}")
        drop(tarball, self.scratch.layout.spool / "blog")
        self.scratch.wait_marker(f"{tarball.name}.live", "blog")

    def assert_untouched(self) -> None:
        """The live site, the upload of the first release, and the other site."""
        assert snapshot(self.scratch.live()) == self._before
        assert (self.incoming / self.one.name).read_bytes() == self.one.read_bytes()
        self.assert_blog_goes_on()

    def assert_told(self, marker: dict[str, Any], *texts: str) -> None:
        """Marker, status and journal give the same reason, with all of ``texts`` in it."""
        assert all(text in marker["reason"] for text in texts), marker
        assert marker["hint"]
        # The status is cut.
        assert self.daemon.wait_status(f"failed: {marker['reason'][:40]}")
        assert f"failed: {marker['reason']}. {marker['hint']}" in self.daemon.log()

    def wait_live(self, *, is_first: bool = False) -> None:
        """Until the first release is live, by the deployment after the one that failed, or by the first one."""
        self.scratch.wait_marker(f"{self.one.name}.live")
        wait_until(lambda: not (self.incoming / self.one.name).exists(), "the upload to be removed")
        assert texts(self.scratch.live()) == site_content("shop-1")
        wait_until(lambda: all(item.is_closed for item in self.scratch.deployments()), "all of it to be written down")
        log, release = self.daemon.log(), release_of(self.one)
        deployments = [item for item in self.scratch.deployments() if item.release == release]
        assert [item.outcome.value for item in deployments] == (["live"] if is_first else ["live", "failed"])
        assert log.count(f"deploying {release}") == len(deployments)
        assert log.count(f"{release} failed") == len(deployments) - 1
        assert log.count(f"{release} is live;") == 1


@pytest.fixture
def spool(scratch: Scratch, tmp_path: Path) -> Iterator[Host]:
    """With a drop directory that fails."""
    with failing(scratch.layout.spool / "shop") as faults:
        host = Host(scratch, faults, tmp_path)
        yield host
        assert scratch.daemon.stop() == 0


@pytest.fixture
def state(scratch: Scratch, tmp_path: Path) -> Iterator[Host]:
    """With a directory for the site's state that fails."""
    with failing(scratch.layout.site_state("shop")) as faults:
        host = Host(scratch, faults, tmp_path)
        yield host
        assert scratch.daemon.stop() == 0


class TestDropDirectory:
    def test_it_cannot_be_listed(self, spool: Host) -> None:
        spool.faults.set(("readdir", errno.EIO, "*"))
        drop(spool.one, spool.incoming)
        line = spool.daemon.wait_status("is lost: Input/output error")
        assert str(spool.incoming) in line
        assert f"the drop directory {spool.incoming} cannot be watched: Input/output error" in spool.daemon.log()
        spool.assert_untouched()
        spool.faults.mend()
        spool.wait_live(is_first=True)
        assert "is lost" not in spool.daemon.wait_status(release_of(spool.one))

    @pytest.mark.parametrize("call", ["getattr", "read"])
    def test_an_upload_cannot_be_read(self, spool: Host, call: str) -> None:
        spool.faults.set((call, errno.EIO, f"/{spool.one.name}"))
        drop(spool.one, spool.incoming.with_name("shop.source"))  # which is beneath it, and works
        marker = spool.scratch.wait_marker(f"{spool.one.name}.failed")
        assert marker["problem"] == "cannot-claim"
        spool.assert_told(marker, spool.one.name, "Input/output error")
        two = spool.tarball("shop-2")
        drop(two, spool.incoming)
        spool.scratch.wait_marker(f"{two.name}.live")
        spool.faults.mend()
        if call == "read":  # which nothing tells of
            touch(spool.incoming / spool.one.name)
        spool.scratch.wait_marker(f"{spool.one.name}.live")
        assert texts(spool.scratch.live()) == site_content("shop-1")

    @pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
    def test_no_marker_can_be_written(self, spool: Host, error: int) -> None:
        """Outcomes are what they are, and are told as soon as that is possible."""
        spool.faults.set(("create", error, "*swapd*"))
        drop(spool.one, spool.incoming)
        spool.daemon.wait_status(release_of(spool.one))
        bad = spool.incoming / "bad.tar.gz"
        bad.write_bytes(b"no tarball")
        spool.daemon.wait_status("bad.tar.gz rejected")
        complaint = f"the marker: {bad}.rejected: {os.strerror(error)}"
        wait_until(lambda: complaint in spool.daemon.log(), "the complaint")
        spool.assert_blog_goes_on()
        assert spool.scratch.markers() == {}
        spool.faults.mend()
        spool.scratch.wait_marker(f"{bad.name}.rejected")
        spool.scratch.wait_marker(f"{spool.one.name}.live")
        assert sorted(spool.scratch.markers()) == [f"{bad.name}.rejected", f"{spool.one.name}.live"]
        assert spool.daemon.log().count("bad.tar.gz is not the gzip") == 1
        bad.unlink()
        wait_until(lambda: f"{bad.name}.rejected" not in spool.scratch.markers(), "the marker to go with its tarball")

    @pytest.mark.parametrize("call", ["rename", "unlink"])
    def test_what_is_live_cannot_be_removed(self, spool: Host, call: str) -> None:
        spool.faults.set((call, errno.EIO, "*aside*"))
        drop(spool.one, spool.incoming)
        spool.scratch.wait_marker(f"{spool.one.name}.live")
        wait_until(lambda: "the removal of the upload" in spool.daemon.log(), "the complaint")
        spool.assert_blog_goes_on()
        spool.faults.mend()
        spool.wait_live(is_first=True)


class TestState:
    @pytest.mark.parametrize(
        ("call", "error"), [("create", errno.EIO), ("fsync", errno.ENOSPC), ("rename", errno.EROFS)]
    )
    def test_a_deployment_cannot_be_recorded(self, state: Host, call: str, error: int) -> None:
        state.faults.set((call, error, "/deployments/*"))
        drop(state.one, state.incoming)
        marker = state.scratch.wait_marker(f"{state.one.name}.failed")
        assert marker["problem"] == "cannot-record"
        state.assert_told(marker, str(state.scratch.layout.deployments("shop")), os.strerror(error))
        state.assert_untouched()
        (deployment,) = state.scratch.deployments()
        assert deployment.problem == "cannot-record", "it is known where records are read"
        state.faults.mend()
        state.wait_live()

    def test_the_disk_fails_before_the_swap(self, state: Host, large: Path) -> None:
        """It has begun, and is told to have failed: once, although that cannot be written down."""
        state.one = large
        drop(large, state.incoming)
        worker = state.scratch.hold_worker(state.daemon)
        state.faults.set(*((call, errno.EIO, "*") for call in ("create", "write", "mkdir")))
        os.kill(worker, signal.SIGCONT)
        marker = state.scratch.wait_marker(f"{large.name}.failed")
        assert marker["problem"] == "cannot-record"
        state.assert_told(marker, "Input/output error")
        state.assert_untouched()
        assert os.listdir(state.scratch.releases()) == []
        assert state.daemon.stop() == 0
        state.faults.mend()
        state.daemon = state.scratch.start_hasty_daemon()
        state.scratch.wait_marker(f"{large.name}.live")
        assert f"{release_of(large)} failed" not in state.daemon.log()
        assert [item.outcome.value for item in state.scratch.deployments()] == ["live", "failed"]

    def test_what_is_live_cannot_be_written_down(self, state: Host) -> None:
        first = state.tarball("first")
        drop(first, state.incoming)
        state.scratch.wait_marker(f"{first.name}.live")
        state.faults.set(("create", errno.EIO, "/.site.toml*"))
        drop(state.one, state.incoming)
        wait_until(lambda: "is live, and that cannot be written down yet" in state.daemon.log(), "the complaint")
        assert texts(state.scratch.live()) == site_content("shop-1")
        state.scratch.wait_marker(f"{state.one.name}.pending")
        state.assert_blog_goes_on()
        state.faults.mend()
        state.wait_live(is_first=True)

    def test_the_disk_fails_at_the_swap(self, state: Host, large: Path) -> None:
        """What was recorded cannot even be read then, and yet the release is live, and stays so."""
        first = state.tarball("first")
        drop(first, state.incoming)
        state.scratch.wait_marker(f"{first.name}.live")
        drop(large, state.incoming)
        worker = state.scratch.hold_worker(state.daemon)
        state.faults.set(("open", errno.EIO, "/site.toml"))
        os.kill(worker, signal.SIGCONT)
        wait_until(lambda: "is live, and that cannot be written down yet" in state.daemon.log(), "the complaint")
        assert (state.scratch.live() / "index.html").read_text() == "large"
        state.faults.mend()
        state.scratch.wait_marker(f"{large.name}.live")
        assert [item.outcome.value for item in state.scratch.deployments()] == ["live", "live"]
        assert state.daemon.log().count(f"deploying {release_of(large)}") == 1

    @pytest.mark.parametrize("calls", [("readdir",), ("getattr", "open")])
    def test_its_records_cannot_be_read(self, state: Host, calls: tuple[str, ...]) -> None:
        """Nor at a start."""
        first = state.tarball("first")
        drop(first, state.incoming)
        state.scratch.wait_marker(f"{first.name}.live")
        (bad := state.incoming / "bad.tar.gz").write_bytes(b"no tarball")
        state.scratch.wait_marker(f"{bad.name}.rejected")
        state.faults.set(*((call, errno.EIO, "*") for call in calls))
        drop(state.one, state.incoming)
        pending = f"{state.one.name}.pending"
        wait_until(lambda: "Input" in state.scratch.markers().get(pending, {}).get("reason", ""), "the reason")
        state.assert_blog_goes_on()
        assert state.daemon.stop() == 0
        state.daemon = state.scratch.start_hasty_daemon()
        state.daemon.wait_status("Input/output error")
        shown = state.scratch.run("status")
        assert "blog" in shown.stdout
        assert "Input/output error" in shown.stdout
        assert "Traceback" not in shown.stderr
        state.assert_blog_goes_on()
        assert texts(state.scratch.live()) == site_content("first")
        state.faults.mend()
        state.scratch.wait_marker(f"{state.one.name}.live")
        state.scratch.wait_marker(f"{bad.name}.rejected")
        wait_until(lambda: "Input" not in state.daemon.status_lines()[-1], "the trouble to be over")

"""Disks that fail: under a drop directory, under swapd's own state. The live sites, and the other sites, go on."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.mounts import Faults, failing
from tests.support.sites import Scratch
from tests.support.tarballs import drop, release_of, site_content, touch, write_sidecar, write_tarball
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
        self.before = snapshot(scratch.live())
        self._tarballs = tarballs
        self._count = 0
        self.one = self.tarball("shop-1")
        self.daemon = scratch.start_daemon()

    def tarball(self, name: str) -> Path:
        return write_tarball(self._tarballs / f"{name}.tar.gz", site_content(name))

    def assert_others_go_on(self) -> None:
        """The live site is as it was, and the other site's uploads go live."""
        self._count += 1
        tarball = self.tarball(f"blog-{self._count}")
        drop(tarball, self.scratch.layout.spool / "blog")
        self.scratch.wait_marker(f"{tarball.name}.live", "blog")
        assert snapshot(self.scratch.live()) == self.before
        assert self.daemon.is_alive()

    def assert_failed(self, marker: dict[str, Any], problem: str) -> None:
        """Marker, status and journal say the same, and the upload is as it was."""
        assert marker["problem"] == problem
        assert self.daemon.wait_status(f"{self.one.name} failed: {marker['reason'][:40]}")
        assert marker["reason"] in self.daemon.log()
        assert (self.incoming / self.one.name).read_bytes() == self.one.read_bytes()

    def wait_live(self) -> None:
        self.scratch.wait_marker(f"{self.one.name}.live")
        wait_until(lambda: not (self.incoming / self.one.name).exists(), "the upload to be removed")
        assert texts(self.scratch.live()) == site_content("shop-1")

    def outcomes(self) -> list[str]:
        """Every outcome that the journal has for the site's deployments."""
        return [line for line in self.daemon.log().splitlines() if " shop: " in line]


@pytest.fixture
def spool(scratch: Scratch, tmp_path: Path) -> Iterator[Host]:
    """With a drop directory that fails."""
    with failing(scratch.layout.spool / "shop") as faults:
        host = Host(scratch, faults, tmp_path)
        yield host
        assert host.daemon.stop() == 0


@pytest.fixture
def state(scratch: Scratch, tmp_path: Path) -> Iterator[Host]:
    """With a directory for the site's state that fails."""
    with failing(scratch.layout.site_state("shop")) as faults:
        host = Host(scratch, faults, tmp_path)
        yield host
        assert host.daemon.stop() == 0


class TestDropDirectory:
    def test_it_cannot_be_listed(self, spool: Host) -> None:
        spool.faults.set(("readdir", errno.EIO, "*"))
        drop(spool.one, spool.incoming)
        line = spool.daemon.wait_status("is lost: Input/output error")
        assert str(spool.incoming) in line
        assert f"the drop directory {spool.incoming} cannot be watched: Input/output error" in spool.daemon.log()
        spool.assert_others_go_on()
        spool.faults.mend()
        touch(spool.incoming / spool.one.name)
        spool.wait_live()
        spool.daemon.wait_status("shop-1@")
        assert "is lost" not in spool.daemon.status_lines()[-1]

    @pytest.mark.parametrize("call", ["getattr", "read"])
    def test_an_upload_cannot_be_read(self, spool: Host, call: str) -> None:
        spool.faults.set((call, errno.EIO, f"/{spool.one.name}"))
        drop(spool.one, spool.incoming)
        marker = spool.scratch.wait_marker(f"{spool.one.name}.failed")
        print(marker, spool.daemon.log())
        spool.assert_others_go_on()
        drop(spool.tarball("shop-2"), spool.incoming)
        spool.scratch.wait_marker("shop-2.tar.gz.live")
        spool.faults.mend()
        spool.assert_failed(marker, "cannot-claim")
        touch(spool.incoming / spool.one.name)
        spool.wait_live()

    @pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
    def test_no_marker_can_be_written(self, spool: Host, error: int) -> None:
        spool.faults.set(("create", error, "*swapd*"))
        drop(spool.one, spool.incoming)
        spool.scratch.wait_live(release_of(spool.one))
        bad = spool.incoming / "bad.tar.gz"
        bad.write_bytes(b"bad")
        spool.daemon.wait_status("bad.tar.gz rejected")
        print(spool.daemon.log())
        assert 0


class TestState:
    @pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EROFS])
    @pytest.mark.parametrize("call", ["create", "write", "fsync", "rename"])
    def test_a_deployment_cannot_be_recorded(self, state: Host, call: str, error: int) -> None:
        state.faults.set((call, error, "/deployments/*"))
        drop(state.one, state.incoming)
        marker = state.scratch.wait_marker(f"{state.one.name}.failed")
        print(marker, state.daemon.log())
        state.assert_failed(marker, "cannot-record")
        state.assert_others_go_on()
        state.faults.mend()
        state.daemon.reload()
        state.wait_live()

    def test_its_records_cannot_be_read(self, state: Host) -> None:
        state.faults.set(("readdir", errno.EIO, "/deployments"), ("getattr", errno.EIO, "/deployments"))
        drop(state.one, state.incoming)
        print(state.scratch.wait_marker(f"{state.one.name}.pending"))
        print(state.daemon.log())
        assert 0

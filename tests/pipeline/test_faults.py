"""Faults of the host: what is full, on another filesystem, or not ours. The live site and the others go on."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.httpd import Httpd
from tests.support.mounts import tmpfs
from tests.support.sites import Scratch, leftovers
from tests.support.tarballs import drop, release_of, site_content, touch, write_tarball
from tests.support.trees import snapshot, texts, write_tree
from tests.support.waiting import wait_until

Plot = Callable[..., Scratch]
OLD = {"index.html": "by hand"}


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_tarball(tmp_path / "shop-1.tar.gz", site_content("one"))


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """3 MB that no compression makes smaller."""
    return write_tarball(
        tmp_path / "big-1.tar.gz", {"index.html": "big", "data.bin": random.Random(1).randbytes(3 << 20)}
    )


def children(pid: int) -> dict[int, str]:
    """The names of a process's children."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):  # it has just ended
            found[int(child)] = Path(f"/proc/{child}/comm").read_text().strip()
    return found


def find_extractor(daemon: Daemon) -> int | None:
    """The process that reads the tarball: a child of the worker."""
    below = [children(worker) for worker in daemon.workers()]
    return next((pid for each in below for pid, name in each.items() if name == "swapd extract"), None)


def test_an_extraction_that_is_killed_has_failed_and_can_be_had_again(scratch: Scratch, large: Path) -> None:
    """As the kernel does when memory runs out."""
    live = write_tree(scratch.live(), OLD)
    before, owner = snapshot(live), (live.stat().st_uid, live.stat().st_gid)
    incoming = scratch.add_site()
    daemon = scratch.start_daemon()
    upload = drop(large, incoming)
    os.kill(wait_until(lambda: find_extractor(daemon), "a tarball is extracted"), signal.SIGKILL)
    marker = scratch.wait_marker(f"{large.name}.failed")
    assert marker["problem"] == "extractor-killed"
    assert "SIGKILL" in marker["reason"]
    assert snapshot(live) == before
    assert os.listdir(f"{live}.releases") == []
    assert find_extractor(daemon) is None
    touch(upload)
    scratch.wait_marker(f"{large.name}.live")
    # Not the uid that an extraction by root may have.
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in (live, *live.rglob("*"))} == {owner}
    daemon.stop()


@pytest.mark.root
class TestFull:
    @pytest.mark.parametrize("options", ["size=2m", "size=64m,nr_inodes=20"], ids=["bytes", "inodes"])
    def test_no_room_for_the_tree(
        self, scratch: Scratch, httpd: Httpd, tmp_path: Path, big: Path, one: Path, options: str
    ) -> None:
        many = write_tarball(tmp_path / "many-1.tar.gz", {f"{number}.html": "x" for number in range(40)})
        too_much = big if "inodes" not in options else many
        with tmpfs(scratch.www / "small", options) as small:
            live = write_tree(small / "shop", OLD)
            before = snapshot(live)
            incoming = scratch.add_site(live=str(live), httpd=httpd.name)
            blog = scratch.add_site("blog")
            daemon = scratch.start_daemon()
            upload = drop(too_much, incoming)
            marker = scratch.wait_marker(f"{too_much.name}.failed")
            assert marker["problem"] == ("no-inodes" if "inodes" in options else "no-space")
            assert "free" in marker["reason"]
            assert snapshot(live) == before
            assert upload.read_bytes() == too_much.read_bytes()
            assert leftovers(small / "shop.releases") == []
            assert os.listdir(small / "shop.releases") == []
            assert daemon.wait_status(f"{too_much.name} failed")
            drop(one, blog)
            scratch.wait_marker("shop-1.tar.gz.live", "blog")
            drop(one, incoming)
            scratch.wait_marker("shop-1.tar.gz.live")
            # Once there is room, the administrator touches the tarball.
            subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=1000", small], check=True)
            touch(upload)
            scratch.wait_marker(f"{too_much.name}.live")
            daemon.stop()

    def test_no_room_for_the_copy(self, scratch: Scratch, big: Path, one: Path) -> None:
        write_tree(scratch.live(), OLD)
        with tmpfs(scratch.layout.state, "size=2m"):
            incoming = scratch.add_site()
            daemon = scratch.start_daemon()
            upload = drop(big, incoming)
            marker = scratch.wait_marker("big-1.tar.gz.failed")
            assert marker["problem"] == "no-space"
            assert marker["reason"].startswith(str(scratch.layout.state))
            assert "the private copy of big-1.tar.gz needs at least 3.0 MiB" in marker["reason"]
            assert texts(scratch.live()) == OLD
            assert upload.exists()
            drop(one, incoming)
            scratch.wait_marker("shop-1.tar.gz.live")
            daemon.stop()

    def test_no_room_for_the_record(self, scratch: Scratch, one: Path) -> None:
        write_tree(scratch.live(), OLD)
        with tmpfs(scratch.layout.state, "size=1m,nr_inodes=9") as state:
            incoming = scratch.add_site()
            (state / "shop/deployments").mkdir(parents=True)
            (state / "shop/claims").mkdir(mode=0o700)
            fillers = 0
            while True:
                try:
                    (state / f"filler{fillers}").touch()
                except OSError:
                    break
                fillers += 1
            daemon = scratch.start_daemon()
            drop(one, incoming)
            marker = scratch.wait_marker("shop-1.tar.gz.failed")
            assert marker["problem"] in ("cannot-record", "no-inodes")
            assert texts(scratch.live()) == OLD
            assert leftovers(scratch.releases()) == [] if scratch.releases().exists() else True
            for number in range(fillers):
                (state / f"filler{number}").unlink()
            touch(incoming / one.name)
            scratch.wait_marker("shop-1.tar.gz.live")
            assert scratch.deployments()[0].release == release_of(one)
            daemon.stop()


@pytest.mark.root
def test_releases_on_another_filesystem(scratch: Scratch, tmp_path: Path, one: Path) -> None:
    live = write_tree(scratch.live(), OLD)
    before = snapshot(live)
    with tmpfs(tmp_path / "other") as other:
        incoming = scratch.add_site(releases=str(other / "releases"))
        daemon = scratch.start_daemon()
        drop(one, incoming)
        marker = scratch.wait_marker("shop-1.tar.gz.failed")
        assert marker["problem"] == "releases-on-another-filesystem"
        assert snapshot(live) == before
        assert os.listdir(other / "releases") == []
        daemon.stop()


@pytest.mark.root
def test_a_mount_below_the_live_path(scratch: Scratch, one: Path) -> None:
    live = write_tree(scratch.live(), OLD)
    with tmpfs(live / "uploads") as uploads:
        (uploads / "photo.jpg").touch()
        incoming = scratch.add_site()
        daemon = scratch.start_daemon()
        upload = drop(one, incoming)
        marker = scratch.wait_marker("shop-1.tar.gz.failed")
        assert marker["problem"] == "live-is-mounted"
        assert (live / "uploads/photo.jpg").exists()
    touch(upload)
    scratch.wait_marker("shop-1.tar.gz.live")
    daemon.stop()


@pytest.mark.root
def test_the_owners_of_a_host(plot: Plot, one: Path) -> None:
    scratch = plot(shared=["uploads"])
    incoming = scratch.incoming
    live = write_tree(scratch.live(), OLD)
    os.chown(live, 1234, 4321)
    os.chown(drop(one, incoming), 54321, 54321)
    scratch.wait_marker("shop-1.tar.gz.live")
    (record,) = scratch.deployments()
    assert record.uploader == "54321"
    assert {entry.owner for entry in snapshot(live).values()} == {(1234, 4321)}


def test_a_live_path_that_is_a_file(plot: Plot, one: Path) -> None:
    scratch = plot()
    incoming = scratch.incoming
    scratch.live().write_text("precious")
    drop(one, incoming)
    assert scratch.wait_marker("shop-1.tar.gz.failed")["problem"] == "live-is-a-file"
    assert scratch.live().read_text() == "precious"


def test_a_state_that_nobody_understands(scratch: Scratch, one: Path) -> None:
    incoming, blog = scratch.add_site(), scratch.add_site("blog")
    scratch.layout.site_record("shop").parent.mkdir(parents=True)
    scratch.layout.site_record("shop").write_text("half a rec")
    daemon = scratch.start_daemon()
    drop(one, incoming)
    drop(one, blog)
    scratch.wait_marker("shop-1.tar.gz.live")
    scratch.wait_marker("shop-1.tar.gz.live", "blog")
    # It goes by what it finds on the disk, and loses nothing.
    assert "By what is on the disk" in daemon.log()
    (aside,) = scratch.layout.site_state("shop").glob("site.toml.damaged-*")
    assert aside.read_text() == "half a rec"


def test_a_marker_that_cannot_be_written_changes_no_outcome(plot: Plot, one: Path) -> None:
    scratch = plot()
    incoming = scratch.incoming
    (incoming / "shop-1.tar.gz.live").mkdir()
    drop(one, incoming)
    scratch.wait_live(release_of(one))
    wait_until(lambda: "the marker" in scratch.daemon.log(), "the complaint")
    assert texts(scratch.live()) == site_content("one")

"""Room on the disk: what is refused beforehand, what ends amid the extraction, and what happens once there is room."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from swapd.host.files import opened_directory
from swapd.host.linux import syncfs
from tests.support.disks import disk, failing_disk
from tests.support.httpd import state_of
from tests.support.mounts import tmpfs
from tests.support.sites import Scratch, leftovers
from tests.support.tarballs import drop, large_content, site_content, touch, write_tarball
from tests.support.trees import snapshot, write_tree
from tests.support.waiting import wait_until

pytestmark = pytest.mark.root
OLD = {"index.html": "by hand"}
MIB = 1 << 20
XFS_IOC_GOINGDOWN = 0x8004587D  # _IOR('X', 125, uint32_t), xfs_fs.h
XFS_FSOP_GOING_FLAGS_LOGFLUSH = 1


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tarball of 24 MiB in small files that does not say beforehand how much it holds."""
    return write_tarball(tmp_path_factory.mktemp("noise") / "noise-1.tar.gz", large_content(24))


def fill(directory: Path, leave: int) -> Path:
    """Leaves so many bytes free."""
    room = os.statvfs(directory)
    filler = directory / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - leave)
    return filler


class Refused:
    """A deployment that failed, with what must hold then whatever it failed by."""

    def __init__(self, scratch: Scratch, tarball: Path, live: Path) -> None:
        before = snapshot(live)
        self.upload = drop(tarball, scratch.incoming)
        self.marker = scratch.wait_marker(f"{tarball.name}.failed")
        self.problem, self.reason = self.marker["problem"], self.marker["reason"]
        self.hint = self.marker["hint"]
        assert snapshot(live) == before
        assert self.upload.read_bytes() == tarball.read_bytes()
        assert leftovers(live.with_name(f"{live.name}.releases")) == [], scratch.daemon.log()
        deployment = scratch.deployments()[0]
        assert (deployment.problem, deployment.reason) == (self.problem, self.reason)
        assert scratch.daemon.wait_status(f"{tarball.name} failed: {self.reason[:40]}")
        assert wait_until(lambda: self.reason in scratch.daemon.log(), "the journal's record")


class Squeezed:
    """Two sites, one of them on a filesystem with little room, and the daemon."""

    def __init__(self, scratch: Scratch, small: Path, tmp_path: Path) -> None:
        self.scratch = scratch
        self.live = write_tree(small / "shop", OLD)
        self.small = small
        scratch.add_site(live=str(self.live))
        scratch.add_site("blog")
        scratch.start_daemon()
        self._directory = tmp_path
        self._count = 0

    def refuse(self, tarball: Path) -> Refused:
        refused = Refused(self.scratch, tarball, self.live)
        self._count += 1
        name = f"one-{self._count}"
        drop(write_tarball(self._directory / f"{name}.tar.gz", site_content(name)), self.scratch.layout.spool / "blog")
        self.scratch.wait_marker(f"{name}.tar.gz.live", "blog")
        return refused

    def take_again(self, refused: Refused) -> None:
        touch(refused.upload)
        self.scratch.wait_marker(f"{refused.upload.name}.live")
        wait_until(lambda: not refused.upload.exists(), "the upload to be removed")


def test_it_ends_before_the_disk_is_full(scratch: Scratch, tmp_path: Path, noise: Path) -> None:
    with tmpfs(scratch.www / "small", "size=64m") as small:
        squeezed = Squeezed(scratch, small, tmp_path)
        filler = fill(small, 16 * MIB)
        refused = squeezed.refuse(noise)
        assert refused.problem == "no-space"
        numbers = re.search(r"the 16\.0 MiB that were free before; (\d\.\d) MiB are free, and 3\.2 MiB", refused.reason)
        assert numbers, refused.reason
        # What others write meanwhile still finds room: it ended within the 2 MiB that it looks at at a time.
        assert 1.2 <= float(numbers[1]) < 3.2
        filler.unlink()
        squeezed.take_again(refused)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_it_ends_before_a_real_disk_is_full(scratch: Scratch, tmp_path: Path, kind: str) -> None:
    """Where what is written is on its way to the disk for a while."""
    tarball = write_tarball(tmp_path / "much-1.tar.gz", large_content(80))
    with disk(kind, tmp_path / "image", scratch.www / "disk") as place:
        scratch.add_site(live=str(place / "shop"))
        fill(place, 60 * MIB)
        os.sync()
        done = scratch.run("deploy", "shop", tarball)
        assert done.returncode == 1
        left = re.search(r"; (\S+) MiB are free, and (\S+) MiB are kept in reserve", done.stderr)
        assert left, done.stderr
        assert float(left[2]) / 2 < float(left[1]) <= float(left[2])
        assert os.listdir(place / "shop.releases") == []


def test_a_plain_tarball_is_refused_before_anything_is_written(scratch: Scratch, tmp_path: Path) -> None:
    with tmpfs(scratch.www / "small", "size=64m") as small:
        squeezed = Squeezed(scratch, small, tmp_path)
        fill(small, 16 * MIB)
        refused = squeezed.refuse(write_tarball(tmp_path / "plain-1.tar", large_content(24)))
        assert refused.problem == "no-space"
        assert "plain-1@" in refused.reason
        assert "needs at least 24.0 MiB; 16.0 MiB are free, and 3.2 MiB are kept in reserve" in refused.reason
        assert "once 27.2 MiB are free" in refused.hint


def test_the_inodes_run_out(scratch: Scratch, tmp_path: Path) -> None:
    many = write_tarball(tmp_path / "many-1.tar.gz", {f"{at % 7}/{at}.html": "x" for at in range(7000)})
    with tmpfs(scratch.www / "small", "size=64m,nr_inodes=6000") as small:
        squeezed = Squeezed(scratch, small, tmp_path)
        refused = squeezed.refuse(many)
        assert refused.problem == "no-inodes"
        assert re.search(
            r"inodes that were free before; [1-9]\d+ are free, and 300 are kept in reserve", refused.reason
        )
        plain = squeezed.refuse(write_tarball(tmp_path / "plain-1.tar", {f"{at}": "x" for at in range(7000)}))
        assert plain.problem == "no-inodes"
        # It is not read further than it has to be.
        assert re.search(r"needs at least 59\d\d inodes; 59\d\d are free", plain.reason), plain.reason
        subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=20000", small], check=True)
        squeezed.take_again(refused)


def test_it_is_taken_up_again_by_itself_once_there_is_room(scratch: Scratch, tmp_path: Path, noise: Path) -> None:
    """The daemon looks when it starts and every 30 s after that; a start is what this test need not wait for."""
    with tmpfs(scratch.www / "small", "size=64m") as small:
        squeezed = Squeezed(scratch, small, tmp_path)
        filler = fill(small, 16 * MIB)
        refused = squeezed.refuse(noise)
        scratch.daemon.stop()
        scratch.start_daemon()
        # The room that it had is there again, and did not do: nothing is tried.
        drop(write_tarball(tmp_path / "two-1.tar.gz", site_content("two")), scratch.incoming)
        scratch.wait_marker("two-1.tar.gz.live")
        assert f"{noise.name}.failed" in scratch.markers()
        assert len(scratch.deployments()) == 2
        scratch.daemon.stop()
        filler.unlink()
        scratch.start_daemon()
        scratch.wait_marker(f"{noise.name}.live")
        wait_until(lambda: not refused.upload.exists(), "the upload to be removed")


def test_a_quota_is_told_from_a_full_disk(scratch: Scratch, tmp_path: Path, noise: Path) -> None:
    with disk("btrfs", tmp_path / "image", scratch.www / "small") as small:
        subprocess.run(["btrfs", "--quiet", "quota", "enable", small], check=True)
        subprocess.run(["btrfs", "--quiet", "subvolume", "create", small / "sites"], check=True)
        subprocess.run(["btrfs", "qgroup", "limit", "12M", small / "sites"], check=True)
        squeezed = Squeezed(scratch, small / "sites", tmp_path)
        refused = squeezed.refuse(noise)
        assert refused.problem == "quota-exceeded"
        assert "Raise that quota" in refused.hint
        subprocess.run(["btrfs", "qgroup", "limit", "none", small / "sites"], check=True)
        squeezed.take_again(refused)


def test_a_disk_that_fails(scratch: Scratch, tmp_path: Path, noise: Path) -> None:
    """XFS, shut down amid the extraction as it shuts itself down when its log cannot be written: EIO for everything."""
    image = tmp_path / "image"
    with disk("xfs", image, scratch.www / "small") as small:
        scratch.add_site(live=str(small / "shop"))
        live = write_tree(small / "shop", OLD)
        before = snapshot(live)
        daemon = scratch.start_daemon()
        upload = drop(noise, scratch.incoming)
        releases = small / "shop.releases"
        worker = wait_until(lambda: any(releases.glob(".staging-*/*")) and daemon.workers(), "the extraction")[0]
        os.kill(worker, signal.SIGSTOP)
        with opened_directory(small) as directory:
            os.sync()
            fcntl.ioctl(directory, XFS_IOC_GOINGDOWN, struct.pack("I", XFS_FSOP_GOING_FLAGS_LOGFLUSH))
        os.kill(worker, signal.SIGCONT)
        marker = scratch.wait_marker(f"{noise.name}.failed")
        assert marker["problem"] == "input-output-error"
        assert str(small) in marker["reason"]
        assert upload.read_bytes() == noise.read_bytes()
        daemon.stop()
        subprocess.run(["umount", small], check=True)
        subprocess.run(["mount", "-o", "loop", image, small], check=True)
        assert snapshot(live) == before
        daemon = scratch.start_daemon()
        touch(upload)
        scratch.wait_marker(f"{noise.name}.live")
        wait_until(lambda: leftovers(releases) == [], "what was set aside to be removed")
        daemon.stop()


def test_a_release_that_does_not_reach_its_disk(scratch: Scratch, tmp_path: Path, noise: Path) -> None:
    """Every write is taken and lost later, and the one error that says so goes to somebody else."""
    with failing_disk(tmp_path / "memory", scratch.www / "failing") as place:
        scratch.add_site(live=str(place / "shop"))
        live = write_tree(place / "shop", OLD)
        before = snapshot(live)
        with opened_directory(place) as directory:
            syncfs(directory)
        daemon = scratch.start_daemon()
        upload = drop(noise, scratch.incoming)
        extractor = wait_until(lambda: daemon.below_workers("swapd extract"), "the extraction")[0]
        (worker,) = daemon.workers()
        os.kill(worker, signal.SIGSTOP)
        wait_until(lambda: state_of(extractor) == "Z", "all of it to be written")
        with opened_directory(place) as directory, pytest.raises(OSError, match="syncfs"):
            syncfs(directory)
        os.kill(worker, signal.SIGCONT)
        marker = scratch.wait_marker(f"{noise.name}.failed")
        assert marker["problem"] in ("input-output-error", "no-space"), "whichever the disk came to first"
        assert str(place) in marker["reason"]
        assert snapshot(live) == before
        assert upload.read_bytes() == noise.read_bytes()
        assert leftovers(place / "shop.releases") == []
        daemon.stop()


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_what_a_crash_left_goes_first_where_there_is_no_room(scratch: Scratch, tmp_path: Path, suffix: str) -> None:
    """Whether that is known before the extraction or found amid it."""
    with tmpfs(scratch.www / "small", "size=64m") as small:
        scratch.add_site(live=str(small / "shop"))
        write_tree(small / "shop", OLD)
        (small / "shop.releases/.removing-0123").mkdir(parents=True)
        (small / "shop.releases/.removing-0123/much").write_bytes(bytes(30 << 20))
        fill(small, 16 * MIB)
        done = scratch.run("deploy", "shop", write_tarball(tmp_path / f"noise-2{suffix}", large_content(24)))
        assert done.returncode == 0, done.stderr
        assert leftovers(small / "shop.releases") == []


@pytest.mark.soak
def test_room_is_looked_for_now_and_then(scratch: Scratch, tmp_path: Path, noise: Path) -> None:
    """By a daemon that nobody tells anything: every 30 s."""
    with tmpfs(scratch.www / "small", "size=64m") as small:
        squeezed = Squeezed(scratch, small, tmp_path)
        filler = fill(small, 16 * MIB)
        squeezed.refuse(noise)
        filler.unlink()
        wait_until(lambda: f"{noise.name}.live" in scratch.markers(), "it to be taken up again", patience=90)


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
@pytest.mark.parametrize("reuse", ["auto", "never"])
def test_what_the_next_release_costs(scratch: Scratch, tmp_path: Path, kind: str, reuse: str) -> None:
    """24 MiB in 96 files, of which the second release has one of its own."""
    content = large_content(24)
    releases = [
        write_tarball(tmp_path / "one-1.tar", content),
        write_tarball(tmp_path / "two-1.tar", {**content, "index.html": "two", "data/0007.bin": os.urandom(1 << 18)}),
    ]
    with disk(kind, tmp_path / "image", scratch.www / "disk") as place:
        live = place / "shop"
        scratch.add_site(live=str(live), extract={"reuse": reuse})
        free = []
        for tarball in releases:
            assert scratch.run("deploy", "shop", tarball).returncode == 0
            os.sync()
            free.append(os.statvfs(place).f_bfree * os.statvfs(place).f_frsize)
        with tarfile.open(releases[1]) as archive:
            names = [member.name for member in archive.getmembers()]
            assert all((live / name).read_bytes() == archive.extractfile(name).read() for name in names)  # type: ignore[union-attr]
        assert len(names) == len(list(live.rglob("*.bin"))) + 1
        assert {path.stat().st_nlink for path in live.rglob("*.bin")} == {1}
        cost = free[0] - free[1]
        assert cost < 2 * MIB if reuse == "auto" else cost > 23 * MIB, cost


@pytest.mark.parametrize(("kind", "outcome"), [("xfs", "live"), ("ext4", "failed")])
def test_a_copy_that_shares_blocks_needs_no_room(scratch: Scratch, tmp_path: Path, kind: str, outcome: str) -> None:
    """Drop directory and state on one filesystem that is nearly full."""
    with disk(kind, tmp_path / "image", tmp_path / "var") as var:
        for name in ("spool", "lib"):
            (var / name).mkdir()
            (scratch.root / "var").mkdir(exist_ok=True)
            os.symlink(var / name, scratch.root / "var" / name)
        incoming = scratch.add_site()
        drop(write_tarball(tmp_path / "much-1.tar", large_content(12)), incoming)
        room = os.statvfs(var)
        fill(var, room.f_blocks * room.f_frsize // 20 + 6 * MIB)
        daemon = scratch.start_daemon()
        marker = scratch.wait_marker(f"much-1.tar.{outcome}")
        if outcome == "failed":
            assert marker["problem"] == "no-space"
            assert "the private copy of much-1.tar needs at least 12.0 MiB" in marker["reason"]
        daemon.stop()

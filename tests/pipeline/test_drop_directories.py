"""Drop directories that tell nothing, or not all: mounted over, through FUSE, without a watch, with a full queue."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.httpd import state_of
from tests.support.mounts import tmpfs
from tests.support.silent import fuse, layered
from tests.support.sites import Scratch
from tests.support.tarballs import digest_of, drop, site_content, write_sidecar, write_tarball
from tests.support.trees import texts
from tests.support.waiting import wait_until

QUEUED = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_tarball(tmp_path / "shop-1.tar.gz", site_content("one"))


@pytest.fixture
def two(tmp_path: Path) -> Path:
    return write_tarball(tmp_path / "shop-2.tar.gz", site_content("two"))


@pytest.mark.root
class TestFuse:
    def test_what_is_written_beneath_it_goes_live(self, scratch: Scratch, tmp_path: Path, one: Path, two: Path) -> None:
        """As through sshfs or NFS: what another machine does there gives no event here."""
        incoming, beneath = scratch.add_site(), tmp_path / "beneath"
        beneath.mkdir()
        with fuse(beneath, incoming):
            daemon = scratch.start_daemon()
            assert f"{incoming} is on fuse" in daemon.log()
            drop(one, beneath)
            scratch.wait_marker("shop-1.tar.gz.live")
            write_sidecar(beneath / two.name, digest_of(two))
            drop(two, beneath)
            scratch.wait_marker("shop-2.tar.gz.live")
            assert texts(scratch.live()) == site_content("two")
            wait_until(
                lambda: sorted(os.listdir(beneath)) == ["shop-1.tar.gz.live", "shop-2.tar.gz.live"],
                "tarballs and sidecar to be gone there",
            )
            assert len(scratch.deployments()) == 2
            assert daemon.log().count("is on fuse") == 1
            assert daemon.stop() == 0

    def test_its_program_may_die_and_come_back(self, scratch: Scratch, tmp_path: Path, one: Path, two: Path) -> None:
        incoming, blog, beneath = scratch.add_site(), scratch.add_site("blog"), tmp_path / "beneath"
        beneath.mkdir()
        with fuse(beneath, incoming) as mounted:
            daemon = scratch.start_daemon()
            mounted.kill()
            line = daemon.wait_status("is lost")
            assert "not connected" in line
            drop(one, blog)
            scratch.wait_marker("shop-1.tar.gz.live", "blog")
        with fuse(beneath, incoming):
            wait_until(lambda: "is lost" not in daemon.status_lines()[-1], "it to be looked at again")
            drop(two, beneath)
            scratch.wait_marker("shop-2.tar.gz.live")
            assert daemon.stop() == 0

    def test_its_program_may_hang(self, scratch: Scratch, tmp_path: Path, one: Path, two: Path) -> None:
        """As a server that is away: whoever looks waits for ever. Other sites go on, also over a restart."""
        incoming, blog, beneath = scratch.add_site(), scratch.add_site("blog"), tmp_path / "beneath"
        beneath.mkdir()
        with fuse(beneath, incoming) as program:
            daemon = scratch.start_hasty_daemon()
            daemon.wait_status("no release yet")  # the first look is over: what hangs amid one is another matter
            program.send_signal(signal.SIGSTOP)
            daemon.wait_status("shop", "does not answer")
            drop(one, blog)
            scratch.wait_marker("shop-1.tar.gz.live", "blog")
            assert daemon.stop() == 0
            daemon = scratch.start_hasty_daemon()
            daemon.wait_status("shop", "does not answer")
            drop(two, blog)
            scratch.wait_marker("shop-2.tar.gz.live", "blog")
            program.send_signal(signal.SIGCONT)
            wait_until(lambda: "is lost" not in daemon.status_lines()[-1], "it to be looked at again")
            drop(two, beneath)
            scratch.wait_marker("shop-2.tar.gz.live")
            assert daemon.stop() == 0


@pytest.mark.root
def test_one_that_is_mounted_over_and_unmounted(scratch: Scratch, one: Path, two: Path) -> None:
    incoming = scratch.add_site()
    daemon = scratch.start_daemon()
    with tmpfs(incoming):
        drop(one, incoming)
        scratch.wait_marker("shop-1.tar.gz.live")
        # A look may have come before the watch was found to be of no use, here as below.
        wait_until(lambda: daemon.log().count("set up anew") == 1, "the watch to be set up anew")
    assert scratch.markers() == {}
    drop(two, incoming)
    scratch.wait_marker("shop-2.tar.gz.live")
    wait_until(lambda: daemon.log().count("set up anew") == 2, "the watch to be set up anew once more")


@pytest.mark.root
def test_where_the_kernel_has_no_watch_left(scratch: Scratch, one: Path, two: Path) -> None:
    incoming = scratch.add_site()
    # A user namespace has limits of its own.
    limited = 'echo 0 >/proc/sys/user/max_inotify_watches; exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", limited, "sh", *scratch.command_line("run")]
    daemon = scratch.start_daemon(command_line=command)
    assert f"{incoming} has no events (inotify watch limit reached, see sysctl fs.inotify)" in daemon.log()
    for tarball in (one, two):
        drop(tarball, incoming)
        scratch.wait_marker(f"{tarball.name}.live")
    assert daemon.log().count("has no events") == 1


def test_an_upload_whose_events_were_lost_in_a_full_queue(scratch: Scratch, one: Path) -> None:
    incoming = scratch.add_site(settle="1h")
    daemon = scratch.start_daemon()
    with (incoming / "a.tar").open("wb", buffering=0) as a, (incoming / "b.tar").open("wb", buffering=0) as b:
        scratch.wait_marker("a.tar.pending")
        scratch.wait_marker("b.tar.pending")
        daemon.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: state_of(daemon.process.pid) == "T", "the daemon to stop")
        for _ in range(QUEUED // 2 + 500):  # the kernel drops what is the same as the event before it
            a.write(b"x")
            b.write(b"x")
        write_sidecar(drop(one, incoming))
        daemon.process.send_signal(signal.SIGCONT)
        scratch.wait_marker("shop-1.tar.gz.live")


@pytest.mark.root
def test_the_rescan_finds_what_no_event_told(scratch: Scratch, tmp_path: Path, one: Path) -> None:
    """Every 30 seconds; here each second. What is written beneath an overlay gives no event on it."""
    incoming = scratch.add_site()
    with layered(tmp_path / "layers", incoming) as upper:
        daemon = scratch.start_hasty_daemon()
        assert "is looked at every" not in daemon.log()
        drop(one, upper)
        scratch.wait_marker("shop-1.tar.gz.live")
        assert daemon.stop() == 0

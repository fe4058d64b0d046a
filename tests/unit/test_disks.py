"""What did not reach the disk is told to whoever held it from before the writing, whoever else was told first."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from swapd.host.disks import Disks
from swapd.host.files import opened_directory
from swapd.host.linux import syncfs
from swapd.model.errors import Failed
from swapd.model.release import Upload
from swapd.stages.claim import claim, confirm
from swapd.stages.prepare import places, prepare
from tests.support.disks import failing_disk
from tests.support.mounts import tmpfs
from tests.support.sites import make_site
from tests.unit.test_prepare import extracted, go_on

pytestmark = pytest.mark.root
MIB = 1 << 20
LOST = (errno.EIO, errno.ENOSPC)  # what a disk says that is full below the filesystem; either may come first


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[Path]:
    with failing_disk(tmp_path / "memory", tmp_path / "disk") as place:
        yield place


def write_too_much(directory: Path) -> None:
    """As any program does: without noticing anything."""
    (directory / "much").write_bytes(os.urandom(24 * MIB))


def tell_somebody_else(place: Path) -> None:
    """Another program's syncfs gets the error; who opens the disk after that gets none."""
    with opened_directory(place) as descriptor, pytest.raises(OSError, match="syncfs"):
        syncfs(descriptor)
    with opened_directory(place) as descriptor:
        syncfs(descriptor)


def test_it_is_told_where_somebody_else_was_told_first(failing: Path, tmp_path: Path) -> None:
    with Disks() as disks:
        disks.hold([tmp_path, failing])
        disks.write_through()
        write_too_much(failing)
        tell_somebody_else(failing)
        with pytest.raises(OSError, match=str(failing)) as caught:
            disks.write_through()
        assert caught.value.errno in LOST


def test_each_filesystem_is_held_once_and_let_go(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with tmpfs(tmp_path / "other") as other:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (other / name).mkdir()
        with Disks() as disks:
            disks.hold([tmp_path / "a", other / "a", tmp_path / "b"])
            disks.hold([other / "b"])
            assert len(os.listdir("/proc/self/fd")) == before + 2
            disks.write_through()
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_release_that_was_lost_is_not_staged(failing: Path) -> None:
    site = make_site(failing)
    site.live.parent.mkdir()
    site.releases.mkdir()
    with Disks() as disks:
        disks.hold(places(site))
        tree = extracted(site)
        write_too_much(tree.tree.path)
        tell_somebody_else(failing)
        with pytest.raises(Failed) as caught:
            prepare(tree, site, disks, go_on)
    assert caught.value.problem in ("input-output-error", "no-space")
    assert str(site.releases) in caught.value.message


def test_a_copy_that_was_lost_is_not_what_was_digested(failing: Path, tmp_path: Path) -> None:
    incoming, claims = tmp_path / "incoming", failing / "claims"
    incoming.mkdir()
    claims.mkdir(mode=0o700)
    upload = Upload(incoming, "shop.tar", True)
    for size, is_lost in ((MIB, False), (24 * MIB, True)):
        (incoming / "shop.tar").write_bytes(os.urandom(size))
        with claim(upload, str(claims), 1 << 30, lambda _: None) as tarball:
            confirm(tarball)
            if is_lost:
                tell_somebody_else(failing)
                with pytest.raises(Failed) as caught:
                    confirm(tarball)
                assert caught.value.problem == "input-output-error"
                assert "private copy of shop.tar" in caught.value.message

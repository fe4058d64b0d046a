"""A new tree that shares blocks with the live one: on filesystems that can, and on those that cannot."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from swapd.host.files import opened_directory
from swapd.host.linux import syncfs
from swapd.host.reuse import reuse, shares_blocks
from tests.support.disks import disk
from tests.support.mounts import tmpfs
from tests.support.trees import snapshot

FILES = 60
SIZE = 1 << 20
CHANGED = "data/7.bin"


def go_on() -> None:
    """Nobody interrupts."""


def write(root: Path, changed: bytes = b"") -> Path:
    """A tree of 60 MiB; the same each time but for what is ``changed``."""
    noise = random.Random("reuse")
    for number in range(FILES):
        path = root / "data" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        # One byte more than whole blocks: the end of a file is shared, too.
        path.write_bytes(noise.randbytes(SIZE + 1))
    (root / "small.html").write_text("small")
    (root / "empty").touch()
    os.symlink("data", root / "link")
    if changed:
        content = (root / CHANGED).read_bytes()
        (root / CHANGED).write_bytes(content[: -len(changed)] + changed)
    return root


def used(place: Path) -> int:
    with opened_directory(place) as descriptor:
        syncfs(descriptor)
    room = os.statvfs(place)
    return (room.f_blocks - room.f_bfree) * room.f_frsize


@pytest.fixture(params=["btrfs", "xfs"])
def sharing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with disk(request.param, tmp_path / "image", tmp_path / "disk") as place:
        yield place


@pytest.mark.root
class TestSharing:
    def test_a_release_with_one_changed_file_costs_little(self, sharing: Path) -> None:
        live = write(sharing / "live")
        os.chmod(live / "data/1.bin", 0o400)
        os.chown(live / "data/2.bin", 1234, 4321)
        before = used(sharing)
        tree = write(sharing / "new", changed=b"changed")
        expected, untouched = snapshot(tree), snapshot(live)
        full = used(sharing)
        assert full - before > (FILES - 1) * SIZE, "the test is worth nothing"

        shared = reuse(tree, live, go_on)

        assert shared >= (FILES - 1) * SIZE
        # The changed file, of which btrfs and XFS may have shared the beginning, and the filesystem's own records.
        assert used(sharing) - before < 3 * SIZE
        assert snapshot(tree) == expected
        assert snapshot(live) == untouched
        assert not {(p.stat().st_dev, p.stat().st_ino) for p in tree.rglob("*")} & {
            (p.stat().st_dev, p.stat().st_ino) for p in live.rglob("*")
        }
        extents = subprocess.run(["filefrag", "-v", tree / "data/9.bin"], capture_output=True, text=True, check=True)
        assert "shared" in extents.stdout
        # What is written afterwards is in one of them alone.
        (tree / "data/9.bin").write_bytes(b"written later")
        assert snapshot(live) == untouched

    def test_what_differs_is_left_as_it_is(self, sharing: Path) -> None:
        live, tree = sharing / "live", sharing / "new"
        contents = {"first": 0, "last": (1 << 18) - 1, "middle": 1 << 17}
        for root in (live, tree):
            root.mkdir()
            for name, at in contents.items():
                content = bytearray(b"x" * (1 << 18))
                content[at] = ord("a") if root is live else ord("b")
                (root / name).write_bytes(content)
            (root / "longer").write_bytes(b"x" * (70_000 + (root is live)))
        expected = snapshot(tree)
        shared = reuse(tree, live, go_on)
        assert snapshot(tree) == expected
        assert shared < 3 << 18
        assert {(tree / name).read_bytes() == (live / name).read_bytes() for name in contents} == {False}

    def test_a_live_tree_that_its_owner_turns_elsewhere(self, sharing: Path) -> None:
        """No link in it is followed, and nothing of it waits: not for a FIFO, and not for a device."""
        outside, live, tree = sharing / "outside", sharing / "live", sharing / "new"
        for path in (outside / "d/file", tree / "d/file", tree / "file", tree / "fifo", tree / "dir"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * 65536)
        live.mkdir()
        os.symlink(outside / "d", live / "d")
        os.symlink(outside / "d/file", live / "file")
        os.mkfifo(live / "fifo")
        (live / "dir").mkdir()
        assert reuse(tree, live, go_on) == 0

    def test_it_can_be_interrupted(self, sharing: Path) -> None:
        def stop() -> None:
            raise InterruptedError

        live = write(sharing / "live")
        with pytest.raises(InterruptedError):
            reuse(live, live, stop)

    def test_without_a_live_tree(self, sharing: Path) -> None:
        tree = write(sharing / "new")
        (sharing / "file").touch()
        assert reuse(tree, sharing / "none", go_on) == reuse(tree, sharing / "file", go_on) == 0

    def test_the_live_path_may_be_a_link(self, sharing: Path) -> None:
        write(sharing / "releases/one")
        os.symlink("releases/one", sharing / "live")
        assert reuse(write(sharing / "new"), sharing / "live", go_on) >= FILES * SIZE


@pytest.mark.root
def test_where_the_filesystem_cannot_nothing_is_read(tmp_path: Path) -> None:
    def never() -> None:
        raise AssertionError("it looked at a directory")

    with tmpfs(tmp_path / "disk", "size=256m") as place:
        with opened_directory(place) as descriptor:
            assert not shares_blocks(descriptor)
        assert reuse(write(place / "new"), write(place / "live"), never) == 0


@pytest.mark.root
def test_a_live_tree_on_another_filesystem(tmp_path: Path) -> None:
    with disk("xfs", tmp_path / "image", tmp_path / "disk") as place:
        tree, live = write(place / "new"), write(tmp_path / "live")
        expected = snapshot(tree)
        assert reuse(tree, live, go_on) == 0
        assert snapshot(tree) == expected

"""A tree is copied that its owner made as strange as he could, and may change meanwhile."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swapd.host.copying import MAX_DEPTH, copy_entry, copy_within_room
from swapd.host.files import opened_directory, remove_tree
from swapd.model.errors import Failed, Interrupted
from swapd.model.room import NoRoom
from tests.support.mounts import tmpfs
from tests.support.trees import snapshot, write_tree


def copy(root: Path, step: Callable[[], None] = lambda: None) -> Path:
    with opened_directory(root) as directory:
        copy_entry(directory, "tree", directory, "copy", step)
    return root / "copy"


def make_deep(root: Path, depth: int) -> None:
    """Directories below each other, as nobody can name them by a path, with a file in the last one."""
    descriptor = os.open(root, os.O_RDONLY)
    for name in ("tree", *["d"] * (depth - 1)):
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)


def depth_of(top: Path) -> int:
    """How many directories are below each other, down to the one that has the file in it."""
    descriptor, depth = os.open(top, os.O_RDONLY), 1
    while "d" in os.listdir(descriptor):
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor, depth = below, depth + 1
    assert os.listdir(descriptor) == ["file"]
    os.close(descriptor)
    return depth


def test_everything_is_as_it_was(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"a": "1", "b/c": "2" * 3_000_000, "b/d/e": "3", "b/f": "", "z/y": "4"})
    (tree / "link").symlink_to("b/c")
    (tree / "dangling").symlink_to("/nowhere")
    (tree / "empty").mkdir(mode=0o750)
    os.utime(tree / "b/d", (1, 2))
    os.utime(tree, (3, 4))
    assert snapshot(copy(tmp_path)) == snapshot(tree) | {
        name: entry for name, entry in snapshot(tmp_path / "copy").items() if entry.kind == "l"
    }
    assert os.readlink(tmp_path / "copy/link") == "b/c"
    assert os.readlink(tmp_path / "copy/dangling") == "/nowhere"


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory on a tmpfs, because ext4 takes its time to rename what is deep; pytest could not remove it."""
    place = Path(tempfile.mkdtemp(prefix="swapd-test-", dir="/dev/shm"))
    yield place
    with opened_directory(place.parent) as directory:
        remove_tree(directory, place.name)


def test_a_tree_deeper_than_python_recurses(memory: Path) -> None:
    make_deep(memory, 1100)
    assert depth_of(copy(memory)) == 1100


def test_a_tree_deeper_than_any_path_is_refused(memory: Path) -> None:
    make_deep(memory, MAX_DEPTH + 1)
    with pytest.raises(Failed) as caught:
        copy(memory)
    assert caught.value.problem == "too-deep"


@pytest.mark.parametrize("content", [{f"{at}": "" for at in range(1000)}, {"large": "x" * (4 << 20)}])
def test_it_can_be_interrupted(tmp_path: Path, content: dict[str, str]) -> None:
    write_tree(tmp_path / "tree", content)
    calls = []

    def stop() -> None:
        calls.append(len(os.listdir(tmp_path / "copy")))
        if len(calls) == 2:
            raise Interrupted("prepare")

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Interrupted):
        copy(tmp_path, stop)
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(os.listdir(tmp_path / "copy")) <= 600


def test_what_goes_away_meanwhile_is_left_out(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {f"{at}": "x" for at in range(1000)} | {"directory/file": "x"})

    def take_away() -> None:
        with opened_directory(tmp_path) as directory:
            for name in os.listdir(tree):
                remove_tree(directory, f"tree/{name}")

    copied = os.listdir(copy(tmp_path, take_away))
    assert 200 < len(copied) < 300


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        copy(tmp_path)


@pytest.mark.root
class TestRoom:
    @pytest.fixture(autouse=True)
    def tree(self, tmp_path: Path) -> Path:
        return write_tree(tmp_path / "tree", {f"{at % 5}/{at}": "x" * 100_000 for at in range(100)})

    def refused(self, root: Path, small: Path, keep_going: Callable[[], None] = lambda: None) -> NoRoom:
        with (
            opened_directory(root) as source,
            opened_directory(small) as destination,
            pytest.raises(NoRoom) as caught,
        ):
            copy_within_room(source, "tree", destination, "copy", small, "the copy", keep_going)
        return caught.value

    def test_it_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "small", "size=10m") as small:
            refused = self.refused(tmp_path, small)
            assert "the copy needs at least 9.5 MiB; 10.0 MiB are free, and 512.0 KiB are kept" in refused.message
            assert os.listdir(small) == []
        with tmpfs(tmp_path / "few", "size=64m,nr_inodes=110") as few:
            refused = self.refused(tmp_path, few)
            assert refused.problem == "no-inodes"
            assert "the copy needs at least 106 inodes; 109 are free, and 5 are kept in reserve" in refused.message
            assert os.listdir(few) == []

    def test_it_leaves_the_reserve_to_others(self, tmp_path: Path) -> None:
        """Somebody else takes the room while it is under way."""
        with tmpfs(tmp_path / "small", "size=12m") as small:

            def take_room() -> None:
                (small / "taken").write_bytes(bytes(4 << 20))

            refused = self.refused(tmp_path, small, take_room)
            assert refused.problem == "no-space"
            room = os.statvfs(small)
            assert room.f_bavail * room.f_frsize > 0, "what others write meanwhile still finds room"

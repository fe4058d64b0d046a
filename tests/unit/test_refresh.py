"""The times of a tree that is live again: later than what visitors hold, and nothing else of it changes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from swapd.host.files import opened_directory, remove_tree
from swapd.stages.refresh import refresh
from tests.support.trees import snapshot, write_tree

OLD = 1_600_000_000
CONTENT = {"index.html": "one", "assets/site.css": "one", "a/b/c/deep.php": "one"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = write_tree(tmp_path / "one", CONTENT)
    (tree / "link").symlink_to("index.html")
    age(tree)
    return tree


def age(tree: Path, seconds: float = OLD) -> None:
    """Every name in the tree has this time."""
    for path in (*tree.rglob("*"), tree):
        os.utime(path, (seconds, seconds), follow_symlinks=False)


def nothing() -> None:
    """No interruption."""


def times(tree: Path) -> dict[str, float]:
    return {name: entry.mtime_ns / 1e9 for name, entry in snapshot(tree).items()}


def test_everything_is_of_now_and_otherwise_as_it_was(tree: Path) -> None:
    before, begin = snapshot(tree, times=False), time.time()
    refresh(tree, None, nothing)
    # The kernel's clock for files may be a tick behind.
    assert all(begin - 0.1 <= changed <= time.time() for changed in times(tree).values()), times(tree)
    assert snapshot(tree, times=False) == before


@pytest.mark.parametrize("ahead", [0.0, 86400.0])
def test_every_file_is_later_in_http_than_its_namesake(tree: Path, tmp_path: Path, ahead: float) -> None:
    """Also in the very second in which the other went live, and when a clock was wrong."""
    previous = write_tree(tmp_path / "two", {**CONTENT, "only-there.html": "two"})
    age(previous, time.time() + ahead)
    held = times(previous)
    refresh(tree, previous, nothing)
    for name, changed in times(tree).items():
        if name in CONTENT:
            assert int(changed) > int(held[name]), name


def test_what_a_link_leads_to_stays_as_it_is(tree: Path, tmp_path: Path) -> None:
    shared = write_tree(tmp_path / "shared", {"photo.jpg": "precious"})
    age(shared)
    (tree / "uploads").symlink_to(shared)
    refresh(tree, None, nothing)
    assert set(times(shared).values()) == {OLD}
    assert (tree / "uploads").lstat().st_mtime > OLD


def test_through_the_live_link(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "live").symlink_to(tree)
    refresh(tmp_path / "live", None, nothing)
    assert min(times(tree).values()) > OLD


def test_the_tree_that_was_live_is_only_read(tree: Path, tmp_path: Path) -> None:
    previous = write_tree(tmp_path / "two", CONTENT)
    age(previous)
    before = snapshot(previous)
    refresh(tree, previous, nothing)
    assert snapshot(previous) == before


def test_what_its_owner_changes_meanwhile(tree: Path, tmp_path: Path) -> None:
    """Gone, or turned into a link elsewhere: neither is followed, and the rest gets its times."""
    elsewhere = write_tree(tmp_path / "elsewhere", {"c/deep.php": "not ours"})
    age(elsewhere)
    calls = 0

    def change() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:  # the root has been read
            (tree / "assets/site.css").unlink()
            (tree / "assets").rmdir()
            (tree / "a/b").rename(tmp_path / "away")
            (tree / "a/b").symlink_to(elsewhere)

    refresh(tree, None, change)
    assert set(times(elsewhere).values()) == {OLD}
    assert (tree / "index.html").stat().st_mtime > OLD


def test_a_tree_as_deep_as_paths_go(tmp_path: Path) -> None:
    """Neither the stack nor the descriptors of a process are as deep."""
    tree = tmp_path / "tree"
    tree.mkdir()
    descriptor = os.open(tree, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.utime(descriptor, (OLD, OLD))
    refresh(tree, None, nothing)
    assert os.fstat(descriptor).st_mtime > OLD
    os.close(descriptor)
    with opened_directory(tmp_path) as parent:
        remove_tree(parent, "tree")  # which pytest could not


def test_it_can_be_interrupted_and_done_again(tree: Path) -> None:
    def interrupt() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        refresh(tree, None, interrupt)
    refresh(tree, None, nothing)
    assert min(times(tree).values()) > OLD

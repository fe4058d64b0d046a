"""Who uses a tree: seen by inode, in words, and through the document of the process that may look."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swapd.host.files import opened_directory
from swapd.host.usage import Usage, read_usage, users_of_tree
from swapd.model.usage import User, Way, describe_users
from tests.support.trees import write_tree


@contextmanager
def process(program: str, *arguments: str | Path, cwd: Path) -> Iterator[int]:
    """One that has done as the program says, and waits."""
    line = [sys.executable, "-c", f"{program}\nprint(flush=True)\nimport time; time.sleep(600)", *map(str, arguments)]
    with subprocess.Popen(line, cwd=cwd, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            yield child.pid
        finally:
            child.kill()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "releases/one", {"a/b/c.txt": "x", "index.html": "y"})


def users(tree: Path) -> list[tuple[int, Way]]:
    with opened_directory(tree.parent) as directory:
        return [(user.pid, user.way) for user in users_of_tree(directory, tree.name, read_usage())]


WAYS = {
    "directory": ("import os; os.chdir('a/b')", Way.DIRECTORY),
    "file": ("file = open('a/b/c.txt')", Way.FILE),
    "a directory's descriptor": ("import os; file = os.open('a', os.O_RDONLY)", Way.FILE),
    "mapping": (
        "import mmap\nwith open('index.html') as file: it = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)",
        Way.MAPPING,
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_use_it(tree: Path, way: str) -> None:
    program, expected = WAYS[way]
    # What it is in, it leaves again: only what the program says counts.
    program = f"import os; os.chdir({str(tree)!r})\n{program}"
    program += "" if expected is Way.DIRECTORY else "\nos.chdir('/')"
    with process(program, cwd=tree.parent) as pid:
        found = users(tree)
        # Python's mmap keeps a descriptor of its own, too.
        assert (pid, expected) in found
        assert {user for user, _ in found} == {pid}
        tree.rename(tree.with_name("two"))
        assert (pid, expected) in users(tree.with_name("two")), "whatever it is called by now"
        tree.with_name("two").rename(tree)
    assert users(tree) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its root directory")
def test_a_root_directory(tree: Path) -> None:
    with process(f"import os; os.chroot({str(tree)!r})", cwd=tree.parent) as pid:
        assert users(tree) == [(pid, Way.ROOT)]


def test_one_in_another_tree_does_not_count(tree: Path) -> None:
    other = write_tree(tree.with_name("other"), {"x": "y"})
    (tree / "link").symlink_to(other)
    with process("pass", cwd=other) as pid:
        assert users(tree) == []
        assert users(other) == [(pid, Way.DIRECTORY)]
    assert users(tree / "link") == [], "a link is no tree"
    assert users(tree.with_name("missing")) == []


def test_it_is_told_in_a_document() -> None:
    usage = Usage({(1, 2): [User(3, "cron", Way.DIRECTORY)], (1, 9): [User(4, "x\n", Way.MAPPING)]}, "some")
    assert Usage.from_document(usage.document()) == usage


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], ""),
        ([User(812, "cron", Way.DIRECTORY)], "cron, pid 812 (working directory)"),
        ([User(812, "cron", Way.DIRECTORY), User(812, "cron", Way.FILE)], "cron, pid 812 (working directory)"),
        ([User(1, "a\x1b", Way.FILE)], "a\\x1b, pid 1 (open file)"),
        (
            [User(number, "php", Way.MAPPING) for number in range(1, 6)],
            "php, pid 1 (mapped file); php, pid 2 (mapped file); php, pid 3 (mapped file); and 2 more",
        ),
    ],
)
def test_in_words(found: list[User], said: str) -> None:
    assert describe_users(found) == said

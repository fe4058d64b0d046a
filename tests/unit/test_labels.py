"""Labels of a new tree go by those of the live one: decided here under another attribute's name, without SELinux."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swapd.host.labels import has_labels, label, label_like
from swapd.model.errors import Failed
from tests.support.mounts import tmpfs
from tests.support.trees import snapshot, write_tree

# What root may set on links and directories, too; user.* is for files and directories alone.
ATTRIBUTE = "trusted.swapd-test"
ROOT, RW = b"u:r:httpd_sys_content_t:s0\0", b"u:r:httpd_sys_rw_content_t:s0\0"
SCRIPT, OWN, PLACE = b"u:r:httpd_sys_script_exec_t:s0\0", b"u:r:own_t:s0\0", b"u:r:var_t:s0\0"


def go_on() -> None:
    """Nobody interrupts."""


def mark(path: Path, text: bytes) -> None:
    os.setxattr(path, ATTRIBUTE, text, follow_symlinks=False)


def marks(root: Path) -> dict[str, bytes]:
    found = {}
    for path in (root, *root.rglob("*")):
        if ATTRIBUTE in os.listxattr(path, follow_symlinks=False):
            found[str(path.relative_to(root))] = os.getxattr(path, ATTRIBUTE, follow_symlinks=False)
    return found


@pytest.fixture
def live(tmp_path: Path) -> Path:
    live = write_tree(tmp_path / "www/shop", {"index.php": "1", "cache/a": "1", "cgi/run": "1", "kind/x": "1"})
    os.symlink("index.php", live / "link")
    mark(tmp_path / "www", PLACE)
    for name, text in {
        ".": ROOT,
        "index.php": OWN,
        "cache": RW,
        "cache/a": RW,
        "cgi": ROOT,
        "cgi/run": SCRIPT,
        "kind": RW,
        "link": SCRIPT,
    }.items():
        mark(live / name, text)
    return live


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = write_tree(
        tmp_path / "www/new",
        {"index.php": "2", "cache/b": "2", "cache/deep/er": "2", "cgi/run": "2", "cgi/x": "2", "kind": "2"},
    )
    os.symlink("index.php", tree / "link")
    os.symlink("nowhere", tree / "new-link")
    mark(tree / "cgi/x", OWN)  # what staging gave it is not what it will have
    return tree


EXPECTED = {
    ".": ROOT,
    "index.php": OWN,
    "cache": RW,
    "cache/b": RW,
    "cache/deep": RW,
    "cache/deep/er": RW,
    "cgi": ROOT,
    "cgi/run": SCRIPT,
    "cgi/x": ROOT,
    "kind": ROOT,  # a directory in the live tree, and a file here
    "link": SCRIPT,
    "new-link": ROOT,
}


@pytest.mark.root
class TestLabels:
    def test_the_same_path_has_the_same_label_and_what_is_new_its_directorys(self, live: Path, tree: Path) -> None:
        before, untouched = snapshot(tree), marks(live)
        assert label(tree, live, go_on, ATTRIBUTE) == len(EXPECTED)
        assert marks(tree) == EXPECTED
        assert snapshot(tree) == before
        assert marks(live) == untouched
        assert label(tree, live, go_on, ATTRIBUTE) == 0, "what is right is left alone"

    def test_the_live_path_may_be_a_link(self, live: Path, tree: Path) -> None:
        os.rename(live, live.with_name("release"))
        os.symlink("release", live)
        label(tree, live, go_on, ATTRIBUTE)
        assert marks(tree) == EXPECTED

    def test_without_a_live_tree_that_of_the_place(self, live: Path, tree: Path) -> None:
        label(tree, live.with_name("none"), go_on, ATTRIBUTE)
        assert set(marks(tree).values()) == {PLACE}
        assert marks(tree).keys() == EXPECTED.keys()

    def test_links_of_the_live_tree_are_not_followed(self, live: Path, tree: Path, tmp_path: Path) -> None:
        outside = write_tree(tmp_path / "outside", {"b": "x"})
        mark(outside / "b", SCRIPT)
        os.rename(live / "cache", live / "away")
        os.symlink(outside, live / "cache")
        label(tree, live, go_on, ATTRIBUTE)
        assert marks(tree)["cache/b"] == ROOT

    def test_a_live_tree_without_labels(self, live: Path, tree: Path) -> None:
        os.removexattr(live, ATTRIBUTE)
        assert label(tree, live, go_on, ATTRIBUTE) == 0
        assert marks(tree) == {"cgi/x": OWN}

    def test_a_label_that_cannot_be_set(self, live: Path, tree: Path) -> None:
        """user.* is not for links, and says EPERM as a policy does."""
        for path in (live, live / "index.php"):
            os.setxattr(path, "user.swapd-test", ROOT)
        with pytest.raises(Failed) as caught:
            label(tree, live, go_on, "user.swapd-test")
        assert caught.value.problem == "cannot-label"
        assert "link cannot be given the SELinux label u:r:httpd_sys_content_t:s0: Op" in caught.value.message

    def test_a_filesystem_that_has_no_attributes(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "small") as small:
            live, tree = write_tree(small / "live", {"a": "1"}), write_tree(small / "new", {"a": "2"})
            assert label(tree, live, go_on, "nonsense.swapd-test") == 0


@pytest.mark.root
def test_one_file_is_labelled_like_the_first_that_has_a_label(tmp_path: Path) -> None:
    new, old, place = (tmp_path / name for name in ("new", "old", "place"))
    new.touch()
    place.mkdir()
    label_like(new, (old, place), ATTRIBUTE)
    assert marks(tmp_path) == {}
    mark(place, ROOT)
    label_like(new, (old, place), ATTRIBUTE)
    assert marks(tmp_path) == {"place": ROOT, "new": ROOT}
    old.touch()
    mark(old, OWN)
    label_like(new, (old, place), ATTRIBUTE)
    assert marks(tmp_path)["new"] == OWN


def test_it_is_one_look_where_there_is_no_selinux(tmp_path: Path) -> None:
    assert not has_labels(tmp_path / "enforce")
    (tmp_path / "enforce").write_text("0")
    assert has_labels(tmp_path / "enforce"), "permissive today may be in force tomorrow"

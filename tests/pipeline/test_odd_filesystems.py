"""Filesystems on which a swap is not what it seems: `check` says so, and nothing is stopped for a deployment."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swapd.commands import check
from swapd.model.layout import Layout
from tests.support.disks import disk
from tests.support.httpd import Httpd
from tests.support.mounts import bind, lying, overlay, tmpfs
from tests.support.sites import Scratch, leftovers
from tests.support.tarballs import site_content, write_tarball
from tests.support.trees import snapshot, texts, write_tree

pytestmark = pytest.mark.root  # mounts

OLD = {"index.html": "by hand", "uploads/cat.txt": "meow"}
NEW = site_content("new")
Place = Callable[[Scratch, str], contextlib.AbstractContextManager[object]]


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return write_tarball(tmp_path / "shop-1.tar.gz", NEW)


def findings(scratch: Scratch, *, status: int = 0) -> dict[str, dict[str, Any]]:
    """What `check` says of the site, by its problem."""
    found = scratch.json("check", "shop", status=status)
    assert found["ok"] is (status == 0)
    return {finding["problem"]: finding for finding in found["findings"]}


def strategy(scratch: Scratch) -> str:
    """The one that `check` says, where nothing stands in the way."""
    name: str = findings(scratch)["strategy"]["facts"]["strategy"]
    return name


# Each makes the site's live path, with OLD in it, and yields while the place is there.


@contextlib.contextmanager
def in_lower_layer(scratch: Scratch, httpd: str) -> Iterator[None]:
    write_tree(scratch.root / "image/shop", OLD)
    scratch.add_site(httpd=httpd)
    with overlay(scratch.root / "image", scratch.www):
        yield


@contextlib.contextmanager
def partly_in_lower_layer(scratch: Scratch, httpd: str) -> Iterator[None]:
    """The image has the directory, and its files came later."""
    (scratch.root / "image/shop").mkdir(parents=True)
    scratch.add_site(httpd=httpd)
    with overlay(scratch.root / "image", scratch.www):
        write_tree(scratch.live(), OLD)
        yield


def elsewhere(scratch: Scratch) -> contextlib.AbstractContextManager[Path]:
    """A directory of the same filesystem on another mount."""
    source = scratch.root / "elsewhere"
    source.mkdir()
    return bind(source, scratch.root / "bound")


@contextlib.contextmanager
def on_two_bind_mounts(scratch: Scratch, httpd: str) -> Iterator[None]:
    write_tree(scratch.live(), OLD)
    scratch.add_site(httpd=httpd, releases=str(scratch.root / "bound"))
    with elsewhere(scratch):
        yield


@contextlib.contextmanager
def linked_over_two_bind_mounts(scratch: Scratch, httpd: str) -> Iterator[None]:
    scratch.live().symlink_to(write_tree(scratch.www / "by-hand", OLD))
    scratch.add_site(httpd=httpd, releases=str(scratch.root / "bound"))
    with elsewhere(scratch):
        yield


@contextlib.contextmanager
def with_releases_in_memory(scratch: Scratch, httpd: str) -> Iterator[None]:
    write_tree(scratch.live(), OLD)
    scratch.add_site(httpd=httpd, releases=str(scratch.root / "memory/shop"))
    with tmpfs(scratch.root / "memory"):
        yield


@contextlib.contextmanager
def at_a_mount_point(scratch: Scratch, httpd: str) -> Iterator[None]:
    scratch.add_site(httpd=httpd)
    with tmpfs(scratch.live()):
        write_tree(scratch.live(), OLD)
        yield


@contextlib.contextmanager
def with_a_mount_below(scratch: Scratch, httpd: str) -> Iterator[None]:
    scratch.add_site(httpd=httpd)
    write_tree(scratch.live(), OLD)
    with tmpfs(scratch.live() / "media"):
        (scratch.live() / "media/dog.txt").write_text("woof")
        yield


def on_a_lying_filesystem(kind: str, **keys: Any) -> Place:
    @contextlib.contextmanager
    def place(scratch: Scratch, httpd: str) -> Iterator[None]:
        scratch.add_site(httpd=httpd, **keys)
        with lying(kind, scratch.www):
            write_tree(scratch.live(), OLD)
            yield

    return place


REFUSED: dict[str, tuple[Place, str]] = {
    "overlay-lower": (in_lower_layer, "live-in-lower-layer"),
    "overlay-merged": (partly_in_lower_layer, "live-in-lower-layer"),
    "two-binds": (on_two_bind_mounts, "cannot-rename"),
    "two-binds-link": (linked_over_two_bind_mounts, "cannot-rename"),
    "releases-on-tmpfs": (with_releases_in_memory, "releases-on-another-filesystem"),
    "mount-point": (at_a_mount_point, "live-is-mounted"),
    "mount-below": (with_a_mount_below, "live-is-mounted"),
    "fuse-plain": (on_a_lying_filesystem("plain", strategy="exchange"), "cannot-exchange"),
    "fuse-nothing": (on_a_lying_filesystem("nothing", strategy="exchange"), "cannot-exchange"),
    "fuse-hidden": (on_a_lying_filesystem("hidden", strategy="exchange"), "cannot-exchange"),
    "fuse-adoption": (on_a_lying_filesystem("plain", strategy="symlink"), "cannot-exchange"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_swapped_is_found_before_anything_is_stopped(
    name: str, scratch: Scratch, httpd: Httpd, new: Path
) -> None:
    place, problem = REFUSED[name]
    with place(scratch, httpd.name):
        before = snapshot(scratch.live())

        found = findings(scratch, status=1)[problem]
        assert found["severity"] == "error"
        assert str(scratch.www) in found["why"]
        assert found["remedy"]
        assert snapshot(scratch.live()) == before, "a look changes nothing"
        there = os.listdir(scratch.www)
        assert not [name for name in there if name.startswith(".")], there

        deployment = scratch.json("deploy", "shop", new, status=1)
        assert (deployment["outcome"], deployment["problem"]) == ("failed", problem)
        assert found["remedy"] in deployment["hint"]
        assert snapshot(scratch.live()) == before
        assert not httpd.was_stopped()
        assert not leftovers(scratch.www)


def test_whether_httpd_was_stopped_can_be_told(scratch: Scratch, httpd: Httpd, new: Path) -> None:
    """Else the test above would prove nothing."""
    scratch.add_site(httpd=httpd.name)
    write_tree(scratch.live(), OLD)
    assert not httpd.was_stopped()
    scratch.json("deploy", "shop", new)
    assert httpd.was_stopped()


def check_deploys(scratch: Scratch, new: Path) -> None:
    """The next deployment goes well, and what was there is kept."""
    scratch.json("deploy", "shop", new)
    assert texts(scratch.live()) == NEW
    (kept,) = scratch.state().previous
    assert texts(scratch.releases() / kept) == OLD


def test_the_way_out_of_a_lower_layer(scratch: Scratch, httpd: Httpd, new: Path) -> None:
    with in_lower_layer(scratch, httpd.name):
        remedy = findings(scratch, status=1)["live-in-lower-layer"]["remedy"]
        for command in remedy.partition(": ")[2].partition(". ")[0].split("; "):
            subprocess.run(command.partition(" (")[0].split(), check=True)
        assert strategy(scratch) == "exchange"
        check_deploys(scratch, new)


def test_an_overlay_that_can_move_what_is_in_its_lower_layer(scratch: Scratch, httpd: Httpd, new: Path) -> None:
    write_tree(scratch.root / "image/shop", OLD)
    scratch.add_site(httpd=httpd.name)
    with overlay(scratch.root / "image", scratch.www, "redirect_dir=on"):
        assert strategy(scratch) == "exchange"
        check_deploys(scratch, new)


@pytest.mark.parametrize("kind", ["plain", "nothing"])
def test_a_lying_filesystem_is_left_to_two_renames(kind: str, scratch: Scratch, httpd: Httpd, new: Path) -> None:
    with on_a_lying_filesystem(kind)(scratch, httpd.name):
        found = findings(scratch)["strategy"]
        assert found["facts"]["strategy"] == "rename"
        assert "reports success" in found["why"]
        check_deploys(scratch, new)
        assert httpd.was_stopped()
        assert httpd.is_running()


def test_a_filesystem_is_not_thought_to_lie_because_it_is_fuse(scratch: Scratch, httpd: Httpd, new: Path) -> None:
    with on_a_lying_filesystem("honest")(scratch, httpd.name):
        assert strategy(scratch) == "exchange"
        check_deploys(scratch, new)


def test_two_renames_without_a_pause_are_warned_of(scratch: Scratch) -> None:
    write_tree(scratch.live(), OLD)
    scratch.add_site(strategy="rename", pause={"mode": "never"})
    found = findings(scratch)["window-without-pause"]
    assert (found["severity"], found["facts"]["live"]) == ("warning", str(scratch.live()))


def test_what_a_restart_would_take_is_warned_of(scratch: Scratch, httpd: Httpd, new: Path) -> None:
    scratch.add_site(httpd=httpd.name)
    with tmpfs(scratch.www):
        write_tree(scratch.live(), OLD)
        assert findings(scratch)["volatile-filesystem"]["severity"] == "warning"
        check_deploys(scratch, new)


def test_a_subvolume_of_btrfs_is_a_directory_like_others(
    tmp_path: Path, scratch: Scratch, httpd: Httpd, new: Path
) -> None:
    scratch.add_site(httpd=httpd.name)
    with disk("btrfs", tmp_path / "image", scratch.www):
        subprocess.run(["btrfs", "subvolume", "create", scratch.live()], check=True, stdout=subprocess.DEVNULL)
        write_tree(scratch.live(), OLD)
        assert strategy(scratch) == "exchange"
        check_deploys(scratch, new)


def test_every_live_path_of_a_site_is_looked_at(scratch: Scratch) -> None:
    second = write_tree(scratch.www / "second/place", {"page.php": "by hand"})
    write_tree(scratch.live(), OLD)
    scratch.add_site(path=[{"live": str(second), "part": "lib"}])
    with tmpfs(second / "cache"):
        found = scratch.json("check", "shop", status=1)["findings"]
    problems = {item["problem"]: item for item in found if item["severity"] != "info"}
    assert str(second) in problems["live-is-mounted"]["what"]
    assert [item["facts"]["live"] for item in found if item["problem"] == "strategy"] == [str(scratch.live())]


def check_as_nobody(layout: Layout) -> tuple[int, str]:
    """What `check` says to a user who owns nothing; in a fork, because such a user may not even read the checkout."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            sys.stdout = os.fdopen(writing, "w")
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            status = check.command.main(["shop"], obj=layout, standalone_mode=False)
            sys.stdout.flush()
            os._exit(status)
        finally:
            os._exit(99)
    os.close(writing)
    with open(reading) as file:
        text = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def test_check_by_somebody_who_may_not_write_there() -> None:
    """Says what it sees, and what it does not know."""
    with tempfile.TemporaryDirectory(prefix="swapd-check-") as directory:
        os.chmod(directory, 0o755)  # noqa: S103 - for another user to pass
        scratch = Scratch(Path(directory) / "root")
        write_tree(scratch.live(), OLD)
        scratch.add_site()
        status, text = check_as_nobody(scratch.layout)
        assert status == 0, text
        assert "(not-tried)" in text
        assert "sudo swapd check shop" in text
        with tmpfs(scratch.live() / "media"):
            status, text = check_as_nobody(scratch.layout)
        assert status == 1, text
        assert "live-is-mounted" in text

"""A live path that somebody changed by hand since the last deployment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from swapd.model.release import Outcome
from tests.support.mounts import tmpfs
from tests.support.sites import Scratch, leftovers
from tests.support.tarballs import drop, release_of, site_content, touch, write_tarball
from tests.support.trees import snapshot, texts, write_tree
from tests.support.waiting import wait_until

BY_HAND = {"index.html": "by hand"}
Change = Callable[[Scratch], None]


def make(scratch: Scratch, name: str) -> Path:
    return write_tarball(scratch.root / f"{name}.tar.gz", site_content(name))


def take_away(scratch: Scratch) -> None:
    """Wherever it goes, it is not swapd's any more."""
    scratch.live().rename(scratch.root / "away")


def another_directory(scratch: Scratch) -> None:
    take_away(scratch)
    write_tree(scratch.live(), BY_HAND)


def another_link(scratch: Scratch) -> None:
    take_away(scratch)
    scratch.live().symlink_to(write_tree(scratch.root / "elsewhere", BY_HAND))


def a_link_to_a_kept_release(scratch: Scratch) -> None:
    take_away(scratch)
    scratch.live().symlink_to(scratch.releases() / scratch.state().previous[0])


def a_dangling_link(scratch: Scratch) -> None:
    take_away(scratch)
    scratch.live().symlink_to("nowhere")


CHANGES: dict[Change, str] = {
    another_directory: "another directory",
    another_link: "a symbolic link to ",
    a_link_to_a_kept_release: "a symbolic link to ",
    a_dangling_link: "which leads to no directory",
    take_away: "not there",
}


@pytest.fixture(params=["exchange", "symlink"])
def shop(request: pytest.FixtureRequest, scratch: Scratch) -> Scratch:
    """With a live release and a kept one."""
    if request.param != "symlink":
        write_tree(scratch.live(), {"index.html": "adopted"})
    scratch.add_site(strategy=request.param)
    scratch.deploy(make(scratch, "one"), make(scratch, "two"))
    return scratch


def everything(scratch: Scratch) -> dict[str, object]:
    """All trees and the link, for a comparison."""
    live = scratch.live()
    link = os.readlink(live) if live.is_symlink() else ""
    tree = snapshot(live) if live.is_dir() else {}
    return {"link": link, **tree, "kept": {name: snapshot(scratch.releases() / name) for name in kept(scratch)}}


def kept(scratch: Scratch) -> list[str]:
    return sorted(name for name in os.listdir(scratch.releases()) if not name.startswith("."))


@pytest.mark.parametrize("change", [*CHANGES][:-1], ids=lambda change: change.__name__)
def test_it_is_refused_and_nothing_is_touched(shop: Scratch, change: Change) -> None:
    change(shop)
    before = everything(shop)
    done = shop.run("deploy", "shop", make(shop, "three"))
    assert done.returncode == 1
    assert CHANGES[change] in done.stderr
    assert release_of(shop.root / "two.tar.gz") in done.stderr
    assert f"swapd init shop --live {shop.live()}" in done.stderr
    assert shop.deployments()[0].problem == "live-changed"
    assert everything(shop) == before
    assert leftovers(shop.releases()) == []
    assert shop.run("rollback", "shop").returncode == 1
    assert everything(shop) == before
    # It can be seen beforehand.
    assert CHANGES[change] in shop.run("status").stdout
    (site,) = shop.json("status")["sites"]
    assert CHANGES[change] in site["drift"][0]


@pytest.mark.parametrize("how", ["deploy", "rollback"])
def test_where_nothing_stands_a_release_is_put(shop: Scratch, how: str) -> None:
    is_link = shop.live().is_symlink()
    take_away(shop)
    assert "swapd rollback shop" in shop.run("status").stdout
    arguments = ["deploy", "shop", make(shop, "three")] if how == "deploy" else ["rollback", "shop"]
    done = shop.run(*arguments)
    assert done.returncode == 0, done
    state = shop.state()
    assert state.live
    # Only the link was taken away: what it led to is the newest that is kept.
    back = "two" if is_link else "one"
    assert texts(shop.live()) == site_content("three" if how == "deploy" else back)
    assert shop.json("status")["sites"][0]["drift"] == []
    assert is_link or texts(shop.root / "away") == site_content("two"), "what was taken away is where it was"


@pytest.mark.root
def test_where_its_filesystem_is_not_mounted_it_is_refused(scratch: Scratch) -> None:
    """What would be put there now, nobody could see later."""
    with tmpfs(scratch.www):
        scratch.add_site()
        scratch.deploy(make(scratch, "one"))
    done = scratch.run("deploy", "shop", make(scratch, "two"))
    assert done.returncode == 1
    assert scratch.deployments()[0].problem == "live-changed"
    assert not scratch.live().exists()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_it_can_be_adopted(shop: Scratch, change: Change) -> None:
    change(shop)
    found = texts(shop.live()) if shop.live().is_dir() else {}
    old = shop.state()
    assert old.live
    done = shop.run("init", "shop", "--live", shop.live())
    assert done.returncode == 0, done
    assert "taken over" in done.stdout or "from now on" in done.stdout
    state = shop.state()
    if change is a_link_to_a_kept_release:
        assert state.live
        assert state.live.release == old.previous[0]
    elif change in (take_away, a_dangling_link):
        assert state.live is None
    else:
        assert state.live
        assert state.live.release.startswith("adopted@")
    assert shop.json("status")["sites"][0]["drift"] == []
    if change is a_dangling_link:
        return  # which is no directory still: its deployment would say so
    three = make(shop, "three")
    assert shop.run("deploy", "shop", three).returncode == 0
    assert texts(shop.live()) == site_content("three")
    state = shop.state()
    held = [texts(shop.releases() / name) for name in state.previous]
    assert not found or found in held, "what people had there is kept"
    is_there_still = (shop.releases() / old.live.release).exists()
    assert not is_there_still or old.live.release in state.previous
    assert "it is live" in shop.run("prune", "shop").stdout
    again = shop.run("init", "shop", "--live", shop.live()).stdout
    assert "taken over" not in again


def test_a_daemon_says_so_and_goes_on_once_it_is_adopted(shop: Scratch) -> None:
    daemon = shop.start_daemon()
    another_directory(shop)
    upload = drop(make(shop, "three"), shop.incoming)
    marker = shop.wait_marker("three.tar.gz.failed")
    assert marker["problem"] == "live-changed"
    assert upload.exists()
    assert shop.run("init", "shop", "--live", shop.live()).returncode == 0
    daemon.wait_status("adopted@", patience=10)
    touch(upload)
    shop.wait_marker("three.tar.gz.live")
    assert BY_HAND in [texts(shop.releases() / name) for name in shop.state().previous]


def test_always_adopted_where_the_site_says_so(shop: Scratch) -> None:
    strategy = "exchange"
    shop.configure(drift="adopt", strategy=strategy)
    another_directory(shop)
    daemon = shop.start_daemon()
    drop(make(shop, "three"), shop.incoming)
    shop.wait_marker("three.tar.gz.live")
    assert "taken for the release adopted@" in daemon.log()
    assert BY_HAND in [texts(shop.releases() / name) for name in shop.state().previous]
    assert shop.deployments()[0].outcome is Outcome.LIVE


class TestNoDrift:
    """What looks like a change and is none."""

    def test_another_link_to_the_same_tree(self, scratch: Scratch) -> None:
        scratch.add_site()
        scratch.deploy(make(scratch, "one"))
        target = scratch.live().resolve()
        scratch.live().unlink()
        scratch.live().symlink_to(target)
        scratch.deploy(make(scratch, "two"))
        assert scratch.json("status")["sites"][0]["drift"] == []

    def test_a_tree_that_came_back_from_a_backup_under_its_name(self, scratch: Scratch) -> None:
        scratch.add_site()
        scratch.deploy(make(scratch, "one"))
        target = scratch.live().resolve()
        shutil.copytree(target, scratch.root / "backup", symlinks=True)
        shutil.rmtree(target)
        (scratch.root / "backup").rename(target)
        scratch.deploy(make(scratch, "two"))

    def test_a_live_path_that_moved_with_its_configuration(self, scratch: Scratch) -> None:
        scratch.add_site()
        scratch.deploy(make(scratch, "one"))
        scratch.configure(live=str(scratch.www / "other"))
        scratch.deploy(make(scratch, "two"))

    def test_a_further_live_path_that_is_new(self, scratch: Scratch) -> None:
        scratch.add_site()
        content = {**site_content("one"), "bin/tool": "one"}
        scratch.deploy(write_tarball(scratch.root / "one.tar.gz", content))
        write_tree(scratch.www / "second", {"tool": "by hand"})
        scratch.configure(path=[{"live": str(scratch.www / "second"), "part": "bin"}])
        content = {**site_content("two"), "bin/tool": "two"}
        scratch.deploy(write_tarball(scratch.root / "two.tar.gz", content))
        assert texts(scratch.www / "second") == {"tool": "two"}
        (scratch.www / "second").rename(scratch.root / "away")
        done = scratch.run("deploy", "shop", write_tarball(scratch.root / "three.tar.gz", content))
        assert "second is not there" in done.stderr

    def test_before_the_first_deployment_everything_is_as_people_have_it(self, scratch: Scratch) -> None:
        write_tree(scratch.live(), BY_HAND)
        scratch.add_site()
        assert scratch.json("status")["sites"][0]["drift"] == []
        scratch.deploy(make(scratch, "one"))
        wait_until(lambda: scratch.state().live, "it to be live")

"""Records that are missing, damaged or of a newer version; and directories of swapd's own that are gone."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from swapd.host.presence import find_daemon
from swapd.model.release import Outcome
from tests.support.sites import Scratch, leftovers
from tests.support.tarballs import drop, release_of, site_content, write_tarball
from tests.support.trees import texts, write_tree
from tests.support.waiting import wait_until

Damage = Callable[[Path], object]

DAMAGES: dict[str, Damage] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(500)),
    "without its end": lambda path: path.write_bytes(path.read_bytes()[: path.read_bytes().rfind(b"\n[")]),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:150]),
    "wrong type": lambda path: path.write_text(re.sub(r'(?m)^release = ".*"$', "release = 7", path.read_text())),
    "not text": lambda path: path.write_bytes(b"\xff\xfe" * 99),
}


def make(scratch: Scratch, name: str) -> Path:
    return write_tarball(scratch.root / f"{name}.tar.gz", site_content(name))


class Shop:
    """A site with an adopted tree, two kept releases and a live one, one of them pinned."""

    def __init__(self, scratch: Scratch, strategy: str) -> None:
        self.scratch = scratch
        write_tree(scratch.live(), {"index.html": "by hand"})
        scratch.add_site(strategy=strategy)
        self.tarballs = [make(scratch, name) for name in ("one", "two", "three")]
        scratch.deploy(*self.tarballs)
        assert scratch.run("pin", "shop", "one").returncode == 0
        self.before = scratch.state()
        self.record = scratch.layout.site_record("shop")

    def next(self) -> None:
        """A further deployment goes well, and loses nobody."""
        four = make(self.scratch, "four")
        done = self.scratch.run("deploy", "shop", four)
        assert done.returncode == 0, done
        assert texts(self.scratch.live()) == site_content("four")
        assert leftovers(self.scratch.releases()) == []
        held = [texts(self.scratch.releases() / item) for item in self.scratch.state().previous]
        for name in ("one", "two", "three"):
            assert site_content(name) in held
        assert {"index.html": "by hand"} in held


@pytest.fixture(params=["exchange", "symlink"])
def shop(request: pytest.FixtureRequest, scratch: Scratch) -> Shop:
    return Shop(scratch, request.param)


@pytest.mark.parametrize(
    ("strategy", "damage"), [("symlink", "missing"), *(("exchange", damage) for damage in DAMAGES)], ids="-".join
)
def test_the_state_is_rebuilt_from_what_is_on_the_disk(scratch: Scratch, strategy: str, damage: str) -> None:
    shop = Shop(scratch, strategy)
    DAMAGES[damage](shop.record)
    content = shop.record.read_bytes() if damage != "missing" else b""
    daemon = scratch.start_daemon()
    wait_until(lambda: "By what is on the disk" in daemon.log(), "the rebuild")
    wait_until(lambda: not daemon.workers(), "the end of it")
    state = scratch.state()
    assert state.live
    assert shop.before.live
    assert (state.live.release, state.live.digest) == (shop.before.live.release, shop.before.live.digest)
    assert state.live.since == scratch.deployments()[0].ended
    assert state.previous == shop.before.previous
    assert set(state.pinned) == set(state.previous), "nobody knows which were"
    aside = [path for path in shop.record.parent.iterdir() if "damaged" in path.name]
    assert [path.read_bytes() for path in aside] == ([content] if content or damage == "empty" else [])
    daemon.wait_status(f"{state.live.release} live since")
    assert daemon.stop() == 0
    shop.next()


def test_a_command_rebuilds_as_well_and_status_says_what_is_wrong(scratch: Scratch) -> None:
    shop = Shop(scratch, "exchange")
    scratch.add_site("blog")
    shop.record.write_bytes(b"")
    done = scratch.run("status")
    assert done.returncode == 1
    assert str(shop.record) in done.stdout
    assert "blog" in done.stdout, "one bad record hides no other site"
    shop.next()
    assert scratch.run("status").returncode == 0


def test_what_is_unchanged_is_known_again(shop: Shop) -> None:
    shop.record.unlink()
    done = shop.scratch.run("deploy", "shop", shop.tarballs[2])
    assert done.returncode == 0
    assert "is live already" in done.stdout


def test_everything_that_swapd_wrote_down_is_gone(shop: Shop) -> None:
    scratch = shop.scratch
    is_link = scratch.live().is_symlink()
    shutil.rmtree(scratch.layout.state)
    shutil.rmtree(scratch.layout.run)
    assert scratch.run("status").returncode == 0
    assert scratch.run("prune", "shop").returncode == 0
    state = scratch.state()
    assert state.live
    assert shop.before.live
    # A directory does not say which release it is; a link does.
    expected = shop.before.live.release if is_link else "adopted"
    assert state.live.release.startswith(expected)
    assert set(state.previous) == set(shop.before.previous)
    shop.next()


def test_a_daemon_that_loses_its_directories_goes_on(scratch: Scratch) -> None:
    Shop(scratch, "exchange")
    daemon = scratch.start_daemon()
    shutil.rmtree(scratch.layout.state)
    shutil.rmtree(scratch.layout.run)
    four = make(scratch, "four")
    drop(four, scratch.incoming)
    scratch.wait_marker("four.tar.gz.live")
    wait_until(lambda: find_daemon(scratch.layout) == daemon.process.pid, "others to see that it runs")
    held = [texts(scratch.releases() / item) for item in scratch.state().previous]
    assert site_content("three") in held
    assert daemon.is_alive()


class TestNewer:
    """A record of a newer version is no damage: the deployments of that site, and of no other, wait for it."""

    @staticmethod
    def make_newer(path: Path) -> None:
        path.write_text(path.read_text().replace("version = 1", "version = 2", 1))

    def test_of_the_state(self, scratch: Scratch) -> None:
        shop = Shop(scratch, "exchange")
        blog = scratch.add_site("blog")
        self.make_newer(shop.record)
        before = shop.record.read_bytes()
        daemon = scratch.start_daemon()
        four = make(scratch, "four")
        drop(four, scratch.incoming)
        drop(four, blog)
        scratch.wait_marker("four.tar.gz.live", "blog")
        wait_until(lambda: "has version 2" in daemon.log(), "it to be said")
        done = scratch.run("deploy", "shop", four)
        assert done.returncode == 1
        assert "has version 2" in done.stderr
        assert texts(scratch.live()) == site_content("three")
        assert shop.record.read_bytes() == before
        assert (scratch.incoming / "four.tar.gz").exists()
        shop.record.write_text(shop.record.read_text().replace("version = 2", "version = 1", 1))
        scratch.wait_marker("four.tar.gz.live")

    def test_of_a_deployment(self, scratch: Scratch) -> None:
        Shop(scratch, "symlink")
        closed, other = (scratch.layout.deployments("shop") / f"{item.id}.toml" for item in scratch.deployments()[:2])
        self.make_newer(closed)
        assert scratch.run("deploy", "shop", make(scratch, "four")).returncode == 0, "what is over is over"
        other.write_text(other.read_text().replace("is_closed = true", "is_closed = false"))
        self.make_newer(other)
        done = scratch.run("deploy", "shop", make(scratch, "five"))
        assert done.returncode == 1
        assert "has version 2" in done.stderr
        assert texts(scratch.live()) == site_content("four")


@pytest.mark.parametrize("damage", ["empty", "without its end", "wrong type"])
def test_the_record_of_a_deployment(scratch: Scratch, damage: str) -> None:
    """Of one that is not over, that is: what it did is told by what it left."""
    shop = Shop(scratch, "exchange")
    path = scratch.layout.deployments("shop") / f"{scratch.deployments()[1].id}.toml"
    path.write_text(path.read_text().replace("is_closed = true", "is_closed = false"))
    DAMAGES[damage](path)
    daemon = scratch.start_daemon()
    wait_until(lambda: "is damaged and lies beside" in daemon.log(), "it to be said")
    wait_until(lambda: not daemon.workers(), "the end of it")
    daemon.stop()
    assert [item.name for item in path.parent.iterdir() if item.name.startswith(f"{path.name}.damaged")]
    shop.next()
    assert all(item.outcome is Outcome.LIVE for item in scratch.deployments())


class TestOrphans:
    """What a swap left, where the record of its deployment is lost."""

    def test_a_tree_is_kept(self, scratch: Scratch) -> None:
        shop = Shop(scratch, "exchange")
        orphan = {"index.html": "who knows"}
        write_tree(scratch.releases() / ".staged-11111111-2222-3333-4444-555555555555", orphan)
        (scratch.releases() / ".link-11111111-2222-3333-4444-555555555555").symlink_to("nowhere")
        shop.next()
        state = scratch.state()
        (adopted,) = [item for item in state.previous if texts(scratch.releases() / item) == orphan]
        assert adopted.startswith("adopted@")
        assert adopted in state.pinned

    def test_what_was_live_is_live_again(self, scratch: Scratch) -> None:
        shop = Shop(scratch, "rename")
        scratch.live().rename(scratch.releases() / ".outgoing-11111111-2222-3333-4444-555555555555")
        daemon = scratch.start_daemon()
        drop(make(scratch, "four"), scratch.incoming)
        scratch.wait_live(release_of(scratch.root / "four.tar.gz"))
        assert "was missing, and is what it was" in daemon.log()
        daemon.stop()
        assert site_content("three") in [texts(scratch.releases() / item) for item in scratch.state().previous]
        assert shop.before.live
        assert shop.before.live.release in scratch.state().previous


def test_no_locks_are_left_to_mislead(scratch: Scratch) -> None:
    """A lock file that somebody removed while it was held protects nobody: the next one is another file."""
    scratch.add_site()
    scratch.deploy(make(scratch, "one"))
    for path in scratch.layout.run.iterdir():
        path.unlink()
    os.rmdir(scratch.layout.run)
    assert scratch.run("deploy", "shop", make(scratch, "two")).returncode == 0


def test_a_mistake_in_one_sites_file_hides_no_other_site_and_keeps_nobody_from_rolling_it_back(shop: Shop) -> None:
    scratch = shop.scratch
    scratch.add_site("blog")
    wrong = scratch.layout.site_file("blog")
    wrong.write_text("kept = 3\n" + wrong.read_text())
    done = scratch.run("status")
    assert done.returncode == 78
    assert release_of(shop.tarballs[2]) in done.stdout
    assert f"{wrong}:1: kept" in done.stderr
    found = scratch.json("status", status=78)
    assert [site["site"] for site in found["sites"]] == ["shop"]
    assert [(issue["file"], issue["line"], issue["key"]) for issue in found["issues"]] == [(str(wrong), 1, "kept")]
    assert scratch.run("rollback", "shop").returncode == 0
    assert texts(scratch.live()) == site_content("two")
    assert scratch.json("status", "shop")["issues"] == []
    assert scratch.run("rollback", "blog").returncode == 78
    # What all of them may be other sites without.
    scratch.layout.defaults_file.write_text("kept = 3\n")
    assert scratch.run("rollback", "shop").returncode == 78
    assert release_of(shop.tarballs[1]) not in scratch.run("status").stdout

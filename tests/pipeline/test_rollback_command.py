"""``swapd rollback``: a kept release live again, what is remembered of it, and its exit statuses."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from swapd.host.files import locked
from swapd.model.record import Kind
from swapd.model.release import Outcome
from tests.support.httpd import Httpd
from tests.support.sites import Scratch, leftovers
from tests.support.tarballs import digest_of, release_of, site_content, write_tarball
from tests.support.trees import snapshot, texts, write_tree

STRATEGIES = ["symlink", "exchange", "rename", "pinned"]


class Shop:
    """A site with the releases shop-1, shop-2 and so on, deployed one after the other."""

    def __init__(self, scratch: Scratch, count: int, httpd: str = "", part: str = "", **keys: object) -> None:
        self.scratch = scratch
        paths = [{"live": str(scratch.www / "second"), "part": part}] if part else []
        scratch.add_site(httpd=httpd, path=paths, **keys)
        self.tarballs = [
            write_tarball(scratch.root / f"shop-{number}.tar.gz", self.content(number))
            for number in range(1, count + 1)
        ]
        scratch.deploy(*self.tarballs)

    @staticmethod
    def content(number: int) -> dict[str, str]:
        return {**site_content(f"release {number}"), "bin/tool.cgi": f"release {number}"}

    def id(self, number: int) -> str:
        return release_of(self.tarballs[number - 1])

    def roll_back(self, *arguments: str, status: int = 0) -> str:
        """What the command says; its exit status is ``status``."""
        done = self.scratch.run("rollback", "shop", *arguments)
        assert done.returncode == status, done
        assert "Traceback" not in done.stderr
        return done.stdout if status == 0 else done.stderr

    def live(self) -> int:
        """The number of the release that visitors get, whole."""
        found = texts(self.scratch.live())
        number = int(found["index.html"].removeprefix("<h1>release ").removesuffix("</h1>\n"))
        assert found == self.content(number)
        return number

    @property
    def kept(self) -> list[int]:
        return [int(item.removeprefix("shop-").partition("@")[0]) for item in self.scratch.state().previous]

    def bad(self) -> set[str]:
        return set(self.scratch.state().bad)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_release_before_is_live_again(scratch: Scratch, httpd: Httpd, strategy: str) -> None:
    write_tree(scratch.live(), {"index.html": "by hand"})
    shop = Shop(scratch, 2, httpd.name, strategy=strategy)
    trees = {path.name: path.stat().st_ino for path in scratch.releases().iterdir()}
    said = shop.roll_back()
    is_paused = strategy != "pinned"
    how = "4 httpd processes were paused" if is_paused else "nothing was paused"
    assert said.startswith(f"shop: {shop.id(1)} is live again; rolled back from {shop.id(2)}; {how}")
    assert shop.live() == 1
    assert httpd.is_running()
    assert scratch.live().stat().st_ino == trees[shop.id(1)], "its own tree: nothing is copied"
    assert texts(scratch.releases() / shop.id(2)) == shop.content(2)
    assert leftovers(scratch.releases()) == leftovers(scratch.www) == []
    record, *_ = scratch.deployments()
    assert (record.kind, record.outcome) == (Kind.ROLLBACK, Outcome.LIVE)
    assert (record.previous, record.release, record.digest) == (shop.id(2), shop.id(1), digest_of(shop.tarballs[0]))
    assert record.operator
    assert (record.pause is not None) == is_paused
    assert record.is_closed
    assert {"swap", "refresh"} <= {time.stage.value for time in record.stages}
    live = scratch.state().live
    assert live is not None
    assert (live.release, live.digest, live.deployment) == (shop.id(1), record.digest, record.id)
    # And everything goes on as ever.
    assert scratch.run("deploy", "shop", write_tarball(scratch.root / "shop-3.tar.gz", shop.content(3))).returncode == 0
    assert shop.live() == 3
    assert scratch.state().previous[0] == shop.id(1)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_people_had_made_by_hand(scratch: Scratch, strategy: str) -> None:
    before = write_tree(scratch.live(), {"index.html": "by hand"}).stat().st_ino
    shop = Shop(scratch, 1, strategy=strategy)
    assert "adopted@" in shop.roll_back()
    assert texts(scratch.live()) == {"index.html": "by hand"}
    assert scratch.live().stat().st_ino == before
    shop.roll_back("shop-1")
    assert shop.live() == 1


def test_a_link_that_led_elsewhere_leads_there_again(scratch: Scratch) -> None:
    elsewhere = write_tree(scratch.www / "elsewhere", {"index.html": "by hand"})
    scratch.live().symlink_to("elsewhere")
    shop = Shop(scratch, 1)
    shop.roll_back()
    assert scratch.live().resolve() == elsewhere
    shop.roll_back("shop-1")
    assert texts(elsewhere) == {"index.html": "by hand"}


class TestWhatIsBad:
    def test_it_is_skipped_by_the_next_rollback(self, scratch: Scratch) -> None:
        shop = Shop(scratch, 3)
        shop.roll_back()
        assert (shop.live(), shop.bad()) == (2, {shop.id(3)})
        shop.roll_back()
        assert (shop.live(), shop.bad()) == (1, {shop.id(3), shop.id(2)})
        said = shop.roll_back(status=1)
        assert "no release before" in said
        assert shop.id(3) in said
        assert shop.live() == 1
        status = scratch.run("status", "shop").stdout
        assert f"{shop.id(3)} (rolled back from)" in status
        assert set(scratch.json("status", "shop")["sites"][0]["bad"]) == shop.bad()

    def test_to_name_it_is_to_forgive_it(self, scratch: Scratch) -> None:
        shop = Shop(scratch, 3)
        shop.roll_back()
        shop.roll_back("shop-3")
        # The one that was live meanwhile was no worse for it: that it is to be the next again is most likely.
        assert (shop.live(), shop.bad()) == (3, set())
        shop.roll_back()
        assert shop.live() == 2

    def test_so_is_to_deploy_it_again(self, scratch: Scratch) -> None:
        shop = Shop(scratch, 2)
        shop.roll_back()
        assert scratch.run("deploy", "shop", shop.tarballs[1]).returncode == 0
        assert (shop.live(), shop.bad()) == (2, set())


class TestWhichRelease:
    @pytest.mark.parametrize("number", [1, 3])
    def test_by_its_name_or_its_id(self, scratch: Scratch, number: int) -> None:
        shop = Shop(scratch, 4)
        shop.roll_back(f"shop-{number}")
        assert shop.live() == number
        shop.roll_back(shop.id(2)[:-3])
        assert shop.live() == 2

    def test_one_that_is_not_kept_is_a_mistake_on_the_command_line(self, scratch: Scratch) -> None:
        shop = Shop(scratch, 2)
        records = len(scratch.deployments())
        for wanted in ("shop-7", "shop", "--nonsense"):
            said = shop.roll_back(wanted, status=2)
            if not wanted.startswith("-"):
                assert shop.id(1) in said
                assert shop.id(2) in said
        assert (shop.live(), len(scratch.deployments())) == (2, records)

    def test_one_whose_tree_is_gone(self, scratch: Scratch) -> None:
        shop = Shop(scratch, 3)
        shutil.rmtree(scratch.releases() / shop.id(2))
        assert str(scratch.releases() / shop.id(2)) in shop.roll_back("shop-2", status=1)
        assert scratch.deployments()[0].problem == "release-missing"
        assert shop.live() == 3
        shop.roll_back()
        assert shop.live() == 1, "without a name, what is not there is not taken"

    def test_what_is_live_is_left_alone(self, scratch: Scratch, httpd: Httpd) -> None:
        shop = Shop(scratch, 2, httpd.name)
        before = snapshot(scratch.live())
        assert "is live already" in shop.roll_back("shop-2")
        assert scratch.deployments()[0].outcome is Outcome.UNCHANGED
        assert scratch.deployments()[0].pause is None
        assert snapshot(scratch.live()) == before
        assert shop.kept == [1]

    def test_its_tarball_then_changes_nothing(self, scratch: Scratch) -> None:
        shop = Shop(scratch, 2)
        shop.roll_back()
        assert "is live already" in scratch.run("deploy", "shop", shop.tarballs[0]).stdout


class TestSeveralPaths:
    @pytest.mark.parametrize("strategy", ["symlink", "exchange", "rename"])
    def test_all_of_them_go_back_together(self, scratch: Scratch, httpd: Httpd, strategy: str) -> None:
        shop = Shop(scratch, 2, httpd.name, "bin", strategy=strategy)
        shop.roll_back()
        assert texts(scratch.www / "second") == {"tool.cgi": "release 1"}
        assert texts(scratch.live()) == site_content("release 1")
        assert leftovers(scratch.releases()) == leftovers(scratch.www / "second.releases") == []

    def test_a_release_that_was_kept_before_there_was_a_second_one(self, scratch: Scratch) -> None:
        shop = Shop(scratch, 1)
        scratch.configure(path=[{"live": str(scratch.www / "second"), "part": "bin"}])
        two = write_tarball(scratch.root / "shop-2.tar.gz", shop.content(2))
        assert scratch.run("deploy", "shop", two).returncode == 0
        assert str(scratch.www / "second") in shop.roll_back("shop-1", status=1)
        assert scratch.deployments()[0].problem == "release-missing"
        shop.roll_back(status=1)
        assert texts(scratch.live()) == site_content("release 2")
        assert texts(scratch.www / "second") == {"tool.cgi": "release 2"}


class TestTimes:
    def test_every_file_is_newer_than_what_visitors_hold(self, scratch: Scratch) -> None:
        shop = Shop(scratch, 2)
        held = snapshot(scratch.live())
        shop.roll_back()
        found = snapshot(scratch.live())
        for name in shop.content(1):
            assert found[name].mtime_ns // 10**9 > held[name].mtime_ns // 10**9, name

    def test_not_where_they_are_the_archives(self, scratch: Scratch) -> None:
        shop = Shop(scratch, 2, mtime="archive")
        before = snapshot(scratch.releases() / shop.id(1))
        shop.roll_back()
        assert snapshot(scratch.live().resolve()) == before
        assert scratch.deployments()[0].is_closed

    def test_an_older_release_is_no_reason_to_refuse(self, scratch: Scratch) -> None:
        """``newer_only`` is for tarballs."""
        shop = Shop(scratch, 0, verify={"newer_only": True})
        tarballs = []
        for number, age in ((1, 2000), (2, 1000)):
            tree = write_tree(scratch.root / f"tree-{number}", shop.content(number))
            for path in tree.rglob("*"):
                os.utime(path, (time.time() - age, time.time() - age))
            assert scratch.run("pack", tree, "--name", f"shop-{number}").returncode == 0
            tarballs.append(scratch.root / f"shop-{number}.tar.gz")
        for tarball in tarballs:
            assert scratch.run("deploy", "shop", tarball).returncode == 0
        shop.roll_back()
        assert shop.live() == 1
        assert scratch.run("deploy", "shop", tarballs[1]).returncode == 0


def test_one_document_for_programs(scratch: Scratch) -> None:
    shop = Shop(scratch, 2)
    document = scratch.json("rollback", "shop")
    record, *_ = scratch.deployments()
    assert (document["id"], document["kind"], document["outcome"]) == (record.id, "rollback", "live")
    assert (document["release"], document["previous"]) == (shop.id(1), shop.id(2))
    assert document["operator"]
    assert {item["stage"] for item in document["stages"]} == {"verify", "pause", "swap"}
    (newest, *_) = scratch.json("history", "shop")["deployments"]
    assert (newest["id"], newest["kind"], newest["previous"]) == (record.id, "rollback", shop.id(2))
    document = scratch.json("rollback", "shop", status=1)
    assert (document["outcome"], document["problem"]) == ("failed", "nothing-kept")


def test_history_tells_who_did_what_and_how_long_it_took(scratch: Scratch) -> None:
    shop = Shop(scratch, 2)
    shop.roll_back()
    operator = scratch.deployments()[0].operator
    first, second, *_ = [line for line in scratch.run("history", "shop").stdout.splitlines() if "@" in line]
    assert f"live (rollback from {shop.id(2)})" in first
    assert "rollback" not in second
    assert operator in first
    assert operator in second
    first, second, *_ = [line for line in scratch.run("history", "shop", "-v").stdout.splitlines() if "@" in line]
    assert f"run by {operator}" in first
    assert all(stage in first for stage in ("swap", "refresh"))
    assert all(stage in second for stage in ("claim", "verify", "extract", "prepare", "swap"))


def test_busy_is_5_and_may_be_waited_for(scratch: Scratch) -> None:
    shop = Shop(scratch, 2)
    with locked(scratch.layout.site_lock("shop"), "a test"):
        assert "shop" in shop.roll_back(status=5)
        assert "shop" in shop.roll_back("--wait", "0.1", status=5)
        waiting = scratch.start("rollback", "shop", "--wait", "60")
        assert waiting.poll() is None
    assert waiting.wait(60) == 0
    waiting.communicate()
    assert shop.live() == 1


def test_a_host_on_which_it_cannot_be_swapped(scratch: Scratch) -> None:
    """It fails before anything is stopped, and every release is where it was."""
    shop = Shop(scratch, 2, strategy="exchange")
    before = sorted(os.listdir(scratch.releases()))
    scratch.configure(strategy="exchange", releases=str(scratch.root / "elsewhere"))
    shop.roll_back(status=1)
    scratch.configure(strategy="exchange")
    assert shop.live() == 2
    assert sorted(os.listdir(scratch.releases())) == before
    shop.roll_back()
    assert shop.live() == 1


def test_it_serves_beside_the_daemon(scratch: Scratch) -> None:
    shop = Shop(scratch, 2)
    daemon = scratch.start_daemon()
    daemon.wait_status(f"{shop.id(2)} live since")
    shop.roll_back()
    # At once, and not at the next look at everything, which comes every 30 s.
    daemon.wait_status(f"{shop.id(1)} live since", patience=10)

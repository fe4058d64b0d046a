"""The route of a pinned site: the map that names its release, before, amid and after a swap."""

from __future__ import annotations

import os
import stat
import uuid
from pathlib import Path

import pytest

from swapd.context import Context
from swapd.host.renames import is_half_swapped
from swapd.host.routes import TICK, is_astray, is_route_right, lead, read_route
from swapd.model.config import Site, Strategy
from swapd.model.errors import ConfigurationError, Failed
from swapd.model.events import Event
from swapd.model.layout import Layout
from swapd.model.message_ids import MessageId
from swapd.model.record import SiteState
from swapd.model.release import DeploymentId, KeptRelease, ReleaseId, Tree
from swapd.model.route import format_map, parse_map, route_base
from swapd.recover import recover
from swapd.stages import swap
from swapd.stages.choose import choose
from tests.support.sites import leftovers, make_directories, make_site, prepare_route
from tests.support.trees import texts
from tests.unit.test_swap import KEPT, NEW, OLD, RELEASE, abandon, finish, make_live, ready, stage

each_kind = pytest.mark.parametrize("kind", ["missing", "directory", "kept link", "relative link"])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path, strategy="pinned")


def served(site: Site) -> dict[str, str]:
    """What visitors get: by the route, or, without one, the live path."""
    tree = read_route(site.route.map)
    return texts(route_base(site) / tree if tree else site.live)


class TestSwap:
    @each_kind
    def test_visitors_and_the_live_path_have_the_release(self, site: Site, kind: str) -> None:
        make_live(site, kind)
        before = served(site)
        plan = ready(site)
        assert served(site) == before
        swap.commit([plan])
        assert served(site) == texts(site.live) == NEW
        finish(plan)
        assert read_route(site.route.map) == f"shop.releases/{RELEASE}"
        assert site.live.is_symlink()
        assert leftovers(site.route.map.parent) == []

    def test_httpd_may_read_the_map(self, site: Site) -> None:
        make_live(site, "missing")
        old = os.umask(0o077)
        try:
            swap.commit([ready(site)])
        finally:
            os.umask(old)
        assert stat.S_IMODE(site.route.map.stat().st_mode) == 0o644

    def test_no_pause_unless_it_is_asked_for(self, tmp_path: Path) -> None:
        for mode, is_paused in (("auto", False), ("always", True), ("never", False)):
            site = make_site(tmp_path / mode, strategy="pinned", pause={"mode": mode})
            make_live(site, "missing")
            assert swap.is_paused_for(site, [ready(site)]) == is_paused

    def test_a_link_that_cannot_follow_takes_the_route_back(self, site: Site) -> None:
        make_live(site, "kept link")
        prepare_route(Layout(site.route.root))
        lead(site, f"shop.releases/{KEPT}")
        before = site.route.map.stat()
        plan = ready(site)
        assert plan.link is not None
        plan.link.unlink()
        with pytest.raises(FileNotFoundError):
            swap.commit([plan])
        after = site.route.map.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert served(site) == texts(site.live) == OLD
        abandon(plan)
        assert leftovers(site.route.map.parent) == leftovers(site.releases) == []

    def test_another_strategy_leaves_the_route(self, tmp_path: Path) -> None:
        # Otherwise visitors would stay with what it names, whatever goes live.
        pinned = make_site(tmp_path, strategy="pinned")
        make_live(pinned, "missing")
        plan = ready(pinned)
        swap.commit([plan])
        finish(plan)
        site = make_site(tmp_path, strategy="symlink")
        staged, deployment = stage(site, {"index.html": "next"}, KEPT)
        (plan,) = swap.plan(site, staged, [choose(site).strategy], SiteState(), deployment)
        swap.make_ready([plan])
        assert served(site) == NEW
        swap.commit([plan])
        assert served(site) == texts(site.live) == {"index.html": "next"}


class TestCrash:
    @each_kind
    def test_with_the_route_alone(self, site: Site, kind: str) -> None:
        make_live(site, kind)
        plan = ready(site)
        route = plan.intent.swap.route
        assert route is not None
        assert not swap.is_begun(site, [plan.intent])
        os.rename(route.new, route.map)
        assert is_half_swapped(plan.intent.swap)
        assert swap.is_begun(site, [plan.intent])
        assert not swap.is_live(site, [plan.intent])
        finish(plan)
        assert served(site) == texts(site.live) == NEW
        assert leftovers(site.route.map.parent) == leftovers(site.releases) == []

    @pytest.mark.parametrize("has_new_map", [True, False])
    def test_with_the_live_path_alone(self, site: Site, *, has_new_map: bool) -> None:
        # A power cut may keep the later rename and lose the earlier one: they are on two filesystems.
        make_live(site, "kept link")
        plan = ready(site)
        route = plan.intent.swap.route
        assert route is not None
        os.rename(plan.intent.swap.path, site.live)
        if not has_new_map:
            os.unlink(route.new)
        assert swap.is_begun(site, [plan.intent])
        finish(plan)
        assert served(site) == texts(site.live) == NEW

    def test_before_both(self, site: Site) -> None:
        make_live(site, "kept link")
        plan = ready(site)
        abandon(plan)
        assert served(site) == OLD
        assert leftovers(site.route.map.parent) == leftovers(site.releases) == []


class TestMap:
    def test_what_is_written_is_read(self) -> None:
        assert parse_map(format_map("shop", "shop.releases/shop-1@0123456789ab")) == "shop.releases/shop-1@0123456789ab"
        assert parse_map(format_map("shop", "")) == parse_map("") == parse_map("liver x\nlive\nlive \n") == ""

    def test_each_has_a_time_of_its_own(self, site: Site) -> None:
        prepare_route(Layout(site.route.root))
        times = []
        for number in range(20):
            lead(site, f"shop.releases/{number}")
            times.append(site.route.map.stat().st_mtime_ns // 1000)
        assert sorted(set(times)) == times

    def test_a_clock_that_was_set_back_gives_no_older_one(self, site: Site) -> None:
        prepare_route(Layout(site.route.root))
        lead(site, "one")
        ahead = site.route.map.stat().st_mtime_ns + 10**15
        os.utime(site.route.map, ns=(ahead, ahead))
        lead(site, "other")
        assert site.route.map.stat().st_mtime_ns == ahead + TICK


def recovered(site: Site) -> list[Event]:
    events: list[Event] = []
    recover(site, Context(Layout(site.route.root), events.append, lambda *_: None))
    return events


@pytest.mark.parametrize(("kind", "tree"), [("kept link", f"shop.releases/{KEPT}"), ("directory", "")])
def test_a_map_that_was_lost_names_what_is_live(site: Site, kind: str, tree: str) -> None:
    layout = Layout(site.route.root)
    make_live(site, kind)
    make_directories(site, layout)
    prepare_route(layout)
    assert [event.id for event in recovered(site)][-1] is MessageId.RECOVERED
    assert site.route.map.exists()
    assert read_route(site.route.map) == tree
    assert recovered(site) == []


def test_a_map_that_a_crash_left_half_written_is_swept(site: Site) -> None:
    layout = Layout(site.route.root)
    make_live(site, "missing")
    make_directories(site, layout)
    prepare_route(layout)
    lead(site, "")
    for name in (".route.map.0123abcd", ".route.map.mine"):
        site.route.map.with_name(name).touch()
    recovered(site)
    assert leftovers(site.route.map.parent) == [".route.map.mine"]


def test_what_an_adoption_keeps_by_a_link_is_led_to(site: Site) -> None:
    # The live path then leads to the tree itself, and the map to the link among the releases.
    make_live(site, "relative link")
    first = ready(site)
    swap.commit([first])
    adopted = finish(first)
    assert adopted is not None
    kept = KeptRelease(adopted, (Tree(site.releases / adopted),))
    (plan,) = swap.plan(site, kept, [Strategy.PINNED], SiteState(), DeploymentId(str(uuid.uuid4())))
    swap.make_ready([plan])
    swap.commit([plan])
    finish(plan)
    assert served(site) == texts(site.live) == OLD
    assert is_route_right(site)
    assert not is_astray(site)


class TestRefusals:
    def problem(self, site: Site) -> str:
        with pytest.raises(Failed) as caught:
            choose(site)
        assert caught.value.hint
        return caught.value.problem

    def test_a_server_that_includes_nothing_of_it(self, site: Site) -> None:
        make_live(site, "missing")
        assert self.problem(site) == "no-route-file"
        prepare_route(Layout(site.route.root))
        choice = choose(site)
        assert choice.strategy is Strategy.PINNED
        assert choice.doubt, "there is no web server to ask"

    @pytest.mark.parametrize("name", ["my shop", "sh%op", "sh$op", 'sh"op', "sh*op", "sh\\op", "sh[o]p"])
    def test_names_that_no_route_can_have(self, tmp_path: Path, name: str) -> None:
        site = make_site(tmp_path, live=str(tmp_path / "www" / name), strategy="pinned")
        site.live.parent.mkdir(parents=True)
        assert self.problem(site) == "cannot-route"

    def test_several_live_paths(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="several"):
            make_site(tmp_path, strategy="pinned", path=[{"live": str(tmp_path / "other/place"), "part": "bin"}])

    def test_releases_elsewhere_on_the_filesystem(self, tmp_path: Path) -> None:
        site = make_site(tmp_path, strategy="pinned", releases=str(tmp_path / "kept/shop"))
        site.releases.parent.mkdir()
        make_live(site, "directory")
        plan = ready(site)
        swap.commit([plan])
        finish(plan)
        assert read_route(site.route.map) == f"kept/shop/{RELEASE}"
        assert served(site) == texts(site.live) == NEW


def test_the_release_that_is_live_may_be_deployed_again(site: Site) -> None:
    make_live(site, "missing")
    for content in (NEW, OLD, NEW):
        plan = ready(site, content)
        swap.commit([plan])
        finish(plan)
        assert served(site) == texts(site.live) == content
    assert ReleaseId(os.path.basename(os.path.realpath(site.live))) == RELEASE

"""A kept release goes live again, in every way: no kept tree is ever lost, whatever comes in between."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from swapd.host.files import identify
from swapd.model.config import Site
from swapd.model.control import RollbackRequest
from swapd.model.layout import Layout
from swapd.model.record import LiveRelease, LiveTree, SiteState, now
from swapd.model.release import DeploymentId, ReleaseId
from swapd.stages import swap
from swapd.stages.choose import choose
from swapd.stages.recall import choose_release, recall
from tests.support.sites import leftovers, make_site, prepare_route
from tests.support.trees import snapshot, texts, write_tree

LIVE, KEPT = ReleaseId("shop-2@222222222222"), ReleaseId("shop-1@111111111111")
NEW, OLD = {"index.html": "new", "sub/page.html": "new"}, {"index.html": "old", "upload/photo.jpg": "precious"}
STRATEGIES = ["auto", "symlink", "exchange", "rename", "pinned"]
# A route leads to one tree: pinned has no further live paths.
WAYS = [
    (strategy, several)
    for strategy in STRATEGIES
    for several in (False, True)
    if (strategy, several) != ("pinned", True)
]
PART = "bin"

Plans = tuple[swap.Plan, ...]


class Kept:
    """A site with a live release and a kept one, which may be a link to elsewhere, as what an adoption has kept is."""

    def __init__(self, root: Path, strategy: str, live: str, kept: str, *, several: bool = False) -> None:
        paths = [{"live": str(root / "other/place"), "part": PART}] if several else []
        self.site = make_site(root, strategy=strategy, path=paths)
        prepare_route(Layout(root))
        for part in self.site.parts:
            part.live.parent.mkdir(parents=True)
            part.releases.mkdir()
            if live == "link":
                part.live.symlink_to(write_tree(part.releases / LIVE, NEW))
            else:
                write_tree(part.live, NEW)
            place = part.releases / KEPT
            if kept == "link":
                place.symlink_to(write_tree(part.live.parent / "elsewhere", OLD))
            else:
                write_tree(place, OLD)
        tree = identify(self.site.live)
        self.state = SiteState(LiveRelease(LIVE, None, DeploymentId("x"), now(), tree), (KEPT,))
        if several:
            others = tuple(live_tree(part) for part in self.site.parts[1:])
            assert self.state.live is not None
            self.state = replace(self.state, live=replace(self.state.live, others=others))
        self.deployment = DeploymentId(str(uuid.uuid4()))

    def plan(self) -> Plans:
        release = choose_release(RollbackRequest(), self.site, self.state)
        strategies = [choose(part).strategy for part in self.site.parts]
        return swap.plan(self.site, recall(release, self.site), strategies, self.state, self.deployment)

    def ready(self) -> Plans:
        plans = self.plan()
        swap.make_ready(plans)
        return plans

    def everything(self) -> list[object]:
        return [snapshot(part.live.parent, times=False) for part in self.site.parts]

    def abandon(self, plans: Plans) -> None:
        swap.abandon(self.site, self.deployment, [plan.intent for plan in plans])

    def check_live_again(self) -> None:
        for part in self.site.parts:
            assert texts(part.live) == OLD
            assert texts(part.releases / LIVE) == NEW
            assert leftovers(part.releases) == leftovers(part.live.parent) == []


def live_tree(part: Site) -> LiveTree:
    """What the state says of a further live path."""
    return LiveTree(str(part.live), identify(part.live))


@pytest.fixture
def kept(tmp_path: Path, strategy: str, live: str, tree: str, several: bool) -> Kept:
    return Kept(tmp_path, strategy, live, tree, several=several)


@pytest.mark.parametrize("tree", ["directory", "link"])
@pytest.mark.parametrize("live", ["directory", "link"])
@pytest.mark.parametrize(("strategy", "several"), WAYS)
class TestEveryWay:
    def test_it_is_live_by_its_own_tree_and_what_was_live_is_kept(self, kept: Kept) -> None:
        trees = [identify(part.releases / KEPT) for part in kept.site.parts]
        olds = [identify(part.live) for part in kept.site.parts]
        plans = kept.ready()
        assert all(texts(part.live) == NEW for part in kept.site.parts), "nothing has happened yet"
        swap.commit(plans)
        intents = [plan.intent for plan in plans]
        assert swap.is_live(kept.site, intents)
        assert swap.finish(kept.site, intents) == (LIVE,)
        kept.check_live_again()
        # The very trees: nothing is copied.
        assert [identify(part.live) for part in kept.site.parts] == trees
        assert [identify(part.releases / LIVE) for part in kept.site.parts] == olds
        before = kept.everything()
        assert swap.finish(kept.site, intents) == (LIVE,)
        assert kept.everything() == before

    @pytest.mark.parametrize("when", ["planned", "ready"])
    def test_what_is_abandoned_before_is_as_it_was(self, kept: Kept, when: str) -> None:
        before = kept.everything()
        plans = kept.ready() if when == "ready" else kept.plan()
        kept.abandon(plans)
        assert kept.everything() == before
        kept.abandon(plans)
        assert kept.everything() == before

    def test_what_is_live_is_never_abandoned(self, kept: Kept) -> None:
        plans = kept.ready()
        swap.commit(plans)
        before = kept.everything()
        kept.abandon(plans)
        assert kept.everything() == before
        swap.finish(kept.site, [plan.intent for plan in plans])
        kept.abandon(plans)
        kept.check_live_again()

    def test_there_and_back_again(self, kept: Kept) -> None:
        before = [texts(part.live) for part in kept.site.parts]
        for _ in range(2):
            plans = kept.ready()
            swap.commit(plans)
            (outgoing,) = swap.finish(kept.site, [plan.intent for plan in plans])
            live = LiveRelease(
                KEPT if outgoing == LIVE else LIVE, None, kept.deployment, now(), identify(kept.site.live)
            )
            others = tuple(live_tree(part) for part in kept.site.parts[1:])
            kept.state = SiteState(replace(live, others=others), (outgoing,))
        assert [texts(part.live) for part in kept.site.parts] == before
        assert all(texts(part.releases / KEPT) == OLD for part in kept.site.parts)


@pytest.mark.parametrize("strategy", ["exchange", "rename"])
class TestGivingItsNameBack:
    def test_when_the_configuration_has_lost_the_path(self, tmp_path: Path, strategy: str) -> None:
        """What was written down has the paths: a kept tree is not left under a name that nobody looks for."""
        kept = Kept(tmp_path, strategy, "directory", "directory", several=True)
        before = kept.everything()
        plans = kept.ready()
        now_without = replace(kept.site, paths=())
        swap.abandon(now_without, kept.deployment, [plan.intent for plan in plans])
        assert kept.everything() == before

    def test_when_somebody_has_taken_it(self, tmp_path: Path, strategy: str) -> None:
        kept = Kept(tmp_path, strategy, "directory", "directory")
        plans = kept.ready()
        place = write_tree(kept.site.releases / KEPT, {"index.html": "by somebody"})
        with pytest.raises(OSError, match=r"empty|exists"):
            kept.abandon(plans)
        assert texts(place) == {"index.html": "by somebody"}
        assert texts(plans[0].path) == OLD
        shutil.rmtree(place)
        kept.abandon(plans)
        assert texts(kept.site.releases / KEPT) == OLD

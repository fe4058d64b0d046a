"""Several live paths of one site: swapped together or not at all, on a real filesystem."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from swapd.host import renames
from swapd.host.files import identify
from swapd.host.renames import put_back
from swapd.model.config import Site
from swapd.model.record import How, LiveRelease, LiveTree, SiteState, now
from swapd.model.release import DeploymentId, ReleaseId, StagedRelease, Tree
from swapd.stages import swap
from swapd.stages.choose import choose
from swapd.stages.prune import releases_to_prune, remove_aside, set_abandoned_aside, set_aside
from tests.support.mounts import bind
from tests.support.sites import leftovers, make_site
from tests.support.trees import Entry, snapshot, texts, write_tree

KINDS = ("missing", "directory", "link")
STRATEGIES = ("auto", "symlink", "exchange", "rename")
PARTS = ("", "cgi", "data/static")
RELEASE = ReleaseId("shop-2@222222222222")
# Which of the live paths is of which kind; what comes last is the one of `live`.
PAIRS = list(itertools.product(KINDS, repeat=2))
TRIPLES = list(itertools.product(KINDS, repeat=3))

each_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
each_pair = pytest.mark.parametrize("kinds", PAIRS, ids="-".join)


def content(part: str, mark: str) -> dict[str, str]:
    """What belongs to this part of a release, and to no other."""
    return {"index.html": f"{mark} {part}", f"sub/{part.replace('/', '-') or 'main'}": mark}


class Several:
    """A site with live paths of these kinds, each beside its own releases."""

    def __init__(self, root: Path, kinds: tuple[str, ...], strategy: str) -> None:
        self.root = root
        paths = [{"live": str(root / f"other{number}/place"), "part": part} for number, part in enumerate(PARTS[1:])]
        self.site = make_site(root, strategy=strategy, path=paths[: len(kinds) - 1])
        self.state = SiteState()
        for part, kind in zip(self.site.parts, kinds, strict=True):
            part.live.parent.mkdir(parents=True)
            part.releases.mkdir()
            if kind == "directory":
                write_tree(part.live, content(part.part, "old"))
            elif kind == "link":
                write_tree(part.live.with_name("by hand"), content(part.part, "old"))
                part.live.symlink_to("by hand")
        self.before = self.snapshots()

    @property
    def parts(self) -> tuple[Site, ...]:
        return self.site.parts

    def snapshots(self) -> list[dict[str, Entry]]:
        """What stands in all the places, live paths and releases alike; links are not followed."""
        return [snapshot(part.live.parent, times=False) for part in self.parts]

    def plan(self, release: ReleaseId = RELEASE, mark: str = "new") -> tuple[swap.Plan, ...]:
        """Staged, as the stages before leave it, and planned."""
        self.deployment = DeploymentId(str(uuid.uuid4()))
        trees = [
            Tree(write_tree(part.releases / f".staging-{self.deployment}", content(part.part, mark)))
            for part in self.parts
        ]
        strategies = [choose(part).strategy for part in self.parts]
        plans = swap.plan(self.site, StagedRelease(release, tuple(trees)), strategies, self.state, self.deployment)
        swap.make_ready(plans)
        return plans

    def deploy(self, release: ReleaseId, mark: str) -> tuple[ReleaseId, ...]:
        """A whole deployment, and its record; which releases it took the place of."""
        plans = self.plan(release, mark)
        swap.commit(plans)
        outgoing = swap.finish(self.site, intents(plans))
        others = tuple(LiveTree(str(path.live), identify(path.live)) for path in self.site.paths)
        live = LiveRelease(release, None, self.deployment, now(), identify(self.site.live), others=others)
        previous = dict.fromkeys((*outgoing, *self.state.previous))
        self.state = SiteState(live, tuple(item for item in previous if item != release))
        return outgoing

    def abandon(self, plans: tuple[swap.Plan, ...]) -> None:
        swap.abandon(self.site, self.deployment, intents(plans))

    def is_old(self) -> bool:
        """Whether everything is as it was, but for what is staged."""
        after = self.snapshots()
        return all(
            name in now and now[name] == entry
            for now, then in zip(after, self.before, strict=True)
            for name, entry in then.items()
            if name != "." and not name.endswith(".releases")
        )

    def is_all(self, mark: str) -> bool:
        return all(part.live.is_dir() and texts(part.live) == content(part.part, mark) for part in self.parts)

    def check_tidy(self) -> None:
        for part in self.parts:
            assert leftovers(part.releases) == leftovers(part.live.parent) == []


def intents(plans: tuple[swap.Plan, ...]) -> tuple[swap.SwapIntent, ...]:
    return tuple(plan.intent for plan in plans)


@each_strategy
@pytest.mark.parametrize("kinds", [*PAIRS, *TRIPLES], ids="-".join)
def test_all_are_swapped_together_and_the_old_ones_kept(tmp_path: Path, kinds: tuple[str, ...], strategy: str) -> None:
    several = Several(tmp_path, kinds, strategy)
    kept = [snapshot(part.live.resolve()) if part.live.exists() else None for part in several.parts]
    plans = several.plan()
    assert several.is_old(), "nothing has happened yet"
    assert not swap.is_live(several.site, intents(plans))
    assert not swap.is_begun(several.site, intents(plans))
    swap.commit(plans)
    assert several.is_all("new")
    assert swap.is_live(several.site, intents(plans))
    outgoing = swap.finish(several.site, intents(plans))
    assert several.is_all("new")
    several.check_tidy()
    assert len(outgoing) == any(kept), "one release, whatever it is made of"
    for part, tree in zip(several.parts, kept, strict=True):
        if tree is not None:
            assert snapshot((part.releases / outgoing[0]).resolve()) == tree
    after = several.snapshots()
    assert swap.finish(several.site, intents(plans)) == outgoing
    several.abandon(plans)
    assert several.snapshots() == after, "what is done is done"


@each_strategy
@each_pair
def test_kept_releases_come_back_and_go_together(tmp_path: Path, kinds: tuple[str, ...], strategy: str) -> None:
    several = Several(tmp_path, kinds, strategy)
    releases = [ReleaseId(f"shop-{number}@{number:012}") for number in range(5)]
    for number, release in enumerate(releases):
        outgoing = several.deploy(release, f"mark {number}")
        assert several.is_all(f"mark {number}")
        if number:
            assert outgoing == (releases[number - 1],)
    for part in several.parts:
        for number, release in enumerate(releases[:-1]):
            assert texts(part.releases / release) == content(part.part, f"mark {number}")
    doomed = releases_to_prune(several.state, keep=3)
    assert set(doomed) >= set(releases[:2])
    for part in several.parts:
        for release in doomed:
            set_aside(part, release)
        remove_aside([part])
        there = {path.name for path in part.releases.iterdir()} - {releases[4]}
        assert there == {releases[2], releases[3]}
    # A kept release is deployed again, under its own name.
    assert several.deploy(releases[2], "mark 2") == (releases[4],)
    assert several.is_all("mark 2")
    for part in several.parts:
        set_abandoned_aside(part)
        remove_aside([part])
    several.check_tidy()


def take_away(plan: swap.Plan) -> None:
    """What was to become live is not there: of two renames, the second fails."""
    os.rename(plan.intent.swap.path, f"{plan.intent.swap.path} elsewhere")


def bring_back(plan: swap.Plan) -> None:
    os.rename(f"{plan.intent.swap.path} elsewhere", plan.intent.swap.path)


@each_strategy
@pytest.mark.parametrize("kinds", [*PAIRS, *TRIPLES], ids="-".join)
def test_a_rename_that_fails_undoes_those_before_it(tmp_path: Path, kinds: tuple[str, ...], strategy: str) -> None:
    several = Several(tmp_path, kinds, strategy)
    plans = several.plan()
    for plan in plans:
        take_away(plan)
        with pytest.raises(FileNotFoundError) as caught:
            swap.commit(plans)
        failed = swap.explain_commit(plans, caught.value)
        assert failed.problem == "cannot-swap"
        assert several.is_old()
        bring_back(plan)
    several.abandon(plans)
    assert several.snapshots() == several.before
    swap.commit(plans := several.plan())
    assert several.is_all("new"), "and nothing stands in the way of the next"


@pytest.mark.root
@each_strategy
@pytest.mark.parametrize("number", [1, 2])
def test_a_mount_that_comes_over_a_live_path_undoes_those_before_it(tmp_path: Path, number: int, strategy: str) -> None:
    several = Several(tmp_path, ("directory",) * 3, strategy)
    plans = several.plan()
    elsewhere = write_tree(tmp_path / "elsewhere", {"precious": "yes"})
    with bind(elsewhere, plans[number].site.live):
        with pytest.raises(OSError, match="busy") as caught:
            swap.commit(plans)
        assert str(plans[number].site.live) in swap.explain_commit(plans, caught.value).message
        for part in (*several.parts[:number], *several.parts[number + 1 :]):
            assert texts(part.live) == content(part.part, "old")
    assert several.is_old()
    assert texts(elsewhere) == {"precious": "yes"}
    several.abandon(plans)
    assert several.snapshots() == several.before


def steps_of(plan: swap.Plan) -> list[Callable[[], None]]:
    """The renames of one live path, one by one."""
    intent = plan.intent.swap
    if intent.how is How.TWICE:
        return [lambda: os.rename(intent.live, intent.outgoing), lambda: os.rename(intent.path, intent.live)]
    return [lambda: renames._swap(intent)]


def crash_after(several: Several, count: int) -> tuple[swap.Plan, ...] | None:
    """With so many renames done, or None where there are not as many before the last."""
    plans = several.plan()
    steps = [step for plan in plans for step in steps_of(plan)]
    for step in steps[:count]:
        step()
    return plans if count < len(steps) else None


@each_strategy
@each_pair
@pytest.mark.parametrize("count", [0, 1, 2, 3])
class TestCrash:
    """Between any two renames, all of them are undone, or all are done: by whoever comes first."""

    def test_all_are_put_back(self, tmp_path: Path, kinds: tuple[str, ...], strategy: str, count: int) -> None:
        several = Several(tmp_path, kinds, strategy)
        plans = crash_after(several, count)
        if plans is None:
            return  # this strategy needs no more renames for that
        put_back(swap.undo(plans))
        assert several.is_old()
        assert not swap.is_begun(several.site, intents(plans))
        put_back(swap.undo(plans))
        assert several.is_old(), "whoever comes second changes nothing"
        several.abandon(plans)
        assert several.snapshots() == several.before

    def test_all_are_completed(self, tmp_path: Path, kinds: tuple[str, ...], strategy: str, count: int) -> None:
        several = Several(tmp_path, kinds, strategy)
        plans = crash_after(several, count)
        if plans is None:
            return
        assert swap.is_begun(several.site, intents(plans)) == (count > 0)
        outgoing = swap.finish(several.site, intents(plans))
        assert several.is_all("new")
        several.check_tidy()
        for part, kind in zip(several.parts, kinds, strict=True):
            if kind != "missing":
                assert texts((part.releases / outgoing[0]).resolve()) == content(part.part, "old")


@each_strategy
@each_pair
def test_what_was_all_done_is_not_put_back(tmp_path: Path, kinds: tuple[str, ...], strategy: str) -> None:
    several = Several(tmp_path, kinds, strategy)
    plans = several.plan()
    swap.commit(plans)
    put_back(swap.undo(plans))
    assert several.is_all("new")

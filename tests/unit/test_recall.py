"""Which kept release a rollback takes, and what stands in its way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from swapd.model.config import Site
from swapd.model.control import RollbackRequest
from swapd.model.errors import Failed, Rejected
from swapd.model.record import LiveRelease, SiteState, TreeIdentity, now
from swapd.model.release import DeploymentId, ReleaseId
from swapd.stages.recall import choose_release, recall
from tests.support.sites import make_site
from tests.support.trees import write_tree

FOUR, THREE, TWO, ONE = (ReleaseId(f"shop-{number}@{str(number) * 12}") for number in (4, 3, 2, 1))
LIVE = LiveRelease(FOUR, None, DeploymentId("x"), now(), TreeIdentity(1, 1))
STATE = SiteState(LIVE, (THREE, TWO, ONE))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site with a second live path, and three kept releases of both."""
    site = make_site(tmp_path, path=[{"live": str(tmp_path / "cgi"), "part": "bin"}])
    for part in site.parts:
        for release in STATE.previous:
            write_tree(part.releases / release, {"index.html": release})
    return site


def chosen(site: Site, wanted: str = "", state: SiteState = STATE) -> ReleaseId:
    return choose_release(RollbackRequest(wanted), site, state)


def with_bad(*bad: ReleaseId) -> SiteState:
    return SiteState(LIVE, STATE.previous, bad=bad)


def test_the_newest_that_is_kept(site: Site) -> None:
    assert chosen(site) == THREE


def test_but_for_those_that_were_rolled_back_from(site: Site) -> None:
    assert chosen(site, state=with_bad(THREE)) == TWO
    assert chosen(site, state=with_bad(THREE, TWO)) == ONE


def test_a_bad_one_where_it_is_named(site: Site) -> None:
    assert chosen(site, "shop-3", with_bad(THREE)) == THREE


def test_the_live_one_where_it_is_named(site: Site) -> None:
    assert chosen(site, "shop-4") == FOUR


@pytest.mark.parametrize("part", [0, 1])
def test_what_is_gone_from_the_disk_is_no_release_before(site: Site, part: int) -> None:
    shutil.rmtree(site.parts[part].releases / THREE)
    assert chosen(site) == TWO
    assert chosen(site, "shop-3") == THREE, "and is said where it is named"
    with pytest.raises(Failed) as caught:
        recall(THREE, site)
    assert caught.value.problem == "release-missing"
    assert str(site.parts[part].releases / THREE) in caught.value.message


@pytest.mark.parametrize("state", [SiteState(), SiteState(LIVE), with_bad(THREE, TWO, ONE)])
def test_nothing_to_roll_back_to(site: Site, state: SiteState) -> None:
    with pytest.raises(Failed) as caught:
        chosen(site, state=state)
    assert caught.value.problem == "nothing-kept"
    assert all(release in caught.value.hint for release in state.bad)


def test_one_that_was_never_there(site: Site) -> None:
    with pytest.raises(Rejected) as caught:
        chosen(site, "shop-9")
    assert caught.value.problem == "unknown-release"


def test_the_trees_of_every_part(site: Site) -> None:
    kept = recall(TWO, site)
    assert kept.release == TWO
    assert [tree.path for tree in kept.trees] == [part.releases / TWO for part in site.parts]


def test_a_release_that_is_kept_by_a_link(site: Site, tmp_path: Path) -> None:
    """As what was live through a link to elsewhere, before swapd came."""
    for part in site.parts:
        shutil.move(part.releases / ONE, tmp_path / f"elsewhere-{part.part}")
        (part.releases / ONE).symlink_to(tmp_path / f"elsewhere-{part.part}")
    assert recall(ONE, site).release == ONE

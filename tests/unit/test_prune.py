"""Which releases go, and how."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapd.model.config import Site
from swapd.model.record import LiveRelease, SiteState, TreeIdentity, now
from swapd.model.release import DeploymentId, ReleaseId
from swapd.stages.prune import (
    find_leftovers,
    put_back,
    releases_to_prune,
    remove_aside,
    set_abandoned_aside,
    set_aside,
)
from tests.support.sites import make_site
from tests.support.trees import texts, write_tree


def release(number: int) -> ReleaseId:
    return ReleaseId(f"shop-{number}@0123456789ab")


def state(live: int | None, *previous: int, bad: list[int] | None = None, pinned: list[int] | None = None) -> SiteState:
    is_live = None
    if live is not None:
        is_live = LiveRelease(release(live), None, DeploymentId("x"), now(), TreeIdentity(1, 2))
    named = [tuple(map(release, numbers or ())) for numbers in (previous, bad, pinned)]
    return SiteState(is_live, named[0], bad=named[1], pinned=named[2])


@pytest.mark.parametrize(
    ("keep", "previous", "doomed"),
    [
        (5, [4, 3, 2, 1], []),
        (5, [5, 4, 3, 2, 1], [1]),
        (3, [5, 4, 3, 2, 1], [3, 2, 1]),
        (2, [5, 4], [4]),
        (1, [5, 4], [4]),  # whatever keep says: the live one and the one before it stay
        (0, [5], []),
        (2, [], []),
    ],
)
def test_what_is_past_keep(keep: int, previous: list[int], doomed: list[int]) -> None:
    assert releases_to_prune(state(9, *previous), keep) == list(map(release, doomed))


@pytest.mark.parametrize(
    ("keep", "previous", "bad", "pinned", "doomed"),
    [
        (3, [5, 4, 3, 2], [], [3], [2]),
        (3, [5, 4, 3, 2], [], [2, 3], []),  # pinned ones are kept on top of those that count
        (2, [5, 4, 3], [], [5], [3]),  # the good one to roll back to is not the pinned one alone
        (3, [5, 4, 3, 2], [4], [], [4, 2]),  # a bad one does not count, and goes first
        (3, [5, 4, 3, 2], [2, 4], [2], [4]),  # unless it is pinned
        (2, [5, 4, 3], [5], [], [3]),  # the one before the live one stays, and the good one behind it
        (5, [5, 4, 3], [4, 3], [], [4, 3]),
        (5, [5, 4], [5, 4], [], [4]),
    ],
)
def test_bad_and_pinned_ones(
    keep: int, previous: list[int], bad: list[int], pinned: list[int], doomed: list[int]
) -> None:
    found = releases_to_prune(state(9, *previous, bad=bad, pinned=pinned), keep)
    assert found == list(map(release, doomed))


NUMBERS = st.lists(st.integers(0, 30), unique=True)


@given(st.integers(0, 20), st.one_of(st.none(), st.integers(0, 30)), NUMBERS, NUMBERS, NUMBERS)
def test_what_always_stays(keep: int, live: int | None, previous: list[int], bad: list[int], pinned: list[int]) -> None:
    doomed = releases_to_prune(state(live, *previous, bad=bad, pinned=pinned), keep)
    before = [release(number) for number in previous if number != live]
    assert set(doomed) <= set(before)
    assert live is None or release(live) not in doomed
    assert not before or before[0] not in doomed
    assert not set(doomed) & set(map(release, pinned))
    good = [item for item in before if item not in map(release, [*bad, *pinned])]
    assert not good or good[0] not in doomed
    assert len(set(good) - set(doomed)) <= max(keep, 2), "and the live one: the one before it may be pinned"
    if not bad and not pinned:
        assert len(before) - len(doomed) == min(len(before), max(keep, 2) - 1)


class TestDisk:
    @pytest.fixture
    def site(self, tmp_path: Path) -> Site:
        site = make_site(tmp_path)
        for number in (1, 2, 3):
            write_tree(site.releases / release(number), {"a/b.txt": "x", "c.txt": "y"})
        return site

    def test_only_what_is_named_goes(self, site: Site) -> None:
        assert [bool(set_aside(site, release(number))) for number in (1, 2, 7)] == [True, True, False]
        assert len(find_leftovers(site)) == 2
        assert remove_aside([site]) == []
        assert os.listdir(site.releases) == [release(3)]

    def test_it_can_have_its_name_back(self, site: Site) -> None:
        aside = set_aside(site, release(1))
        assert aside
        put_back(site, aside, release(1))
        assert remove_aside([site]) == []
        assert texts(site.releases / release(1)) == {"a/b.txt": "x", "c.txt": "y"}

    def test_a_kept_tree_that_stands_elsewhere_stays(self, site: Site, tmp_path: Path) -> None:
        write_tree(tmp_path / "elsewhere", {"precious": "x"})
        (site.releases / "adopted@0123456789ab").symlink_to(tmp_path / "elsewhere")
        set_aside(site, ReleaseId("adopted@0123456789ab"))
        remove_aside([site])
        assert not (site.releases / "adopted@0123456789ab").is_symlink()
        assert (tmp_path / "elsewhere/precious").exists()

    def test_what_crashes_left_goes_but_never_what_may_have_been_live(self, site: Site) -> None:
        for name in (".staging-a", ".removing-b", ".swapd-probe-c", ".staged-d", ".outgoing-e", ".htaccess", "notes"):
            write_tree(site.releases / name, {"x/y": "z"})
        set_abandoned_aside(site)
        remove_aside([site])
        assert set(os.listdir(site.releases)) == {
            *(release(number) for number in (1, 2, 3)),
            ".staged-d",
            ".outgoing-e",
            ".htaccess",
            "notes",
        }

    def test_no_releases_directory(self, tmp_path: Path) -> None:
        site = make_site(tmp_path)
        (error,) = remove_aside([site])
        assert isinstance(error, FileNotFoundError)
        assert find_leftovers(site) == []

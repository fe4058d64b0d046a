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
from swapd.stages.prune import prune, releases_to_prune
from tests.support.sites import make_site
from tests.support.trees import write_tree


def release(number: int) -> ReleaseId:
    return ReleaseId(f"shop-{number}@0123456789ab")


def state(live: int | None, *previous: int) -> SiteState:
    is_live = None
    if live is not None:
        is_live = LiveRelease(release(live), None, DeploymentId("x"), now(), TreeIdentity(1, 2))
    return SiteState(is_live, tuple(map(release, previous)))


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


@given(st.integers(0, 20), st.one_of(st.none(), st.integers(0, 30)), st.lists(st.integers(0, 30), unique=True))
def test_the_live_release_and_the_one_before_it_always_stay(keep: int, live: int | None, previous: list[int]) -> None:
    doomed = releases_to_prune(state(live, *previous), keep)
    before = [number for number in previous if number != live]
    assert live is None or release(live) not in doomed
    assert not before or release(before[0]) not in doomed
    assert len(set(before)) - len(doomed) <= max(keep, 2)


class TestDisk:
    @pytest.fixture
    def site(self, tmp_path: Path) -> Site:
        site = make_site(tmp_path)
        for number in (1, 2, 3):
            write_tree(site.releases / release(number), {"a/b.txt": "x", "c.txt": "y"})
        return site

    def test_only_what_is_named_goes(self, site: Site) -> None:
        prune(site, [release(1), release(2), release(7)])
        assert os.listdir(site.releases) == [release(3)]

    def test_a_kept_tree_that_stands_elsewhere_stays(self, site: Site, tmp_path: Path) -> None:
        write_tree(tmp_path / "elsewhere", {"precious": "x"})
        (site.releases / "adopted@0123456789ab").symlink_to(tmp_path / "elsewhere")
        prune(site, [ReleaseId("adopted@0123456789ab")])
        assert not (site.releases / "adopted@0123456789ab").is_symlink()
        assert (tmp_path / "elsewhere/precious").exists()

    def test_what_crashes_left_goes_but_never_what_may_have_been_live(self, site: Site) -> None:
        for name in (".staging-a", ".removing-b", ".swapd-probe-c", ".staged-d", ".outgoing-e", ".htaccess", "notes"):
            write_tree(site.releases / name, {"x/y": "z"})
        prune(site, [])
        assert set(os.listdir(site.releases)) == {
            *(release(number) for number in (1, 2, 3)),
            ".staged-d",
            ".outgoing-e",
            ".htaccess",
            "notes",
        }

    def test_one_that_cannot_be_removed_keeps_no_other(self, site: Site) -> None:
        # Too long a name for a file: a record that somebody edited.
        with pytest.raises(ExceptionGroup) as caught:
            prune(site, [ReleaseId("x" * 300), release(1)])
        assert caught.group_contains(OSError)
        assert sorted(os.listdir(site.releases)) == [release(2), release(3)]

    def test_no_releases_directory(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            prune(make_site(tmp_path), [])

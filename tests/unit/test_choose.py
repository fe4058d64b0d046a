"""How a site is swapped on this host, and what stands in the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swapd.host.linux import mount_points
from swapd.model.config import Site, Strategy
from swapd.model.errors import Failed
from swapd.stages import swap
from swapd.stages.choose import choose
from swapd.strategies.exchanging import sweep_probes
from tests.support.mounts import bind, tmpfs
from tests.support.sites import leftovers, make_site
from tests.support.trees import snapshot, texts, write_tree
from tests.unit.test_swap import NEW, finish, ready


def problem(site: Site) -> str:
    """What stands in the way; and that nothing has changed."""
    before = snapshot(site.live.parent, times=False) if site.live.parent.is_dir() else {}
    with pytest.raises(Failed) as caught:
        choose(site)
    assert caught.value.hint
    if before:
        after = snapshot(site.live.parent, times=False)
        after.pop(site.releases.name, None)
        before.pop(site.releases.name, None)
        assert after == before
    return caught.value.problem


@pytest.mark.parametrize(
    ("strategy", "kind", "chosen"),
    [
        ("auto", "missing", Strategy.SYMLINK),
        ("auto", "link", Strategy.SYMLINK),
        ("auto", "dangling", Strategy.SYMLINK),
        ("auto", "directory", Strategy.EXCHANGE),
        ("symlink", "missing", Strategy.SYMLINK),
        ("symlink", "link", Strategy.SYMLINK),
        ("symlink", "directory", Strategy.SYMLINK),
        ("exchange", "missing", Strategy.EXCHANGE),
        ("exchange", "link", Strategy.EXCHANGE),
        ("exchange", "directory", Strategy.EXCHANGE),
        ("rename", "missing", Strategy.RENAME),
        ("rename", "link", Strategy.RENAME),
        ("rename", "directory", Strategy.RENAME),
    ],
)
def test_what_fits_the_live_path(tmp_path: Path, strategy: str, kind: str, chosen: Strategy) -> None:
    site = make_site(tmp_path, strategy=strategy)
    site.live.parent.mkdir()
    if kind == "directory":
        site.live.mkdir()
    elif kind != "missing":
        site.live.symlink_to("elsewhere")
        (site.live.parent / "elsewhere").mkdir(exist_ok=True) if kind == "link" else None
    choice = choose(site)
    assert choice.strategy is chosen
    assert choice.reason
    assert site.releases.is_dir()
    assert leftovers(site.releases) == []
    assert leftovers(site.live.parent) == []


def test_no_directory_for_the_live_path(tmp_path: Path) -> None:
    assert problem(make_site(tmp_path)) == "no-parent"


@pytest.mark.parametrize("kind", ["file", "fifo"])
def test_a_live_path_that_is_no_directory(tmp_path: Path, kind: str) -> None:
    site = make_site(tmp_path)
    site.live.parent.mkdir()
    site.live.touch() if kind == "file" else os.mkfifo(site.live)
    assert problem(site) == "live-is-a-file"


def test_a_releases_path_that_is_a_file(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    site.live.mkdir(parents=True)
    site.releases.touch()
    assert problem(site) == "cannot-write"


def test_probes_that_a_crash_left_are_swept(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    write_tree(site.live, NEW)
    for name in (".swapd-probe-shop-1234", ".swapd-probe-other-1234"):
        write_tree(site.live.parent / name, {"mark": ""})
    sweep_probes(site)
    assert leftovers(site.live.parent) == [".swapd-probe-other-1234"]


@pytest.mark.root
class TestMounts:
    def test_releases_on_another_filesystem(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "other") as other:
            for kind in ("directory", "link", "missing"):
                site = make_site(tmp_path / kind, releases=str(other / kind))
                site.live.parent.mkdir(parents=True)
                if kind == "directory":
                    site.live.mkdir()
                elif kind == "link":
                    site.live.symlink_to("elsewhere")
                assert problem(site) == "releases-on-another-filesystem", kind

    def test_a_live_path_on_another_filesystem_than_its_parent(self, tmp_path: Path) -> None:
        # As long as it is a mount point, nothing can take its place.
        site = make_site(tmp_path)
        with tmpfs(site.live):
            write_tree(site.live, NEW)
            assert problem(site) == "live-is-mounted"
            assert texts(site.live) == NEW

    def test_a_mount_below_the_live_path(self, tmp_path: Path) -> None:
        site = make_site(tmp_path)
        write_tree(site.live, NEW)
        with tmpfs(site.live / "with a blank/uploads"):
            assert problem(site) == "live-is-mounted"
        assert choose(site).strategy is Strategy.EXCHANGE

    def test_a_mount_below_the_live_path_behind_a_linked_parent(self, tmp_path: Path) -> None:
        (tmp_path / "srv").mkdir()
        (tmp_path / "www").symlink_to("srv")
        site = make_site(tmp_path)
        write_tree(site.live, NEW)
        with tmpfs(tmp_path / "srv/shop/uploads"):
            assert problem(site) == "live-is-mounted"
        with tmpfs(tmp_path / "srv/shop"):
            assert problem(site) == "live-is-mounted"

    def test_a_mount_in_a_neighbour_is_none_of_ours(self, tmp_path: Path) -> None:
        site = make_site(tmp_path)
        write_tree(site.live, NEW)
        with tmpfs(tmp_path / "www/shop2/uploads"):
            assert choose(site).strategy is Strategy.EXCHANGE

    def test_a_whole_site_on_a_filesystem_of_its_own(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "www"):
            site = make_site(tmp_path)
            write_tree(site.live, {"index.html": "old"})
            assert choose(site).strategy is Strategy.EXCHANGE
            plan = ready(site)
            swap.commit([plan])
            finish(plan)
            assert texts(site.live) == NEW

    def test_two_bind_mounts_of_one_filesystem(self, tmp_path: Path) -> None:
        # The device is the same, and the kernel refuses every rename between them.
        site = make_site(tmp_path, releases=str(tmp_path / "bound"))
        write_tree(site.live, {"index.html": "old"})
        (tmp_path / "source").mkdir()
        with bind(tmp_path / "source", tmp_path / "bound"):
            for strategy in ("auto", "exchange", "rename", "symlink"):
                assert (
                    problem(make_site(tmp_path, releases=str(tmp_path / "bound"), strategy=strategy)) == "cannot-rename"
                )
            before = snapshot(site.live)
            with pytest.raises((OSError, Failed)):
                swap.commit([ready(site)])
            assert snapshot(site.live) == before

    def test_a_releases_directory_that_cannot_be_written(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "www", "ro"):
            site = make_site(tmp_path)
            assert problem(site) == "read-only"

    def test_every_mount_point_is_known_by_its_real_name(self, tmp_path: Path) -> None:
        names = ["plain", "with blank", "with\ttab", "back\\slash", "new\nline", "umläut", "\udcff", "hash#"]
        for name in names:
            with tmpfs(tmp_path / name, "size=4k"):
                assert str(tmp_path / name) in mount_points()

"""What `check` says of disks that have room for some releases, for one, or for none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from swapd.checks.room import find_room, find_room_for_uploads
from swapd.model.config import Site
from swapd.model.findings import Severity
from swapd.model.layout import Layout
from tests.support.mounts import tmpfs
from tests.support.sites import make_directories, make_site

pytestmark = pytest.mark.root  # mounts

MIB = 1 << 20


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@pytest.fixture
def site(layout: Layout) -> Iterator[Site]:
    """Its live tree takes 8 of 64 MiB, and 20 of 400 inodes; a twentieth of both stays in reserve."""
    site = make_site(layout.root)
    with tmpfs(site.live.parent, "size=64m,nr_inodes=400"):
        make_directories(site, layout)
        site.live.mkdir()
        allocate(site.live / "large", 8 * MIB)
        for number in range(18):
            (site.live / str(number)).touch()
        yield site


def allocate(path: Path, size: int) -> None:
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def found(site: Site, layout: Layout) -> list[tuple[str, Severity, str]]:
    return [(item.problem, item.severity, f"{item.what} {item.why}") for item in find_room(site, layout)]


def test_there_is_room_for_all(site: Site, layout: Layout) -> None:
    assert found(site, layout) == []


def test_there_is_room_for_some(site: Site, layout: Layout) -> None:
    ((problem, severity, words),) = found(replace(site, keep=7), layout)
    assert (problem, severity) == ("little-space", Severity.WARNING)
    assert "room for 6 more releases" in words
    assert "keep = 7 holds, 7 are to come" in words
    assert "8.0 MiB" in words


def test_the_next_one_has_no_room(site: Site, layout: Layout) -> None:
    allocate(site.live.parent / "logs", 48 * MIB)
    ((problem, severity, _),) = found(site, layout)
    assert (problem, severity) == ("no-space", Severity.ERROR)


def test_inodes_count_as_well(site: Site, layout: Layout) -> None:
    for number in range(300):
        (site.live.parent / str(number)).touch()
    ((problem, severity, _),) = found(site, layout)
    assert (problem, severity) == ("little-inodes", Severity.WARNING)
    for number in range(300, 350):
        (site.live.parent / str(number)).touch()
    ((problem, severity, _),) = found(site, layout)
    assert (problem, severity) == ("no-inodes", Severity.ERROR)


def test_a_name_that_a_file_has_besides_takes_no_room(site: Site, layout: Layout) -> None:
    for number in range(5):
        os.link(site.live / "large", site.live / f"again-{number}")
    assert found(site, layout) == []


def test_uploads_have_a_disk_of_their_own(site: Site, layout: Layout) -> None:
    with tmpfs(layout.spool, "size=1m"):
        assert not list(find_room_for_uploads([site], layout))
        allocate(layout.spool / "video", MIB - 8192)
        (full,) = find_room_for_uploads([site], layout)
    assert (full.problem, full.severity, full.site) == ("no-space", Severity.ERROR, None)
    assert full.facts["path"] == str(layout.spool)

"""Which release is older than the one that is live."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swapd.model.errors import Rejected
from swapd.model.record import LiveRelease, TreeIdentity, now
from swapd.model.release import DeploymentId, ExtractedTree, ReleaseId, Tree
from swapd.stages.compare import find_newest, refuse_older
from tests.support.sites import make_site

LIVE = LiveRelease(ReleaseId("shop-1@000000000000"), None, DeploymentId("id"), now(), TreeIdentity(1, 2), newest=1000)


def newest(tree: Path) -> int:
    nothing: Any = None
    return find_newest(ExtractedTree(nothing, Tree(tree), 0, 0), make_site(tree))


def put(path: Path, mtime: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (mtime, mtime))


def test_the_newest_file_counts_wherever_it_is(tmp_path: Path) -> None:
    put(tmp_path / "index.html", 1000)
    assert newest(tmp_path) == 1000
    put(tmp_path / "a/b/c", 2000.9)
    put(tmp_path / "z", 1500)
    assert newest(tmp_path) == 2000


def test_links_and_directories_have_times_of_the_extraction(tmp_path: Path) -> None:
    put(tmp_path / "a/index.html", 1000)
    (tmp_path / "link").symlink_to("a/index.html")
    (tmp_path / "directory").symlink_to("a")
    assert newest(tmp_path) == 1000


def test_the_future_is_now(tmp_path: Path) -> None:
    put(tmp_path / "index.html", time.time() + 1e6)
    before = int(time.time())
    assert before <= newest(tmp_path) <= time.time()


def test_what_is_older_is_refused() -> None:
    for allowed in (1000, 1001):
        refuse_older(allowed, LIVE)
    with pytest.raises(Rejected) as caught:
        refuse_older(999, LIVE)
    assert caught.value.problem == "older-than-live"
    assert "1970-01-01 00:16:39" in caught.value.message


def test_where_nothing_is_known_nothing_is_refused() -> None:
    refuse_older(0, None)
    refuse_older(0, replace(LIVE, newest=None))

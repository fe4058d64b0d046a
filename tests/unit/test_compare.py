"""Which release is older than the one that is live, and what the times in an archive tell of that."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from swapd.model.errors import Rejected
from swapd.model.record import LiveRelease, TreeIdentity, now
from swapd.model.release import Compression, DeploymentId, ReleaseId
from swapd.stages.compare import refuse_older
from tests.unit.archives import Site, directory, file, hard_link, symlink, tar

LIVE = LiveRelease(ReleaseId("shop-1@000000000000"), None, DeploymentId("id"), now(), TreeIdentity(1, 2), newest=1000)
NO_TIME = b"\xff" * 12  # of 2**88 seconds before the epoch


def newest(root: Path, *members: bytes, jailed: bool = True) -> int | None:
    root.mkdir(exist_ok=True)
    return Site(root).extract(tar(*members), Compression.NONE, jailed=jailed).newest


@pytest.mark.parametrize("jailed", [False, True])
def test_the_newest_file_counts_wherever_it_is(tmp_path: Path, jailed: bool) -> None:
    members = file(b"a", mtime=1000), file(b"b/c", mtime=2000), file(b"d", mtime=1500)
    assert newest(tmp_path, *members, jailed=jailed) == 2000


def test_only_files_count(tmp_path: Path) -> None:
    members = directory(b"d", mtime=3000), file(b"d/a", mtime=0), symlink(b"l", b"d/a"), hard_link(b"h", b"d/a")
    assert newest(tmp_path, *members) == 0


@pytest.mark.parametrize("mtime", [int(time.time()) + 86_400, NO_TIME], ids=["to come", "missing"])
def test_a_time_that_is_still_to_come_or_missing_does_not_count(tmp_path: Path, mtime: int | bytes) -> None:
    """Else one such file would make its tarball new for ever."""
    assert newest(tmp_path / "one", file(b"a", mtime=1000), file(b"b", mtime=mtime)) == 1000
    assert newest(tmp_path / "none", file(b"b", mtime=mtime)) is None


def test_what_is_older_is_refused() -> None:
    for allowed in (1000, 1001):
        refuse_older(allowed, LIVE)
    with pytest.raises(Rejected) as caught:
        refuse_older(999, LIVE)
    assert caught.value.problem == "older-than-live"
    assert "1970-01-01 00:16:39" in caught.value.message


def test_what_is_not_known_to_be_newer_is_refused() -> None:
    with pytest.raises(Rejected) as caught:
        refuse_older(None, LIVE)
    assert caught.value.problem == "age-unknown"


def test_where_nothing_is_known_of_the_live_release_nothing_is_refused() -> None:
    for known in (None, 0):
        refuse_older(known, None)
        refuse_older(known, replace(LIVE, newest=None))

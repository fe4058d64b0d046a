"""Compare: whether a release is older than the one that is live, by the times that the archive gives its files.

A signature says who packed a tarball, and nothing of when it is uploaded: whoever has an old one can bring back what
was wrong with it. The times of the members are signed with them, so they tell what is older than the live release.
"""

from __future__ import annotations

import os
import stat
import time
from datetime import UTC, datetime

from swapd.host.refusals import explain
from swapd.model.config import Site
from swapd.model.errors import Rejected
from swapd.model.record import LiveRelease
from swapd.model.release import ExtractedTree


def find_newest(extracted: ExtractedTree, site: Site) -> int:
    """The time of the archive's newest file, in seconds since the epoch, before anybody gives them others.

    The future counts as now: a clock that once was wrong must not refuse every release after it.
    """
    newest = 0
    try:
        for _, _, files, directory in os.fwalk(extracted.tree.path, follow_symlinks=False):
            for name in files:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if not stat.S_ISLNK(status.st_mode):  # a link has the time of its extraction
                    newest = max(newest, status.st_mtime_ns // 10**9)
    except OSError as error:
        raise explain(error, site.releases) from error
    return min(newest, int(time.time()))


def refuse_older(newest: int, live: LiveRelease | None) -> None:
    """``Rejected`` (``older-than-live``) where the live release has a newer file, and that is known."""
    if live is None or live.newest is None or newest >= live.newest:
        return
    raise Rejected.because(
        "older-than-live",
        f"its newest file is of {_describe(newest)}, and that of {live.release}, which is live, of "
        f"{_describe(live.newest)}",
        "newer_only lets only newer releases follow. If this is the right one, pack it again, or switch that off.",
    )


def _describe(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

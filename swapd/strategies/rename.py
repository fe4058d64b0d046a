"""rename: the live path is renamed away, and the staged directory to its place: for filesystems that cannot exchange.

Precondition: none but one filesystem. Window: between the two renames nothing is live, so that it needs the pause.
Undo: the renames backwards, by whoever resumes httpd when a crash left only the first one done.
"""

from __future__ import annotations

import os

from swapd.host.files import identify
from swapd.model.config import Site
from swapd.model.errors import Issue
from swapd.model.record import How, PathSwap
from swapd.strategies.way import Place, Renames

IS_PAUSED_FOR = True


def find_obstacle(site: Site) -> Issue | None:  # noqa: ARG001 - the interface's
    """Nothing."""
    return None


def plan(place: Place) -> Renames:
    """One rename to where nothing is, or two."""
    path, live = place.under("staged"), place.site.live
    is_there = os.path.lexists(live)
    how, outgoing = (How.TWICE, place.under("outgoing")) if is_there else (How.RENAME, "")
    return Renames(PathSwap(how, path, str(live), identify(place.staging), outgoing), path)

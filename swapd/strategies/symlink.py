"""symlink: the live path is a symbolic link to the release; a new link is renamed over it.

Precondition: none where the live path is a link or not there; a directory is exchanged with the link, once. Window:
none; paused all the same, because a page that is being made may read files of both. Undo: an exchange again; where the
link was replaced by rename there is nothing that could fail after it.
"""

from __future__ import annotations

import os

from swapd.host.files import identify
from swapd.model.config import Site
from swapd.model.errors import Issue
from swapd.model.record import How, PathSwap
from swapd.strategies.exchanging import find_exchange_obstacle
from swapd.strategies.way import Place, Renames

IS_PAUSED_FOR = True


def find_obstacle(site: Site) -> Issue | None:
    """Why what stands at the live path cannot be exchanged with a link, where it must be."""
    return find_exchange_obstacle(site) if _how(site) is How.EXCHANGE else None


def _how(site: Site) -> How:
    if not os.path.lexists(site.live):
        return How.RENAME
    # One of several live paths must be what it was again, should another fail: an exchange can be undone.
    return How.RENAME if site.live.is_symlink() and not site.is_one_of_several else How.EXCHANGE


def plan(place: Place) -> Renames:
    """One rename of a link to the tree, which has its release's name by then."""
    swap = PathSwap(_how(place.site), place.under("link"), str(place.site.live), identify(place.staging))
    return Renames(swap, str(place.site.releases / place.release))

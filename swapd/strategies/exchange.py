"""exchange: the live path is the release's own directory, and is exchanged with the staged one.

Precondition: the filesystem exchanges directories. Window: none, there is a whole tree at every instant; paused all the
same, because a page that is being made may read files of both. Undo: the same exchange again.
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
    """Why two directories in the real places cannot be exchanged."""
    return find_exchange_obstacle(site)


def plan(place: Place) -> Renames:
    """One rename to where nothing is, or one exchange."""
    # Not under a staging name any more: after an exchange, the tree that was live stands there.
    path, live = place.under("staged"), place.site.live
    how = How.EXCHANGE if os.path.lexists(live) else How.RENAME
    return Renames(PathSwap(how, path, str(live), identify(place.staging)), path)

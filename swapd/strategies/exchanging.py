"""Whether what stands at the live path can be exchanged with a release: tried in the real directories."""

from __future__ import annotations

import os
from pathlib import Path

from swapd.host.files import opened_directory, remove_tree
from swapd.host.trials import find_exchange_obstacle as try_exchange
from swapd.model.config import Site
from swapd.model.errors import Issue
from swapd.strategies.way import describe_live

PROBE = ".swapd-probe-"


def probe_prefix(site: Site) -> str:
    """What the names of the site's scratch directories begin with."""
    return f"{PROBE}{site.name}-"


def find_place(site: Site) -> Path:
    """Where the releases are; where that is still to be made, its parent tells of the filesystem and the mount."""
    return site.releases if os.path.lexists(site.releases) else site.releases.parent


def find_exchange_obstacle(site: Site) -> Issue | None:
    """Why what stands at the live path cannot be exchanged with a release, or None.

    Raises ``OSError`` when no trial can be made.
    """
    why = try_exchange(find_place(site), site.live.parent, probe_prefix(site))
    if why is None:
        return None
    return Issue(
        "cannot-exchange",
        f"{describe_live(site)} and cannot be exchanged: {why}",
        'Write strategy = "rename" or "auto" in the site\'s configuration.',
    )


def sweep_probes(site: Site) -> None:
    """Removes the scratch directories that a crash amid an earlier trial left beside the live path.

    Under the site's lock: but for ``check``, which tries again, nobody else has any of this site's. Raises ``OSError``.
    """
    with opened_directory(site.live.parent) as descriptor:
        for path in site.live.parent.glob(f"{probe_prefix(site)}*"):
            remove_tree(descriptor, path.name)

"""Drift: a live path that is not what swapd left there, because somebody changed it by hand.

The same tree is no drift, whatever leads to it: another link to it, a moved filesystem, another device number. Nor is a
link to the release of the recorded name, should its tree have come back from a backup with another inode.
"""

from __future__ import annotations

import os
from pathlib import Path

from swapd.host.files import is_tree
from swapd.model.config import Site
from swapd.model.record import LiveRelease, SiteState, TreeIdentity
from swapd.model.release import ReleaseId, is_release_id, printable


def find_drift(site: Site, state: SiteState) -> list[str]:
    """What stands at each live path that is not what the state says, as a clause; empty where all is as it was left.

    What nothing is recorded of, such as a site before its first deployment or a new live path, has not drifted.
    """
    if state.live is None:
        return []
    found = []
    for part in site.parts:
        tree = recorded_tree(part, state.live)
        if tree is not None and not is_tree(part.live, tree) and linked_release(part) != state.live.release:
            found.append(f"{part.live} is {describe_live(part)}")
    return found


def is_gone(site: Site, live: LiveRelease) -> bool:
    """Whether nothing at all stands at the live paths any more, so that nothing could be overwritten there.

    Not where what is recorded was on another filesystem: that may not be mounted, and would hide what is put there.
    """
    if any(os.path.lexists(part.live) for part in site.parts):
        return False
    place = site.releases if site.releases.is_dir() else site.releases.parent
    return place.is_dir() and place.stat().st_dev == live.tree.device


def describe_remedy(site: Site, live: LiveRelease | None) -> str:
    """What puts an end to the drift, as a clause."""
    if live is not None and is_gone(site, live):
        return f"swapd rollback {site.name}, or the next deployment, puts a release there"
    return f"swapd init {site.name} --live {site.live} adopts it"


def recorded_tree(part: Site, live: LiveRelease) -> TreeIdentity | None:
    """Which tree the part's live path was left as; None where it was not one of the site's then."""
    if not part.part:
        return live.tree if live.live in ("", str(part.live)) else None
    return next((other.tree for other in live.others if other.live == str(part.live)), None)


def is_there(site: Site, release: ReleaseId) -> bool:
    """Whether any of the site's live paths has the release kept: one that is new has none of the older ones."""
    return any(os.path.lexists(part.releases / release) for part in site.parts)


def linked_release(part: Site) -> ReleaseId | None:
    """The release that the live link leads to, by its name among the releases; None where it is none such."""
    if not part.live.is_symlink():
        return None
    target = Path(os.path.realpath(part.live))
    if target.parent == part.releases.resolve() and is_release_id(target.name) and target.is_dir():
        return ReleaseId(target.name)
    return None


def describe_live(part: Site) -> str:
    """What stands at the live path, for a sentence."""
    if part.live.is_symlink():
        where = printable(os.readlink(part.live))
        return f"a symbolic link to {where}" + ("" if part.live.is_dir() else ", which leads to no directory")
    if part.live.is_dir():
        return "another directory"
    return "no directory" if os.path.lexists(part.live) else "not there"

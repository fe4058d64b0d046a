"""Recall: which kept release goes live again, and the trees that it has. It looks at names, never into a tree."""

from __future__ import annotations

from swapd.model.config import Site
from swapd.model.control import RollbackRequest, find_release
from swapd.model.errors import Failed
from swapd.model.record import SiteState
from swapd.model.release import KeptRelease, ReleaseId, Tree

SAFE = "The live release is untouched."


def choose_release(request: RollbackRequest, site: Site, state: SiteState) -> ReleaseId:
    """The release that is asked for, which may be the live one; else the newest that is kept, whole and not bad.

    ``Rejected`` (``unknown-release``, ``ambiguous-release``) where the one that is asked for is not kept, ``Failed``
    (``nothing-kept``) where none could be the one before.
    """
    live = (state.live.release,) if state.live else ()
    if request.wanted:
        return find_release(request.wanted, (*live, *(item for item in state.previous if item not in live)))
    there = [item for item in state.previous if item not in live and not _find_lack(site, item)]
    good = [item for item in there if item not in state.bad]
    if good:
        return good[0]
    known = ", ".join(f"{item} (rolled back from)" for item in there)
    raise Failed(
        "nothing-kept",
        f"there is no release before {', '.join(live) or 'what is live'} to roll back to",
        f"{SAFE} " + (f"Kept are: {known}. Name the one that shall be live." if known else "No other one is kept."),
    )


def recall(release: ReleaseId, site: Site) -> KeptRelease:
    """The kept release, for each part of the site; ``Failed`` (``release-missing``) where a part has no tree of it."""
    if lack := _find_lack(site, release):
        hint = f"{SAFE} Roll back to another one, or deploy this one again by its tarball."
        raise Failed("release-missing", lack, hint)
    return KeptRelease(release, tuple(Tree(part.releases / release) for part in site.parts))


def _find_lack(site: Site, release: ReleaseId) -> str:
    """What the release lacks on the disk to be live again; empty where it is all there."""
    for part in site.parts:
        if not (part.releases / release).is_dir():
            what = f"its {part.part}, which goes to {part.live}, was never kept" if part.part else "it is gone"
            return f"there is no {part.releases / release}: {what}"
    return ""

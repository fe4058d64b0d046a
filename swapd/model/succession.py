"""What a site knows once another release is live: what was live before it, and what becomes of the rest."""

from __future__ import annotations

from collections.abc import Sequence

from swapd.model.record import LiveRelease, SiteState
from swapd.model.release import ReleaseId


def succeed(before: SiteState, live: LiveRelease, outgoing: Sequence[ReleaseId], *, are_bad: bool) -> SiteState:
    """The state after ``live`` took the place of ``outgoing``, which ``are_bad`` where one goes back from them."""
    kept = dict.fromkeys(item for item in (*outgoing, *before.previous) if item != live.release)
    # What is live or kept again is not to be removed under its old name's sentence.
    doomed = tuple(item for item in before.doomed if item != live.release and item not in kept)
    # What is live again, or was deployed anew, is bad no more; what is not listed any more is not pinned either.
    bad = dict.fromkeys(item for item in (*before.bad, *(outgoing if are_bad else ())) if item in kept)
    pinned = tuple(item for item in before.pinned if item in kept or item == live.release)
    return SiteState(live, tuple(kept), doomed, tuple(bad), pinned)

"""Adopt: what people put at a live path by hand is what swapd goes by from now on. Nothing but the record changes."""

from __future__ import annotations

import uuid

from swapd.host import records
from swapd.host.drift import find_drift, is_gone, is_there, linked_release
from swapd.host.files import identify
from swapd.ledger import Context
from swapd.model import events
from swapd.model.config import Drift, Site
from swapd.model.errors import Failed
from swapd.model.record import LiveRelease, LiveTree, SiteState, now
from swapd.model.release import ADOPTED, DeploymentId, Outcome, ReleaseId


def settle_drift(site: Site, context: Context, state: SiteState) -> SiteState:
    """The site's state, which says what stands at its live paths; under the site's lock, before anything is changed.

    A live path that was changed by hand since is adopted where the site is configured so, or where nothing stands there
    any more; else ``Failed`` (``live-changed``).
    """
    found = find_drift(site, state)
    if not found or state.live is None:
        return state
    if site.drift is Drift.ADOPT or is_gone(site, state.live):
        return adopt(site, context, state)
    raise Failed(
        "live-changed",
        f"{' and '.join(found)}: not what swapd left there, which was {state.live.release}",
        "Nothing was overwritten. Put back what was there, or have what is there now adopted as it is: "
        f"swapd init {site.name} --live {site.live}. Then do this again; for a dropped tarball, touch it.",
    )


def adopt(site: Site, context: Context, before: SiteState) -> SiteState:
    """Records what stands at the live paths as the live release; what was recorded so is a kept one where it is there.

    A link to a kept release makes that the live one again; any other tree is ``adopted@…``, and will be kept by that
    name. Raises ``OSError`` when it cannot be written down.
    """
    deployment = DeploymentId(str(uuid.uuid4()))
    live = find_live(site, context, deployment)
    was = (before.live.release,) if before.live else ()
    kept = dict.fromkeys(
        release
        for release in (*was, *before.previous)
        if (live is None or release != live.release) and is_there(site, release)
    )
    state = SiteState(live, tuple(kept), before.doomed, before.bad, before.pinned)
    records.write_state(context.layout, site.name, state)
    context.emit(events.live_adopted(site.name, str(site.live), live.release if live else None))
    return state


def find_live(site: Site, context: Context, deployment: DeploymentId) -> LiveRelease | None:
    """What stands at the live paths, as a release; None where nothing does.

    What is known of it is taken from the record of its newest deployment; of what is not known, it is ``deployment``.
    """
    if not site.live.is_dir():
        return None
    release = linked_release(site) or ReleaseId(f"{ADOPTED}@{deployment.replace('-', '')[:12]}")
    known = next(
        (
            item
            for item in records.read_deployments(context.layout, site.name, release)
            if item.release == release and item.outcome is Outcome.LIVE
        ),
        None,
    )
    return LiveRelease(
        release=release,
        digest=known.digest if known else None,
        deployment=known.id if known else deployment,
        since=now(),
        tree=identify(site.live),
        newest=known.newest if known else None,
        others=tuple(LiveTree(str(path.live), identify(path.live)) for path in site.paths if path.live.is_dir()),
        live=str(site.live),
    )

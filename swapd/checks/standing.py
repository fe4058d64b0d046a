"""Whether a site stands as swapd left it: its live paths, its records, and what is past its time and still there."""

from __future__ import annotations

from collections.abc import Iterator

from swapd.host import records
from swapd.host.drift import describe_remedy, find_drift, is_gone, is_there
from swapd.model.config import Drift, Site
from swapd.model.errors import Failed
from swapd.model.findings import Finding, Severity
from swapd.model.layout import Layout
from swapd.stages.prune import releases_to_prune


def find_changes(site: Site, layout: Layout) -> Iterator[Finding]:
    """What people changed by hand, and records that cannot be read."""
    try:
        state = records.read_state(layout, site.name)
        damaged = records.find_damaged(layout, site.name)
        is_busy = bool(records.find_unfinished(layout, site.name))
    except Failed as error:
        is_rebuilt = error.problem == "bad-record"
        severity = Severity.WARNING if is_rebuilt else Severity.ERROR
        rebuilt = "Nothing to do: the next deployment, or start, rebuilds it, and says how."
        remedy = rebuilt if is_rebuilt else error.hint
        what = "what swapd knows of the site cannot be read"
        yield Finding(site.name, severity, error.problem, what, error.message, remedy)
        return
    for path in damaged:
        what, why = "a record of a deployment is damaged", f"{path} cannot be understood"
        remedy = "Nothing to do: the next deployment, or start, moves it aside and goes by what is on the disk."
        yield Finding(site.name, Severity.WARNING, "bad-record", what, why, remedy)
    for found in find_drift(site, state) if not is_busy else ():
        if state.live and is_gone(site, state.live):
            severity, what = Severity.ERROR, "visitors get nothing"
        elif site.drift is Drift.REFUSE:
            severity, what = Severity.ERROR, "the next deployment is refused"
        else:
            severity, what = Severity.WARNING, 'the next deployment adopts it (drift = "adopt")'
        why = f"{found}, not what swapd left there" + (f", {state.live.release}" if state.live else "")
        remedy = f"Put back what was there, or: {describe_remedy(site, state.live)}"
        yield Finding(site.name, severity, "live-changed", what, why, remedy)
    gone = [release for release in state.previous if not is_there(site, release)]
    if gone:
        what = "kept releases cannot be rolled back to"
        why = f"{', '.join(gone)} is not in {site.releases} any more"
        yield Finding(site.name, Severity.WARNING, "kept-gone", what, why, "Deploy it again to have it back.")


def find_held(site: Site, layout: Layout) -> Iterator[Finding]:
    """Releases that are past ``keep`` and are there still."""
    try:
        state = records.read_state(layout, site.name)
    except Failed:
        return
    past = [item for item in releases_to_prune(state, site.keep) if is_there(site, item)]
    if past:
        what = "old releases are kept beyond keep"
        why = f"{', '.join(past)} was in use when it should have gone, or keep was lowered since"
        remedy, commands = "Remove what is not in use, and see who uses the rest:", (f"swapd prune {site.name}",)
        yield Finding(site.name, Severity.INFO, "past-keep", what, why, remedy, commands=commands)

"""``swapd status``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from swapd.commands.documents import (
    describe_answered,
    describe_deployment,
    describe_issues,
    describe_live,
    describe_progress,
    describe_waiting,
    print_document,
)
from swapd.commands.paper import Paper
from swapd.commands.waiting import Dropped, explain, look_into
from swapd.host import records
from swapd.host.configuration import read_site, read_sound_sites
from swapd.host.drift import describe_remedy, find_drift
from swapd.host.presence import find_daemon
from swapd.host.progress import read_progress
from swapd.model.config import Site
from swapd.model.errors import ExitStatus, Failed
from swapd.model.events import describe_pause
from swapd.model.layout import Layout
from swapd.model.progress import Progress
from swapd.model.record import Deployment, Kind, SiteState, now
from swapd.model.release import Outcome
from swapd.model.status import describe_time
from swapd.model.units import format_age

MOST = 5  # files of one kind that people are shown: a thousand may lie there


@dataclass(frozen=True, slots=True)
class Standing:
    """All that is known of a site from its records and its drop directory."""

    site: Site
    state: SiteState
    trouble: str  # why the state is not known, empty where it is
    drift: list[str]  # what stands at live paths that were changed by hand
    under_way: Deployment | None
    progress: Progress | None
    last: Deployment | None  # the newest that has an outcome
    dropped: Dropped | None  # None when we may not look into the drop directory

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        dropped = self.dropped
        return {
            "site": self.site.name,
            "live_path": str(self.site.live),
            "paths": [{"live": str(path.live), "part": path.part} for path in self.site.paths],
            "live": describe_live(self.state.live),
            "previous": list(self.state.previous),
            "bad": list(self.state.bad),
            "pinned": list(self.state.pinned),
            "drift": self.drift,
            "trouble": self.trouble or None,
            "under_way": describe_deployment(self.under_way) if self.under_way else None,
            "progress": describe_progress(self.progress),
            "last": describe_deployment(self.last) if self.last else None,
            "waiting": _describe_waiting(self.site, dropped) if dropped else None,
            "answered": [describe_answered(item) for item in dropped.answered] if dropped else None,
        }


def _describe_waiting(site: Site, dropped: Dropped) -> list[dict[str, Any]]:
    return [describe_waiting(item, explain(site, item)) for item in dropped.waiting]


def stand(layout: Layout, site: Site) -> Standing:
    """Reads how the site stands."""
    standing = _stand(layout, site)
    # A swap between the looks at record and live path would look like a change by hand.
    return _stand(layout, site) if standing.drift else standing


def _stand(layout: Layout, site: Site) -> Standing:
    state, deployments, trouble = SiteState(), list[Deployment](), ""
    progress = read_progress(layout, site.name)
    try:
        deployments = records.read_deployments(layout, site.name)
        state = records.read_state(layout, site.name)
    except Failed as error:
        trouble = f"{error.message}. {error.hint}"
    if progress is not None and any(progress.is_of(item) and item.ended for item in deployments):
        progress = None
    ended = [item for item in deployments if item.outcome is not Outcome.PENDING]
    under_way = next((item for item in deployments if item.outcome is Outcome.PENDING), None)
    try:
        current = [item.file_name for item in (under_way, progress) if item]
        dropped: Dropped | None = look_into(site, deployments).without(*current)
    except OSError:
        dropped = None
    return Standing(
        site,
        state,
        trouble,
        [] if under_way else find_drift(site, state),
        under_way,
        progress,
        ended[0] if ended else None,
        dropped,
    )


def describe_when(instant: datetime, present: datetime) -> str:
    """An instant for people: exactly, and how long ago."""
    return f"{describe_time(instant, present)} ({format_age((present - instant).total_seconds())})"


def show(standing: Standing, present: datetime, paper: Paper) -> None:
    """The site's lines for people."""
    paper.line(f"{standing.site.name}  {standing.site.live}", "bold", 2)
    for path in standing.site.paths:
        paper.entry("path", f"{path.live} (its {path.part})")
    _show_live(standing, present, paper)
    _show_under_way(standing, present, paper)
    _show_last(standing, present, paper)
    _show_dropped(standing, present, paper)


def _show_live(standing: Standing, present: datetime, paper: Paper) -> None:
    live, state = standing.state.live, standing.state
    if standing.trouble:
        paper.entry("trouble", standing.trouble, "red")
    elif live is None:
        paper.entry("live", "no release of swapd's yet")
    else:
        pause = f"; {describe_pause(live.pause)}" if live.pause else ""
        paper.entry("live", f"{live.release} since {describe_when(live.since, present)}{pause}", "green")
    if live is not None and live.pause is not None and live.pause.queues:
        paper.entry(
            "waited", ", ".join(f"{queue.listener} {queue.queued} of {queue.limit}" for queue in live.pause.queues)
        )
    for found in standing.drift:
        remedy = describe_remedy(standing.site, live)
        paper.entry("changed", f"{found}, not what swapd left there; {remedy}", "red")
    if state.previous:
        kept = [f"{item} (rolled back from)" if item in state.bad else item for item in state.previous]
        paper.entry("kept", ", ".join(kept))
    if state.pinned:
        paper.entry("pinned", ", ".join(state.pinned))


def _show_under_way(standing: Standing, present: datetime, paper: Paper) -> None:
    progress, record = standing.progress, standing.under_way
    if progress is not None:
        share = "" if progress.fraction is None else f" {progress.fraction:.0%}"
        begun = f", begun {describe_when(record.started, present)}" if record else ""
        paper.entry(
            "under way", f"{progress.release or progress.file_name}: {progress.stage.value}{share}{begun}", "cyan"
        )
    elif record is not None:
        what = record.release or record.file_name
        paper.entry("under way", f"{what}, begun {describe_when(record.started, present)}", "cyan")


def _show_last(standing: Standing, present: datetime, paper: Paper) -> None:
    last = standing.last
    if last is None or last.outcome not in (Outcome.REJECTED, Outcome.FAILED):
        return
    what = (
        f"rollback to {last.release}" if last.kind is Kind.ROLLBACK and last.release else last.release or last.file_name
    )
    when = describe_when(last.ended or last.started, present)
    paper.entry("last", f"{what} {last.outcome.value} at {when}: {last.reason}", "red")
    paper.entry("", last.hint)


def _show_dropped(standing: Standing, present: datetime, paper: Paper) -> None:
    """What waits, and what lies there still; of what went wrong last there is nothing to be added."""
    if standing.dropped is None:
        paper.entry("incoming", f"{standing.site.incoming} cannot be read by you; who may drop tarballs may", "dim")
        return
    waiting = standing.dropped.waiting
    for item in waiting[:MOST]:
        reason = explain(standing.site, item)
        paper.entry("waiting", f"{item.file_name}: {reason}, since {describe_when(item.since, present)}", "yellow")
    if len(waiting) > MOST:
        paper.entry("", f"and {len(waiting) - MOST} more")
    last = standing.last.id if standing.last else ""
    answered = [item for item in standing.dropped.answered if item.id != last]
    for done in reversed(answered[-MOST:]):
        when = describe_when(done.ended or done.started, present)
        paper.entry("lies there", f"{done.file_name}: {done.outcome.value} at {when}: {done.reason}")
    if len(answered) > MOST:
        paper.entry("", f"and {len(answered) - MOST} more")


@click.command
@click.argument("site", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def command(layout: Layout, site: str | None, as_json: bool) -> int:
    """What is live, what is under way, what waits, what went wrong last.

    Ends with 1 when the record of a site cannot be read, and with 78 when the configuration is bad: the sites whose own
    files are good are shown all the same.
    """
    sites, error = read_sound_sites(layout) if site is None else ({}, None)
    chosen = list(sites.values()) if site is None else [read_site(layout, site)]
    standings = [stand(layout, item) for item in chosen]
    daemon = find_daemon(layout)
    status = ExitStatus.FAILED if any(standing.trouble for standing in standings) else ExitStatus.DONE
    if as_json:
        print_document(
            {
                "daemon": {"is_running": daemon is not None, "pid": daemon},
                "issues": describe_issues(error),
                "sites": [standing.document() for standing in standings],
            }
        )
        return status if error is None else ExitStatus.CONFIGURATION
    paper = Paper()
    if not standings and error is None:
        paper.line("no site is configured; swapd init proposes one")
    elif standings and daemon is None:
        paper.line(describe_absence(layout), "bold red", 2)
    present = now()
    for number, standing in enumerate(standings):
        if number and paper.width:
            paper.line("")
        show(standing, present, paper)
    if error is not None:
        sys.stdout.flush()
        raise error
    return status


def describe_absence(layout: Layout) -> str:
    """That the daemon does not run, and what to do about it."""
    start = (
        "systemctl start swapd (why it ended: journalctl -u swapd)"
        if layout.is_host
        else f"swapd --root {layout.root} run"
    )
    return f"swapd does not run, so what is dropped waits. To start it: {start}"

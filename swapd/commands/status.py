"""``swapd status``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from swapd.host import records
from swapd.host.configuration import read_site, read_sites
from swapd.host.drift import describe_remedy, find_drift
from swapd.model.config import Site
from swapd.model.errors import ExitStatus, Failed
from swapd.model.events import describe_pause
from swapd.model.layout import Layout
from swapd.model.record import Deployment, Kind, SiteState, now
from swapd.model.release import Outcome, printable
from swapd.model.status import describe_time
from swapd.stages.arrive import scan


@dataclass(frozen=True, slots=True)
class Standing:
    """All that is known of a site from its records and its drop directory."""

    site: Site
    state: SiteState
    trouble: str  # why the state is not known, empty where it is
    drift: list[str]  # what stands at live paths that were changed by hand
    under_way: Deployment | None
    last: Deployment | None  # the newest that has an outcome
    waiting: list[str] | None  # None when we may not look into the drop directory

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        live = self.state.live
        return {
            "site": self.site.name,
            "live_path": str(self.site.live),
            "paths": [{"live": str(path.live), "part": path.part} for path in self.site.paths],
            "live": live.document() if live else None,
            "previous": list(self.state.previous),
            "bad": list(self.state.bad),
            "pinned": list(self.state.pinned),
            "drift": self.drift,
            "trouble": self.trouble,
            "under_way": self.under_way.document() if self.under_way else None,
            "last": self.last.document() if self.last else None,
            "waiting": self.waiting,
        }


def stand(layout: Layout, site: Site) -> Standing:
    """Reads how the site stands."""
    standing = _stand(layout, site)
    # A swap between the looks at record and live path would look like a change by hand.
    return _stand(layout, site) if standing.drift else standing


def _stand(layout: Layout, site: Site) -> Standing:
    state, trouble = SiteState(), ""
    try:
        state = records.read_state(layout, site.name)
    except Failed as error:
        trouble = f"{error.message}. {error.hint}"
    deployments = records.read_deployments(layout, site.name)
    ended = [item for item in deployments if item.outcome is not Outcome.PENDING]
    under_way = [item for item in deployments if item.outcome is Outcome.PENDING]
    try:
        waiting = [printable(seen.name) for seen in scan(site.incoming)]
    except OSError:
        waiting = None
    return Standing(
        site,
        state,
        trouble,
        [] if under_way else find_drift(site, state),
        under_way[0] if under_way else None,
        ended[0] if ended else None,
        waiting,
    )


def describe(standing: Standing, present: datetime) -> list[str]:
    """The site's lines for people."""
    live, last = standing.state.live, standing.last
    lines = [click.style(standing.site.name, bold=True) + f"  {standing.site.live}"]
    lines += [f"  path       {path.live} (its {path.part})" for path in standing.site.paths]
    if standing.trouble:
        lines.append(click.style(f"  trouble    {standing.trouble}", fg="red"))
    elif live is None:
        lines.append("  live       no release of swapd's yet")
    else:
        pause = f"; {describe_pause(live.pause)}" if live.pause else ""
        lines.append(f"  live       {live.release} since {describe_time(live.since, present)}{pause}")
    if live is not None and live.pause is not None and live.pause.queues:
        queues = ", ".join(f"{queue.listener} {queue.queued} of {queue.limit}" for queue in live.pause.queues)
        lines.append(f"  waited     {queues}")
    for found in standing.drift:
        remedy = describe_remedy(standing.site, live)
        lines.append(click.style(f"  changed    {found}, not what swapd left there; {remedy}", fg="red"))
    if standing.state.previous:
        bad = standing.state.bad
        kept = [f"{item} (rolled back from)" if item in bad else item for item in standing.state.previous]
        lines.append(f"  kept       {', '.join(kept)}")
    if standing.state.pinned:
        lines.append(f"  pinned     {', '.join(standing.state.pinned)}")
    if (under_way := standing.under_way) is not None:
        lines.append(f"  under way  {under_way.release}, begun {describe_time(under_way.started, present)}")
    if last is not None and last.outcome in (Outcome.REJECTED, Outcome.FAILED):
        is_rollback = last.kind is Kind.ROLLBACK
        what = f"rollback to {last.release}" if is_rollback and last.release else last.release or last.file_name
        when = describe_time(last.ended or last.started, present)
        lines.append(click.style(f"  last       {what} {last.outcome.value} at {when}: {last.reason}", fg="red"))
        lines.append(f"             {last.hint}")
    if standing.waiting:
        lines.append(f"  incoming   {', '.join(standing.waiting)}")
    return lines


@click.command
@click.argument("site", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def command(layout: Layout, site: str | None, as_json: bool) -> int:
    """What is live, what is under way, what waits, what went wrong last.

    Ends with 1 when the record of a site cannot be read.
    """
    chosen = [read_site(layout, site)] if site else list(read_sites(layout).values())
    standings = [stand(layout, item) for item in chosen]
    status = ExitStatus.FAILED if any(standing.trouble for standing in standings) else ExitStatus.DONE
    if as_json:
        document = {"version": 1, "sites": [standing.document() for standing in standings]}
        click.echo(json.dumps(document, indent=2, default=str))
        return status
    present = now()
    if not standings:
        click.echo("no site is configured; make one with: swapd init SITE --live PATH")
    for standing in standings:
        for line in describe(standing, present):
            click.echo(line)
    return status

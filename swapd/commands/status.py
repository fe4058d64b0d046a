"""``swapd status``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from swapd.host import records
from swapd.host.configuration import read_site, read_sites
from swapd.model.config import Site
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
            "under_way": self.under_way.document() if self.under_way else None,
            "last": self.last.document() if self.last else None,
            "waiting": self.waiting,
        }


def stand(layout: Layout, site: Site) -> Standing:
    """Reads how the site stands."""
    deployments = records.read_deployments(layout, site.name)
    ended = [item for item in deployments if item.outcome is not Outcome.PENDING]
    under_way = [item for item in deployments if item.outcome is Outcome.PENDING]
    try:
        waiting = [printable(seen.name) for seen in scan(site.incoming)]
    except OSError:
        waiting = None
    return Standing(
        site,
        records.read_state(layout, site.name),
        under_way[0] if under_way else None,
        ended[0] if ended else None,
        waiting,
    )


def describe(standing: Standing, present: datetime) -> list[str]:
    """The site's lines for people."""
    live, last = standing.state.live, standing.last
    lines = [click.style(standing.site.name, bold=True) + f"  {standing.site.live}"]
    lines += [f"  path       {path.live} (its {path.part})" for path in standing.site.paths]
    if live is None:
        lines.append("  live       no release of swapd's yet")
    else:
        pause = f"; {describe_pause(live.pause)}" if live.pause else ""
        lines.append(f"  live       {live.release} since {describe_time(live.since, present)}{pause}")
    if live is not None and live.pause is not None and live.pause.queues:
        queues = ", ".join(f"{queue.listener} {queue.queued} of {queue.limit}" for queue in live.pause.queues)
        lines.append(f"  waited     {queues}")
    if standing.state.previous:
        bad = standing.state.bad
        kept = [f"{item} (rolled back from)" if item in bad else item for item in standing.state.previous]
        lines.append(f"  kept       {', '.join(kept)}")
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
def command(layout: Layout, site: str | None, as_json: bool) -> None:
    """What is live, what is under way, what waits, what went wrong last."""
    chosen = [read_site(layout, site)] if site else list(read_sites(layout).values())
    standings = [stand(layout, item) for item in chosen]
    if as_json:
        document = {"version": 1, "sites": [standing.document() for standing in standings]}
        click.echo(json.dumps(document, indent=2, default=str))
        return
    present = now()
    if not standings:
        click.echo("no site is configured; make one with: swapd init SITE --live PATH")
    for standing in standings:
        for line in describe(standing, present):
            click.echo(line)

"""``swapd history``."""

from __future__ import annotations

import json

import click

from swapd.host import records
from swapd.host.configuration import read_site, read_sites
from swapd.model.layout import Layout
from swapd.model.record import Deployment, Kind, now
from swapd.model.status import describe_time
from swapd.model.units import format_duration


@click.command
@click.argument("site", required=False)
@click.option("-v", "--verbose", is_flag=True, help="Also how long each stage took, and all who had a part in it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def command(layout: Layout, site: str | None, verbose: bool, as_json: bool) -> None:
    """The deployments and rollbacks, newest first: who, what, when, how long."""
    chosen = [read_site(layout, site)] if site else list(read_sites(layout).values())
    deployments = [item for one in chosen for item in records.read_deployments(layout, one.name)]
    deployments.sort(key=lambda item: item.started, reverse=True)
    if as_json:
        document = {"version": 1, "deployments": [item.document() for item in deployments]}
        click.echo(json.dumps(document, indent=2, default=str))
    elif not deployments:
        click.echo("no deployment yet")
    else:
        _print_table(deployments, verbose=verbose)


def describe_outcome(item: Deployment) -> str:
    """What became of it, and why it did where that is no surprise."""
    notes = []
    if item.kind is Kind.ROLLBACK:
        notes = ["rollback" if item.previous in (None, item.release) else f"rollback from {item.previous}"]
    notes += [item.problem] if item.problem else []
    return item.outcome.value + (f" ({', '.join(notes)})" if notes else "")


def describe_people(item: Deployment) -> str:
    """Everybody who is known to have had a part in it."""
    parts = {"signed by": item.signer, "run by": item.operator, "uploaded by": item.uploader}
    return ", ".join(f"{what} {who}" for what, who in parts.items() if who)


def describe_stages(item: Deployment) -> str:
    """How long each stage took, in their order."""
    return ", ".join(f"{time.stage.value} {format_duration(time.usec / 1e6)}" for time in item.stages)


def _print_table(deployments: list[Deployment], *, verbose: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, pad_edge=False)
    more = ("stages",) if verbose else ()
    for heading in ("when", "site", "release", "outcome", "took", "paused", "by", *more):
        table.add_column(heading, overflow="fold")
    present = now()
    colours = {"live": "green", "rejected": "yellow", "failed": "red"}
    for item in deployments:
        pause = format_duration(item.pause.duration_usec / 1e6) if item.pause else ""
        outcome = Text(describe_outcome(item))
        outcome.stylize(colours.get(item.outcome.value, ""), 0, len(item.outcome.value))
        took = format_duration(item.duration_usec / 1e6) if item.ended else ""
        release = item.release or item.file_name
        cells = (describe_time(item.started, present), item.site, release)
        last = (describe_people(item), describe_stages(item)) if verbose else (item.who,)
        table.add_row(*map(Text, cells), outcome, *map(Text, (took, pause, *last)))
    console = Console()
    # A pipe has no width: a line is never broken for the program that reads it.
    Console(width=console.width if console.is_terminal else 1000).print(table)

"""``swapd history``."""

from __future__ import annotations

import json

import click

from swapd.host import records
from swapd.host.configuration import read_site, read_sites
from swapd.model.layout import Layout
from swapd.model.record import Deployment, now
from swapd.model.status import describe_time
from swapd.model.units import format_duration


@click.command
@click.argument("site", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def command(layout: Layout, site: str | None, as_json: bool) -> None:
    """The deployments, newest first."""
    chosen = [read_site(layout, site)] if site else list(read_sites(layout).values())
    deployments = [item for one in chosen for item in records.read_deployments(layout, one.name)]
    deployments.sort(key=lambda item: item.started, reverse=True)
    if as_json:
        document = {"version": 1, "deployments": [item.document() for item in deployments]}
        click.echo(json.dumps(document, indent=2, default=str))
    elif not deployments:
        click.echo("no deployment yet")
    else:
        _print_table(deployments)


def _print_table(deployments: list[Deployment]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("when", "site", "release", "outcome", "took", "paused", "by"):
        table.add_column(heading, overflow="fold")
    present = now()
    colours = {"live": "green", "rejected": "yellow", "failed": "red"}
    for item in deployments:
        pause = format_duration(item.pause.duration_usec / 1e6) if item.pause else ""
        outcome = Text(item.outcome.value, style=colours.get(item.outcome.value, ""))
        if item.problem:
            outcome.append(f" ({item.problem})")
        took = format_duration(item.duration_usec / 1e6) if item.ended else ""
        release = item.release or item.file_name
        cells = (describe_time(item.started, present), item.site, release)
        table.add_row(*map(Text, cells), outcome, *map(Text, (took, pause, item.uploader)))
    console = Console()
    # A pipe has no width: a line is never broken for the program that reads it.
    Console(width=console.width if console.is_terminal else 1000).print(table)

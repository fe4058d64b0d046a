"""``swapd history``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import click

from swapd.commands.documents import describe_deployment, print_document
from swapd.commands.paper import Cell, Paper
from swapd.host import records
from swapd.host.configuration import read_site, read_sites
from swapd.model.layout import Layout
from swapd.model.record import Deployment, Kind, now
from swapd.model.release import Outcome
from swapd.model.status import describe_time
from swapd.model.units import format_age, format_duration

COLOURS = {"live": "green", "rejected": "yellow", "failed": "red", "rolled-back": "yellow", "pending": "cyan"}
SCREEN = 20  # deployments on a terminal: the newest ones, which stand on top, would scroll out of it
MOST_BARS = 60  # of a chart, and fewer on a narrow terminal
BESIDE = 42  # columns of a chart's label and its scale


@click.command
@click.argument("site", required=False)
@click.option(
    "-n",
    "--number",
    metavar="NUMBER",
    type=click.IntRange(min=1),
    help=f"So many, the newest. On a terminal {SCREEN}, else all.",
)
@click.option("-v", "--verbose", is_flag=True, help="Also how long each stage took, and all who had a part in it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def command(layout: Layout, site: str | None, number: int | None, verbose: bool, as_json: bool) -> None:
    """The deployments and rollbacks, newest first: who, what, when, how long.

    Below them, for each site, a chart of how long those took that went live, and of how long they paused httpd.
    """
    chosen = [read_site(layout, site)] if site else list(read_sites(layout).values())
    deployments = [item for one in chosen for item in records.read_deployments(layout, one.name)]
    deployments.sort(key=lambda item: item.started, reverse=True)
    deployments = deployments[:number]
    if as_json:
        print_document({"deployments": [describe_deployment(item) for item in deployments]})
        return
    paper = Paper()
    if not deployments:
        paper.line("no deployment yet")
        return
    shown = deployments if number or paper.width is None else deployments[:SCREEN]
    _print_deployments(shown, paper, is_alone=len(chosen) == 1, verbose=verbose)
    if len(shown) < len(deployments):
        paper.line(f"and {len(deployments) - len(shown)} before these: -n {len(deployments)}", "dim")
    for one in chosen:
        _print_charts([item for item in reversed(deployments) if item.site == one.name], paper)


def describe_outcome(item: Deployment) -> str:
    """Why it came to that, where it is no surprise."""
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


def _print_deployments(items: Iterable[Deployment], paper: Paper, *, is_alone: bool, verbose: bool) -> None:
    """As a table where the paper is wide enough for it; else as cards."""
    present = now()
    headings = ("when", "ago", "site", "release", "outcome", "took", "paused", "by", "stages")
    rows = [_row(item, present, is_alone=is_alone, verbose=verbose) for item in items]
    if paper.table(headings, rows):
        return
    words = ("", "", "", "", "", "took ", "paused ", "" if verbose else "by ", "")
    for row in rows:
        cells = [(f"{word}{text}" if text else "", style) for word, (text, style) in zip(words, row, strict=True)]
        paper.card([*cells[:3], cells[4]], 0)
        paper.card([cells[3], *cells[5:8]], 4)
        if verbose:
            paper.line(cells[8][0], "", 4)


def _row(item: Deployment, present: datetime, *, is_alone: bool, verbose: bool) -> Sequence[Cell]:
    pause = format_duration(item.pause.duration_usec / 1e6) if item.pause else ""
    return (
        (describe_time(item.started, present), ""),
        (format_age((present - item.started).total_seconds()), "dim"),
        ("" if is_alone else item.site, ""),
        (item.release or item.file_name, ""),
        (describe_outcome(item), COLOURS.get(item.outcome.value, "")),
        (format_duration(item.duration_usec / 1e6) if item.ended else "", ""),
        (pause, ""),
        (describe_people(item) if verbose else item.who, ""),
        (describe_stages(item) if verbose else "", ""),
    )


def _print_charts(items: Sequence[Deployment], paper: Paper) -> None:
    """Of one site's deployments, oldest first."""
    live = [item for item in items if item.outcome is Outcome.LIVE]
    took = [item.duration_usec / 1e6 for item in live]
    paused = [item.pause.duration_usec / 1e6 for item in live if item.pause is not None]
    if len(took) < 2:
        return
    paper.line("")
    paper.line(f"{items[0].site}: those that went live, the newest on the right", "bold")
    for label, values in (("took", took), ("paused", paused)):
        if len(values) > 1:
            shown = values[-_bars(paper) :]
            scale = f"{format_duration(min(shown))} to {format_duration(max(shown))}"
            paper.entry(label, f"{paper.chart(shown)}  {scale}")


def _bars(paper: Paper) -> int:
    return MOST_BARS if paper.width is None else max(min(MOST_BARS, paper.width - BESIDE), 5)

"""``swapd check``."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from swapd.checks import find
from swapd.commands.documents import describe_issues
from swapd.host.configuration import read_site, read_sites
from swapd.model.config import Site
from swapd.model.errors import ConfigurationError, ExitStatus
from swapd.model.findings import AS_ROOT, ORDER, Finding, Severity
from swapd.model.layout import Layout
from swapd.model.release import printable

COLOURS = {Severity.INFO: "green", Severity.UNKNOWN: "cyan", Severity.WARNING: "yellow", Severity.ERROR: "red"}
NARROWEST, WIDEST = 40, 110  # columns that text is wrapped to: a paragraph of 200 is hard to read
LONGEST = 4000  # characters of one sentence; what is longer is somebody's file names


@click.command
@click.argument("site", required=False)
@click.option("-v", "--verbose", "is_verbose", is_flag=True, help="Also what is only good to know.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def command(layout: Layout, site: str | None, is_verbose: bool, as_json: bool) -> int:
    """Validate the configuration and this host: what is wrong, why it matters, and what to do about it.

    Nothing is changed. As root it can look at everything. Where nothing is wrong it prints one line. Ends with 78 when
    the configuration is bad, and with 1 when the next deployment would fail on this host.
    """
    try:
        sites = list(read_sites(layout).values())
        if site is not None:
            sites = [read_site(layout, site)]
    except ConfigurationError as error:
        if not as_json:
            raise
        click.echo(json.dumps(_bad(error), indent=2))
        return ExitStatus.CONFIGURATION
    findings = find(sites, layout)
    is_good = all(finding.severity is not Severity.ERROR for finding in findings)
    if as_json:
        click.echo(json.dumps(_document(sites, findings, is_good), indent=2))
    else:
        shown = [finding for finding in findings if is_verbose or finding.severity is not Severity.INFO]
        # https://no-color.org, and terminfo's name for what has none; a pipe gets none by itself.
        color = False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a locale that has not every letter of these texts
        for line in describe(shown, _find_width()):
            click.echo(line, color=color)
        click.echo(summarise(sites, findings, layout), color=color)
    return ExitStatus.DONE if is_good else ExitStatus.FAILED


def _bad(error: ConfigurationError) -> dict[str, Any]:
    return {"version": 1, "ok": False, "issues": describe_issues(error)}


def _document(sites: Iterable[Site], findings: Iterable[Finding], is_good: bool) -> dict[str, Any]:
    return {
        "version": 1,
        "ok": is_good,
        "issues": [],
        "sites": {site.name: site.document() for site in sites},
        "findings": [finding.document() for finding in findings],
    }


def _find_width() -> int | None:
    """Columns to wrap to; None where the text goes to no terminal, but to a pager, a mail or grep."""
    if not sys.stdout.isatty():
        return None
    return max(NARROWEST, min(WIDEST, shutil.get_terminal_size().columns))


def describe(findings: Iterable[Finding], width: int | None = None) -> Iterator[str]:
    """The findings' lines for people; a command has a line of its own, whole, to be copied."""
    for finding in findings:
        code = "" if finding.severity is Severity.INFO else f" ({finding.problem})"
        head = f"{finding.site or 'host'}: {finding.severity.value}: "
        first, *rest = _wrap(f"{head}{finding.what}{code}", "", "  ", width)
        coloured = click.style(finding.severity.value, fg=COLOURS[finding.severity], bold=finding.is_trouble)
        yield first.replace(f": {finding.severity.value}: ", f": {coloured}: ", 1)
        yield from rest
        yield from _wrap(finding.why, "    ", "    ", width)
        if finding.remedy == AS_ROOT:
            continue  # the last line says so once, for all of them
        if finding.remedy:
            yield from _wrap(finding.remedy, "    ", "    ", width)
        for line in finding.commands:
            yield f"        {click.style(printable(line, LONGEST), bold=True)}"


def _wrap(text: str, first: str, rest: str, width: int | None) -> list[str]:
    whole = printable(text, LONGEST)
    if width is None:
        return [first + whole]
    # Neither a path nor an option is broken: whoever copies it wants it whole.
    return textwrap.wrap(
        whole,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def summarise(sites: Sequence[Site], findings: Sequence[Finding], layout: Layout) -> str:
    """The last line, and the only one where nothing is wrong."""
    counts = Counter(finding.severity for finding in findings)
    parts = [
        click.style(_count(counts[severity], severity), fg=COLOURS[severity], bold=True)
        for severity in ORDER
        if counts[severity] and severity is not Severity.INFO
    ]
    if not sites:
        parts.append(f"no site is configured in {layout.sites}; swapd init proposes one")
        return "; ".join(parts)
    names = ", ".join(f"{site.name} ({_find_strategy(site, findings)})" for site in sites)
    is_barred = any(finding.remedy == AS_ROOT for finding in findings)
    more = f"; to see the rest: sudo swapd check{f' {sites[0].name}' if len(sites) == 1 else ''}" if is_barred else ""
    return f"{', '.join(parts) or 'nothing is wrong'}: {names}{more}"


def _count(number: int, severity: Severity) -> str:
    if severity is Severity.UNKNOWN:
        return f"{number} not to be seen by this user"
    return f"{number} {severity.value}{'' if number == 1 else 's'}"


def _find_strategy(site: Site, findings: Iterable[Finding]) -> str:
    """How the site's live paths are swapped, in one word where all are swapped alike."""
    ways = [
        finding.facts["strategy"] for finding in findings if finding.site == site.name and finding.problem == "strategy"
    ]
    return " and ".join(dict.fromkeys(ways)) or f"{site.strategy.value}, not tried"

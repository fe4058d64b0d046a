"""``swapd check``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import click

from swapd.checks import find
from swapd.host.configuration import read_site, read_sites
from swapd.model.config import Site
from swapd.model.errors import ConfigurationError, ExitStatus
from swapd.model.findings import Finding, Severity
from swapd.model.layout import Layout

COLOURS = {Severity.INFO: "green", Severity.WARNING: "yellow", Severity.ERROR: "red"}


@click.command
@click.argument("site", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def command(layout: Layout, site: str | None, as_json: bool) -> int:
    """Validate the configuration and this host: every mistake, how each site is swapped, and what stands in the way.

    Nothing is changed. As root it can look at everything. Ends with 78 when the configuration is bad, and with 1 when
    the next deployment would fail on this host.
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
    findings = [finding for item in sites for finding in find(item, layout)]
    is_good = all(finding.severity is not Severity.ERROR for finding in findings)
    if as_json:
        click.echo(json.dumps(_document(sites, findings, is_good), indent=2))
    elif sites:
        click.echo(f"the configuration is good: {', '.join(item.name for item in sites)}")
        for line in describe(findings):
            click.echo(line)
    else:
        click.echo(f"no site is configured in {layout.sites}; make one with: swapd init SITE --live PATH")
    return ExitStatus.DONE if is_good else ExitStatus.FAILED


def _bad(error: ConfigurationError) -> dict[str, Any]:
    issues = [
        {"file": i.file, "line": i.line, "key": i.key, "message": i.message, "right": i.right} for i in error.issues
    ]
    return {"version": 1, "ok": False, "issues": issues}


def _document(sites: Iterable[Site], findings: Iterable[Finding], is_good: bool) -> dict[str, Any]:
    return {
        "version": 1,
        "ok": is_good,
        "issues": [],
        "sites": {site.name: site.document() for site in sites},
        "findings": [finding.document() for finding in findings],
    }


def describe(findings: Iterable[Finding]) -> Iterator[str]:
    """The findings' lines for people."""
    for finding in findings:
        severity = click.style(finding.severity.value, fg=COLOURS[finding.severity])
        code = "" if finding.severity is Severity.INFO else f" ({finding.problem})"
        yield f"{finding.site}: {severity}: {finding.what}{code}"
        yield f"    {finding.why}"
        if finding.remedy:
            yield f"    {finding.remedy}"

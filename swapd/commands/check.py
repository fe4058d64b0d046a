"""``swapd check``."""

from __future__ import annotations

import json
from typing import Any

import click

from swapd.host.configuration import read_site, read_sites
from swapd.model.errors import ConfigurationError, ExitStatus
from swapd.model.layout import Layout


@click.command
@click.argument("site", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def command(layout: Layout, site: str | None, as_json: bool) -> int:
    """Validate the configuration: every mistake, with its file, line, key, and what would be right."""
    try:
        sites = read_sites(layout)
        if site is not None:
            chosen = read_site(layout, site)
            sites = {chosen.name: chosen}
    except ConfigurationError as error:
        if not as_json:
            raise
        issues = [
            {"file": i.file, "line": i.line, "key": i.key, "message": i.message, "right": i.right} for i in error.issues
        ]
        click.echo(json.dumps({"version": 1, "ok": False, "issues": issues}, indent=2))
        return ExitStatus.CONFIGURATION
    if as_json:
        documents: dict[str, Any] = {name: item.document() for name, item in sites.items()}
        click.echo(json.dumps({"version": 1, "ok": True, "issues": [], "sites": documents}, indent=2))
    elif sites:
        click.echo(f"the configuration is good: {', '.join(sites)}")
    else:
        click.echo(f"no site is configured in {layout.sites}; make one with: swapd init SITE --live PATH")
    return ExitStatus.DONE

"""``swapd pin``."""

from __future__ import annotations

import click

from swapd.commands.holding import set_pinned, wait_option
from swapd.model.layout import Layout


@click.command
@click.argument("site")
@click.argument("release")
@wait_option
@click.pass_obj
def command(layout: Layout, site: str, release: str, patience: float) -> None:
    """Keep RELEASE of SITE whatever keep says, on top of those that count.

    RELEASE is the live one or a kept one; the beginning of its id will do.
    """
    configured, _, chosen = set_pinned(layout, site, release, patience, is_pinned=True)
    click.echo(f"{configured.name}: {chosen} is pinned; swapd unpin {configured.name} {chosen} lets it go in its time")

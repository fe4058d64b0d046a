"""``swapd unpin``."""

from __future__ import annotations

import click

from swapd.commands.holding import set_pinned, wait_option
from swapd.model.layout import Layout
from swapd.stages.prune import releases_to_prune


@click.command
@click.argument("site")
@click.argument("release")
@wait_option
@click.pass_obj
def command(layout: Layout, site: str, release: str, patience: float) -> None:
    """Let the pinned RELEASE of SITE go in its time: keep counts it again.

    The beginning of its id will do.
    """
    configured, state, chosen = set_pinned(layout, site, release, patience, is_pinned=False)
    click.echo(f"{configured.name}: {chosen} is not pinned any more")
    if chosen in releases_to_prune(state, configured.keep):
        click.echo(f"it is past keep = {configured.keep}: the next deployment, or swapd prune, removes it")

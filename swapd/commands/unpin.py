"""``swapd unpin``."""

from __future__ import annotations

from dataclasses import replace

import click

from swapd.commands.holding import find_among, holding, wait_option
from swapd.host import records
from swapd.model.layout import Layout
from swapd.stages.prune import releases_to_prune


@click.command
@click.argument("site")
@click.argument("release")
@wait_option
@click.pass_obj
def command(layout: Layout, site: str, release: str, patience: float) -> None:
    """Let the pinned RELEASE of SITE go in its time: ``keep`` counts it again.

    The beginning of its id will do.
    """
    with holding(layout, site, patience) as (configured, _):
        state = records.read_state(layout, configured.name)
        chosen = find_among(release, state.pinned)
        state = replace(state, pinned=tuple(item for item in state.pinned if item != chosen))
        records.write_state(layout, configured.name, state)
    click.echo(f"{configured.name}: {chosen} is not pinned any more")
    if chosen in releases_to_prune(state, configured.keep):
        click.echo(f"it is past keep = {configured.keep}: the next deployment, or swapd prune, removes it")

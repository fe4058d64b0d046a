"""``swapd pin``."""

from __future__ import annotations

from dataclasses import replace

import click

from swapd.commands.holding import find_among, holding, wait_option
from swapd.host import records
from swapd.model.layout import Layout


@click.command
@click.argument("site")
@click.argument("release")
@wait_option
@click.pass_obj
def command(layout: Layout, site: str, release: str, patience: float) -> None:
    """Keep RELEASE of SITE whatever ``keep`` says, on top of those that count.

    RELEASE is the live one or a kept one; the beginning of its id will do.
    """
    with holding(layout, site, patience) as (configured, _):
        state = records.read_state(layout, configured.name)
        live = (state.live.release,) if state.live else ()
        chosen = find_among(release, (*live, *state.previous))
        if chosen not in state.pinned:
            state = replace(state, pinned=(*state.pinned, chosen))
            records.write_state(layout, configured.name, state)
    click.echo(f"{configured.name}: {chosen} is pinned; swapd unpin {configured.name} {chosen} lets it go in its time")

"""``swapd prune``."""

from __future__ import annotations

import click

from swapd.commands.holding import holding, wait_option
from swapd.host.drift import find_drift
from swapd.model.config import Site
from swapd.model.errors import ExitStatus
from swapd.model.layout import Layout
from swapd.retention import Pruned, prune_releases, sweep
from swapd.stages.prune import find_leftovers


@click.command
@click.argument("site")
@wait_option
@click.pass_obj
def command(layout: Layout, site: str, patience: float) -> int:
    """Remove the releases of SITE that are past keep now, as each deployment does; and what crashes left.

    Says what was removed, and of each release that is kept, why. Never removed: the live release and the one before
    it, pinned ones, and what a process still uses.
    """
    with holding(layout, site, patience) as (configured, context):
        pruned = prune_releases(configured, context)
    for release in pruned.removed:
        click.echo(f"removed  {release}")
    for kept, why in explain_kept(configured, pruned):
        click.echo(f"kept     {kept}: {why}")
    if not pruned.removed:
        click.echo("nothing had to go")
    for line in find_drift(configured, pruned.state):
        click.echo(f"{line}, not what swapd left there; see swapd check {configured.name}", err=True)
    sweep(configured, context)
    left = find_leftovers(configured)
    for path in left:
        click.echo(f"{path} could not be removed whole; the next removal goes on with it", err=True)
    return ExitStatus.FAILED if left else ExitStatus.DONE


def explain_kept(site: Site, pruned: Pruned) -> list[tuple[str, str]]:
    """Each release that is there still, the live one first, and why."""
    state = pruned.state
    explained: list[tuple[str, str]] = []
    if state.live is not None:
        explained.append((state.live.release, "it is live"))
    for number, release in enumerate(state.previous):
        if release in pruned.held:
            why = pruned.held[release]
        elif release in state.pinned:
            why = "it is pinned"
        elif number == 0:
            why = "it was live before"
        else:
            why = f"within keep = {site.keep}"
        explained.append((release, f"{why}; rolled back from" if release in state.bad else why))
    return explained

"""``swapd users``: what the unit's socket starts; see ``swapd.host.usage``."""

from __future__ import annotations

import json

import click

from swapd.host.usage import read_usage


@click.command(hidden=True)
def command() -> None:
    """Print which processes use which files, as one JSON document, for a swapd that may not see it."""
    click.echo(json.dumps(read_usage().document()))

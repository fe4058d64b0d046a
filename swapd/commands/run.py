"""``swapd run``."""

from __future__ import annotations

import click

from swapd.daemon import Daemon
from swapd.model.layout import Layout


@click.command
@click.pass_obj
def command(layout: Layout) -> None:
    """The daemon: what the systemd unit starts."""
    Daemon(layout).run()

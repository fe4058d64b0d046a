"""``swapd run``."""

from __future__ import annotations

import click

from swapd.daemon import Daemon
from swapd.host.eventlog import take_in_complaints
from swapd.model.layout import Layout


@click.command
@click.pass_obj
def command(layout: Layout) -> None:
    """The daemon: what the systemd unit starts."""
    daemon = Daemon(layout)  # whoever starts it is to see what is wrong with the configuration
    take_in_complaints()
    daemon.run()

"""``swapd run``."""

from __future__ import annotations

import click

from swapd.daemon import Daemon
from swapd.host.eventlog import EventLog, take_in_complaints
from swapd.host.journal import is_journal_stream
from swapd.model import events
from swapd.model.errors import ConfigurationError
from swapd.model.layout import Layout


@click.command
@click.pass_obj
def command(layout: Layout) -> None:
    """The daemon: what the systemd unit starts."""
    is_unit = is_journal_stream(2)
    if is_unit:
        take_in_complaints()
    try:
        daemon = Daemon(layout)
    except ConfigurationError as error:
        # What is written to standard error as well has no priority there, and nobody looks for it.
        if is_unit:
            EventLog(layout).emit(events.configuration_unusable(error.issues))
        raise
    take_in_complaints()  # who starts it by hand has seen until here what is wrong
    daemon.run()

"""``swapd resume``."""

from __future__ import annotations

import sys

import click

from swapd.host.eventlog import EventLog
from swapd.ledger import Context
from swapd.model.layout import Layout
from swapd.recover import resume


@click.command
@click.pass_obj
def command(layout: Layout) -> None:
    """Resume whatever swapd stopped; safe at any time.

    Waits for a pause that is going on, up to its longest time. What swapd did not stop stays as it is.
    """
    count = resume(Context(layout, EventLog(layout, is_command=True).emit, lambda *_: None))
    if count:
        click.echo(f"resumed {count} processes")
    elif sys.stdout.isatty():  # the unit runs this at every stop, and the journal need not tell that all was well
        click.echo("nothing of swapd's was stopped")

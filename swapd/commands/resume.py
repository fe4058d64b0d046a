"""``swapd resume``."""

from __future__ import annotations

import sys

import click

from swapd.host.eventlog import EventLog
from swapd.host.journal import is_journal_stream
from swapd.host.resume import resume_leftover
from swapd.model import events
from swapd.model.layout import Layout


@click.command
@click.pass_obj
def command(layout: Layout) -> None:
    """Resume whatever swapd stopped; safe at any time.

    Waits for a pause that is going on, until it is overdue. What swapd did not stop stays as it is.
    """
    count, pauser = resume_leftover(layout)
    if count:
        report(layout, count, pauser)
    elif sys.stdout.isatty():  # the unit runs this at every stop, and the journal need not tell that all was well
        click.echo("nothing of swapd's was stopped")


def report(layout: Layout, count: int, pauser: int) -> None:
    """Says that so many processes were resumed, which the process ``pauser`` had stopped."""
    EventLog(layout).emit(events.resumed_leftover(count, pauser))
    if not is_journal_stream(1):  # it has the event
        click.echo(f"resumed {count} processes")

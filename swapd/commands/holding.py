"""What commands have in common that change what a site knows of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from swapd.host import records
from swapd.host.configuration import read_site
from swapd.host.eventlog import EventLog
from swapd.host.files import locked
from swapd.ledger import Context
from swapd.model.config import Site
from swapd.model.events import Event
from swapd.model.layout import Layout
from swapd.recover import recover

wait_option = click.option(
    "--wait", "patience", default=0.0, metavar="SECONDS", help="Wait so long for a deployment under way."
)


@contextmanager
def holding(layout: Layout, name: str, patience: float) -> Iterator[tuple[Site, Context]]:
    """The site, for as long as nobody deploys to it; what a crash left of it has been put right.

    ``Busy`` when its lock is not free within ``patience`` seconds.
    """
    site = read_site(layout, name)
    emit: Callable[[Event], None] = EventLog(layout, is_command=True).emit if layout.is_host else _discard
    context = Context(layout, emit, lambda *_: None)
    records.make_state_directories(layout, site.name)
    with locked(layout.site_lock(site.name), f"a deployment of {site.name}", patience):
        recover(site, context)
        yield site, context


def _discard(_: Event) -> None:
    """No record: below --root the log is this very terminal, which gets the command's own words."""

"""What commands have in common that change what a site knows of itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from swapd.commands.deploy import discard, show_nothing
from swapd.host import records
from swapd.host.configuration import read_site
from swapd.host.eventlog import EventLog
from swapd.host.files import locked
from swapd.host.users import find_operator
from swapd.ledger import Context
from swapd.model.config import Site
from swapd.model.control import find_release
from swapd.model.errors import Rejected, UsageError
from swapd.model.layout import Layout
from swapd.model.release import ReleaseId
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
    # Below --root the log is this very terminal, which gets the command's own words.
    emit = EventLog(layout, is_command=True).emit if layout.is_host else discard
    context = Context(layout, emit, show_nothing, operator=find_operator())
    records.make_state_directories(layout, site.name)
    with locked(layout.site_lock(site.name), f"a deployment of {site.name}", patience):
        recover(site, context)
        yield site, context


def find_among(text: str, releases: Sequence[ReleaseId]) -> ReleaseId:
    """The release that somebody means who does not type all of its id; ``UsageError`` lists them."""
    try:
        return find_release(text, releases)
    except Rejected as error:
        raise UsageError(error.problem, error.message, error.hint) from error

"""What commands have in common that change what a site knows of itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import click

from swapd.commands.deploy import discard, show_nothing
from swapd.context import Context
from swapd.host import records
from swapd.host.configuration import read_site
from swapd.host.eventlog import EventLog
from swapd.host.files import locked
from swapd.host.users import find_operator
from swapd.model.config import Site
from swapd.model.control import find_release
from swapd.model.errors import Rejected, UsageError
from swapd.model.layout import Layout
from swapd.model.record import SiteState
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
    log = EventLog(layout)
    emit = log.emit if layout.is_host else discard
    context = Context(layout, emit, show_nothing, operator=find_operator(), find_told=log.find_told)
    records.make_state_directories(layout, site.name)
    with locked(layout.site_lock(site.name), f"a deployment of {site.name}", patience):
        recover(site, context)
        yield site, context


def set_pinned(
    layout: Layout, name: str, text: str, patience: float, *, is_pinned: bool
) -> tuple[Site, SiteState, ReleaseId]:
    """The release that ``text`` means is pinned after this, or not any more. With the site, and what it then knows.

    Raises as ``holding`` and ``find_among`` do.
    """
    with holding(layout, name, patience) as (site, _):
        before = records.read_state(layout, site.name)
        live = (before.live.release,) if before.live else ()
        chosen = find_among(text, (*live, *before.previous) if is_pinned else before.pinned)
        pinned = tuple(item for item in before.pinned if item != chosen)
        state = replace(before, pinned=(*pinned, chosen) if is_pinned else pinned)
        if state != before:
            records.write_state(layout, site.name, state)
    return site, state, chosen


def find_among(text: str, releases: Sequence[ReleaseId]) -> ReleaseId:
    """The release that somebody means who does not type all of its id; ``UsageError`` lists them."""
    try:
        return find_release(text, releases)
    except Rejected as error:
        raise UsageError(error.problem, error.message, error.hint) from error

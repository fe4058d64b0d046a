"""``swapd rollback``."""

from __future__ import annotations

from contextlib import suppress

import click

from swapd.commands.deploy import STATUSES, cancellable, discard, print_outcome, publishing, show_nothing
from swapd.context import Context
from swapd.host.configuration import read_site
from swapd.host.eventlog import EventLog
from swapd.host.users import find_operator
from swapd.model.control import RollbackRequest
from swapd.model.errors import Failed, NotComplete
from swapd.model.layout import Layout
from swapd.model.release import recorded_name
from swapd.rollback import rollback
from swapd.stages.mark import announce


@click.command
@click.argument("site")
@click.argument("release", default="")
@click.option("--wait", "patience", default=0.0, metavar="SECONDS", help="Wait so long for a deployment under way.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def command(layout: Layout, site: str, release: str, patience: float, as_json: bool) -> int:
    """Make a kept release of SITE live again now, without the daemon.

    RELEASE is its id, its name, or the beginning of its id; without it, the release before the live one is taken, but
    for those that were rolled back from. What was live is kept, and counts as one of these from now on. Ends with 1
    when this host could not do it, 2 when no such release is kept, 5 when a deployment of the site is under way.
    """
    configured = read_site(layout, site)
    log, request = EventLog(layout), RollbackRequest(release)
    try:
        name = recorded_name(request.name)
        with cancellable() as cancelled, publishing(layout, configured.name, name, show_nothing) as progress:
            # Below --root the log is this very terminal, which gets the outcome anyhow.
            emit = log.emit if layout.is_host else discard
            context = Context(layout, emit, progress, lambda: bool(cancelled), find_operator(), log.find_told)
            # Told when it is live: the files get their new times after that.
            deployment = rollback(configured, request, context, patience, lambda ended: print_outcome(ended, as_json))
    except NotComplete as error:
        raise Failed(error.problem, error.message, error.hint) from error
    with suppress(OSError):
        announce(configured.incoming)
    return STATUSES[deployment.outcome]

"""``swapd follow``."""

from __future__ import annotations

import sys
import time

import click

from swapd.commands.deploy import STATUSES
from swapd.commands.pursuit import Again, Ended, Goes, Gone, Pursuit, State, Waits
from swapd.commands.screens import JsonLines, Lines, Screen, Terminal
from swapd.commands.status import describe_absence
from swapd.host.configuration import read_site
from swapd.host.presence import find_daemon
from swapd.model.errors import Busy, ExitStatus, Failed, SwapdError
from swapd.model.layout import Layout

LOOK = 0.2  # seconds between two looks: some system calls each
ABSENCE = 10.0  # seconds that a daemon may be away: systemd starts one that crashed after three
PATIENCE = 60.0  # seconds without anything under way, unless the command line says otherwise
INTERRUPTED = 130  # as a shell has it: 128 and SIGINT


@click.command
@click.argument("site")
@click.argument("file", default="")
@click.option("--deployment", default="", metavar="ID", help="The deployment of this id, or of one that begins so.")
@click.option(
    "--timeout",
    "patience",
    type=click.FloatRange(min=0),
    default=PATIENCE,
    show_default=True,
    metavar="SECONDS",
    help="End with 5 once nothing has been under way, nor has changed, for so long; 0: never.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document on a line of its own for each step.")
@click.pass_obj
def command(layout: Layout, site: str, file: str, deployment: str, patience: float, as_json: bool) -> int:
    """Show a deployment of SITE as it goes, and end with its outcome as exit status. It needs no root.

    FILE is the name of a tarball in the drop directory. Without it, that is what was dropped last; else what ended
    within the last minute; else what comes next. So this is a deployment with an answer:

    \b
      scp shop-42.tar.gz* web:/var/spool/swapd/shop/ && ssh web swapd follow shop

    Ends with 0 when it is live, or was already; 3 when the tarball was rejected, 1 when this host could not deploy it
    or swapd does not run, 4 when it was rolled back, 5 by --timeout. Ctrl-C ends this command, not the deployment.
    """
    if file and deployment:
        raise click.UsageError("either FILE or --deployment, not both")
    configured = read_site(layout, site)
    screen = JsonLines(configured) if as_json else Terminal(configured) if Terminal.is_there() else Lines(configured)
    pursuit = Pursuit(layout, configured, file.rpartition("/")[2], deployment)
    try:
        return _follow(pursuit, screen, patience)
    except SwapdError as error:
        screen.fail(error)
        raise
    except KeyboardInterrupt:
        screen.close()
        print(f"swapd: this stops nothing but the view; how it goes on: swapd status {site}", file=sys.stderr)
        return INTERRUPTED
    finally:
        screen.close()


def _follow(pursuit: Pursuit, screen: Screen, patience: float) -> ExitStatus:
    """Until there is an outcome: its exit status. ``Failed`` and ``Busy`` where there will be none, or none yet."""
    present = moved = time.monotonic()
    seen: State | None = None
    gone_since: float | None = None
    while True:
        state = pursuit.look()
        screen.show(state, pursuit)
        if isinstance(state, Ended):
            return STATUSES[state.record.outcome]
        if isinstance(state, Gone):
            raise _explain_gone(pursuit, state)
        is_going = isinstance(state, Goes) and state.progress is not None
        present = time.monotonic()
        if is_going or state != seen:
            seen, moved = state, present
        if is_going or find_daemon(pursuit.layout) is not None:
            gone_since = None
        elif gone_since is None:
            gone_since = present
            screen.warn(describe_absence(pursuit.layout))
        is_late = bool(patience) and present - moved >= patience
        if gone_since is not None and (is_late or present - gone_since >= ABSENCE):
            raise _explain_absence(pursuit)
        if is_late:
            raise _explain_patience(pursuit, state, patience)
        time.sleep(LOOK)


def _explain_gone(pursuit: Pursuit, state: Gone) -> Failed:
    return Failed(
        "upload-gone",
        f"{pursuit.site.name}: {state.file_name} was removed from {pursuit.site.incoming} before it was taken up",
        "Nothing was deployed; upload it again.",
    )


def _explain_absence(pursuit: Pursuit) -> Failed:
    what = pursuit.file_name or "what you drop"
    return Failed(
        "daemon-down",
        f"{pursuit.site.name}: swapd still does not run, so {what} has no outcome",
        "The live release is as it was, and nothing that was dropped is lost: it is taken up when swapd runs again.",
    )


def _explain_patience(pursuit: Pursuit, state: State, patience: float) -> Busy:
    """``Busy``: there is no outcome yet, and there may still be one."""
    site, incoming = pursuit.site.name, pursuit.site.incoming
    match state:
        case Waits():
            what = f"{state.upload.file_name}: {state.reason}"
            hint = f"It stays in {incoming} and is deployed once it is complete; follow it again, or see swapd status."
        case Goes() | Again():
            what = f"{pursuit.file_name} was cut short and is not taken up again"
            hint = "journalctl -u swapd says why."
        case _:
            what = f"{pursuit.file_name} did not come" if pursuit.file_name else f"nothing came into {incoming}"
            hint = (
                f"See swapd history {site} for what was deployed before; a new site needs systemctl reload swapd once."
            )
    return Busy("no-outcome", f"{site}: no outcome within {patience:g} s: {what}", hint)

"""The command line: argv in, exit status out."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs a command and ends the process with its exit status."""
    if sys.argv[1:] == ["resume"]:
        _resume_first()
    from swapd.verbs import run

    sys.exit(run())


def _resume_first() -> None:
    """What the unit runs when the daemon has ended: httpd may be stopped, so nothing else is loaded before.

    What cannot be done is for the command to say.
    """
    from swapd.host.resume import resume_leftover
    from swapd.model.errors import SwapdError
    from swapd.model.layout import Layout

    try:
        count, pauser = resume_leftover(Layout())
    except (SwapdError, OSError):
        return
    if count:
        from swapd.commands.resume import report

        report(Layout(), count, pauser)
        sys.exit(0)

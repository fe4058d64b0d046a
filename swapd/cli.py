"""The command line: argv in, exit status out."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> None:
    """Runs a command and ends the process with its exit status."""
    if sys.argv[1:] == ["resume"]:
        _resume_first()
    if sys.argv[1:] == ["users"]:
        _answer()
    if sys.argv[1:2] == ["complete"]:
        _complete()
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


def _answer() -> NoReturn:
    """What the unit's socket starts, and nobody types: who uses what, for the daemon (``swapd.host.usage``).

    A deployment may wait for it, so nothing else is loaded.
    """
    import contextlib
    import json

    from swapd.host.usage import read_usage

    usage = read_usage().document()
    # Whoever asked may have given up.
    with contextlib.suppress(BrokenPipeError), open(1, "w", encoding="utf-8", closefd=False) as answer:
        json.dump(usage, answer)
    sys.exit(0)


def _complete() -> NoReturn:
    """What a shell asks when somebody presses TAB, and nobody types: how the last of the words may go on.

    The typist waits, so nothing else is loaded; and whatever goes wrong, nothing is said into the line being typed.
    """
    from swapd.completion.answers import answer

    try:
        for line in answer(sys.argv[2:]):
            print(line)
        sys.stdout.flush()
    except (OSError, ValueError, RecursionError):  # a file that is not there, not ours, no UTF-8, no TOML
        sys.stdout = None  # Python would say that it cannot be flushed at the end
    sys.exit(0)

"""A command that something befalls: ``python -m tests.crash.command ACTOR STEP ARGUMENT…``.

ACTOR is a function of ``tests.crash.actors``, STEP a part of a step's description, the rest is swapd's command line.
"""

from __future__ import annotations

import sys

from swapd import deploy  # noqa: F401 - what the command imports late is to be wrapped, too
from swapd.cli import main as swapd
from tests.crash import actors
from tests.crash.steps import install


def main() -> None:
    actor, awaited, *arguments = sys.argv[1:]

    def act(step: str) -> None:
        if awaited in step:
            getattr(actors, actor)()

    install(act)
    sys.argv = ["swapd", *arguments]
    swapd()


if __name__ == "__main__":
    main()

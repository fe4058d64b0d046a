"""``swapd run`` with workers that something befalls: ``python -m tests.crash.daemon ROOT MODULE ARGUMENT…``.

The workers are the real ones behind MODULE (``tests.crash.worker``, ``tests.crash.held``), which gets the arguments.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from swapd import daemon
from swapd.cli import main as swapd

# Seconds; what the delay is good for is no concern of most tests that kill hundreds of workers.
RESTART_DELAY = float(os.environ.get("SWAPD_TEST_RESTART_DELAY", "0.2"))


def main() -> None:
    root, module, *arguments = sys.argv[1:]

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, command: list[str], *more: Any, **named: Any) -> None:
            if command[-1] == "swapd.worker":
                command = [*command[:-1], module, *arguments]
            super().__init__(command, *more, **named)

    subprocess.Popen = Popen  # type: ignore[misc]
    daemon.RESTART_DELAY = RESTART_DELAY
    sys.argv = ["swapd", "--root", root, "run"]
    swapd()


if __name__ == "__main__":
    main()

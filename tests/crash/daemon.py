"""``swapd run`` with workers that something befalls: ``python -m tests.crash.daemon ROOT ACTOR STEP [FLAG]``.

The workers are the real ones behind ``tests.crash.worker``, which gets the arguments after ROOT.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from swapd.cli import main as swapd


def main() -> None:
    root, *arguments = sys.argv[1:]

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, command: list[str], *more: Any, **named: Any) -> None:
            if command[-1] == "swapd.worker":
                command = [*command[:-1], "tests.crash.worker", *arguments]
            super().__init__(command, *more, **named)

    subprocess.Popen = Popen  # type: ignore[misc]
    sys.argv = ["swapd", "--root", root, "run"]
    swapd()


if __name__ == "__main__":
    main()

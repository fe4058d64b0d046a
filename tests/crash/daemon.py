"""``swapd run`` with workers that something befalls: ``python -m tests.crash.daemon ROOT MODULE ARGUMENT…``.

The workers are the real ones behind MODULE (``tests.crash.worker``, ``tests.crash.held``), which gets the arguments.
"""

from __future__ import annotations

import importlib
import os
import sys
from functools import partial

from swapd import daemon, worker
from swapd.cli import main as swapd

# Seconds; what the delay is good for is no concern of most tests that kill hundreds of workers.
RESTART_DELAY = float(os.environ.get("SWAPD_TEST_RESTART_DELAY", "0.2"))


def main() -> None:
    root, module, *arguments = sys.argv[1:]
    # The daemon forks its workers: what befalls them begins in each of them, after that.
    worker.work = partial(importlib.import_module(module).work, arguments)
    daemon.RESTART_DELAY = RESTART_DELAY
    sys.argv = ["swapd", "--root", root, "run"]
    swapd()


if __name__ == "__main__":
    main()

"""Swaps on a schedule, on the host: ``python3 -m tests.benchmarks.swapper SCHEDULE``; see ``recipes.Schedule``.

All of swapd's swaps are made by one process, with everything that a deployment does from the search for httpd on to the
end of the guardian, but without the extraction before it. Prints a line of JSON for each swap: when it began and ended
(nanoseconds of CLOCK_MONOTONIC), which release was live then, and how long swapd's window was (microseconds); and one
for each stretch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks.window import Pauser

# As in server.py, which needs more than the host has.
LIVE, STAGED, WWW = "/srv/www/live", "/srv/www/staged", "/srv/www"
WARMING = 1.0  # seconds for the visitors to open their connections


def _shell_line(line: str) -> None:
    # A recipe goes on when one of its commands fails, as it does for whoever types it.
    subprocess.run(["sh", "-c", line], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run(plan: dict[str, Any], swap: Callable[[str], int]) -> None:
    """Swaps as planned; ``swap`` makes the named release live, and returns its window's microseconds."""
    count = 0
    time.sleep(WARMING)
    for _ in range(plan["stretches"]):
        quiet = time.monotonic_ns()
        time.sleep(plan["quiet"])
        begin = time.monotonic_ns()
        for number in range(plan["swaps"]):
            time.sleep(max(0.0, begin / 1e9 + number * plan["interval"] - time.monotonic()))
            mark = "BA"[count % 2]
            count += 1
            swap_begin = time.monotonic_ns()
            usec = swap(mark)
            print(json.dumps({"begin": swap_begin, "end": time.monotonic_ns(), "mark": mark, "usec": usec}))
            if plan["after"]:
                _shell_line(plan["after"])
        time.sleep(plan["interval"])  # what the last swap has upset belongs to the stretch
        print(json.dumps({"quiet": [quiet, begin], "swapping": [begin, time.monotonic_ns()]}), flush=True)


def main() -> None:
    plan = json.loads(sys.argv[1])
    if plan["line"]:

        def swap(mark: str) -> int:
            _shell_line(plan["line"].format(next=f"{WWW}/{mark}"))
            return 0
    else:
        pauser = Pauser(LIVE)

        def swap(mark: str) -> int:  # noqa: ARG001 - the staged tree is the other release by itself
            return pauser.swap(STAGED).duration_usec

    run(plan, swap)


if __name__ == "__main__":
    main()

"""One window of swapd's as shipped, on the host: ``python3 -m tests.benchmarks.window STAGED LIVE``.

A process of its own for each, as a deployment is: nothing is warm that a deployment would find cold. Prints the
nanoseconds from the first SIGSTOP to the last SIGCONT, and how many processes were stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path

from swapd.host import records
from swapd.host.linux import RENAME_EXCHANGE, renameat2, settle_process
from swapd.model.config_parser import parse_document
from swapd.model.layout import Layout
from swapd.model.release import SiteName
from swapd.stages import pause


class Pauser:
    """swapd's pause for a site, without a deployment around it."""

    def __init__(self, live: str) -> None:
        settle_process()
        self.live = live
        self.layout = Layout(Path("/"))
        site = parse_document("bench", {"live": live, "pause": {"mode": "always"}}, self.layout)
        self.rules = site.pause
        records.make_state_directories(self.layout, SiteName("bench"))

    def swap(self, staged: str) -> tuple[int, int]:
        """Exchanges the trees under a pause; its microseconds and its processes."""
        with pause.found(self.rules, self.layout) as quarry:
            if quarry is None:
                raise SystemExit("no httpd runs")
            with pause.paused(quarry, self.rules, self.layout) as window:
                renameat2(staged, self.live, RENAME_EXCHANGE)
        assert window.cost is not None
        return window.cost.duration_usec, window.cost.processes


def main() -> None:
    staged, live = sys.argv[1:]
    usec, processes = Pauser(live).swap(staged)
    print(usec * 1000, processes)


if __name__ == "__main__":
    main()

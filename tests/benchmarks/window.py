"""One window of swapd's as shipped, on the host: ``python3 -m tests.benchmarks.window STAGED LIVE``.

A process of its own for each, as a deployment is: nothing is warm that a deployment would find cold. Prints the
nanoseconds from the first SIGSTOP to the last SIGCONT, and how many processes were stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path

from swapd.host import records
from swapd.host.files import identify
from swapd.host.linux import settle_process
from swapd.host.renames import swap_paths
from swapd.model.config_parser import parse_document
from swapd.model.layout import Layout
from swapd.model.record import How, PathSwap
from swapd.model.release import PauseCost, SiteName
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

    def swap(self, staged: str) -> PauseCost:
        """Exchanges the trees under a pause."""
        swaps = [PathSwap(How.EXCHANGE, staged, self.live, identify(Path(staged)))]
        costs: list[PauseCost] = []
        with pause.found(self.rules, self.layout) as found:
            if found is None:
                raise SystemExit("no httpd runs")
            with pause.paused(found, self.rules, self.layout, ended=costs.append):
                swap_paths(swaps)
        return costs[0]


def main() -> None:
    staged, live = sys.argv[1:]
    cost = Pauser(live).swap(staged)
    print(cost.duration_usec * 1000, cost.processes)


if __name__ == "__main__":
    main()

"""``python -m tests.benchmarks [NAME]… [--quick]``: what swapd costs, measured; needs root.

NAME is pause, visitors, deploy, rollback, php or sites.

These are no tests: nothing asserts a time.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.benchmarks import deploy, pause, php, rollback, sites, visitors
from tests.benchmarks.server import Server, served

ON_A_HOST = {"pause": pause.measure, "visitors": visitors.measure}
ON_THIS_MACHINE = {
    "deploy": deploy.measure,
    "rollback": rollback.measure,
    "php": php.measure,
    "sites": sites.measure,
}
BENCHMARKS = [*ON_A_HOST, *ON_THIS_MACHINE]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("benchmarks", nargs="*", metavar="|".join(BENCHMARKS), help="which to run (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: for a first look, and to see that it runs")
    options = parser.parse_args()
    if unknown := set(options.benchmarks) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    if os.geteuid():
        print("the benchmarks boot a systemd host, which needs root: sudo make bench", file=sys.stderr)
        return 2
    chosen = options.benchmarks or BENCHMARKS
    print(_describe_machine(), flush=True)
    if hosted := [name for name in chosen if name in ON_A_HOST]:
        with served(["floor", "load"]) as server:
            print(_describe(server), flush=True)
            for name in hosted:
                _tell(name, partial(ON_A_HOST[name], server, is_quick=options.quick))
    for name in (name for name in chosen if name in ON_THIS_MACHINE):
        _tell(name, partial(ON_THIS_MACHINE[name], is_quick=options.quick))
    return 0


def _tell(name: str, measure: Callable[[], str]) -> None:
    begin = time.monotonic()
    print(f"\n{name} …", flush=True)
    print(f"\n{measure()}")
    print(f"\n(measured in {time.monotonic() - begin:.0f} s)", flush=True)


def _describe_machine() -> str:
    processors = os.cpu_count() or 1
    load = float(Path("/proc/loadavg").read_text().split()[0])
    said = f"{processors} processors, Linux {platform.release()}, load {load} before"
    if load > processors / 2:
        said += "\nThis machine has other work to do: all figures are too high, the highest ones most of all."
    return said


def _describe(server: Server) -> str:
    return f"on the host Apache {server.apache_version()}, {server.web.run('python3', '--version').strip()}"


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tests.benchmarks [pause|visitors]… [--quick]``: what swapd costs, measured; needs root.

These are no tests: nothing asserts a time.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

from tests.benchmarks import pause, visitors
from tests.benchmarks.server import Server, served

BENCHMARKS = {"pause": pause.measure, "visitors": visitors.measure}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("benchmarks", nargs="*", metavar="pause|visitors", help="which to run (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: for a first look, and to see that it runs")
    options = parser.parse_args()
    if unknown := set(options.benchmarks) - BENCHMARKS.keys():
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    if os.geteuid():
        print("the benchmarks boot a systemd host, which needs root: sudo make bench", file=sys.stderr)
        return 2
    with served(["floor", "load"]) as server:
        print(_describe(server), flush=True)
        for name in options.benchmarks or BENCHMARKS:
            begin = time.monotonic()
            print(f"\n{name} …", flush=True)
            print(f"\n{BENCHMARKS[name](server, is_quick=options.quick)}")
            print(f"\n(measured in {time.monotonic() - begin:.0f} s)", flush=True)
    return 0


def _describe(server: Server) -> str:
    processors = os.cpu_count() or 1
    load = float(Path("/proc/loadavg").read_text().split()[0])
    said = (
        f"{processors} processors, Linux {platform.release()}, load {load} before; on the host "
        f"Apache {server.apache_version()}, {server.web.run('python3', '--version').strip()}"
    )
    if load > processors / 2:
        said += "\nThis machine has other work to do: all figures are too high, the highest ones most of all."
    return said


if __name__ == "__main__":
    sys.exit(main())

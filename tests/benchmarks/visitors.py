"""What visitors notice of swaps: swapd's, and those of the recipes that administrators type."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.benchmarks.load import Request, load
from tests.benchmarks.recipes import RECIPES, SWAPD, Schedule, Way
from tests.benchmarks.server import SSI, Server
from tests.benchmarks.table import Row, is_met, milliseconds, quantile, table
from tests.host.webhost import MPMS

RATE = 400
KEPT = 32  # kept-alive connections
CHILDREN = 64  # of prefork, where each connection takes one; the other modules are as Debian configures them
SCHEDULES = {True: (Schedule(5, 20, 3.0), Schedule(1, 6, 0.2)), False: (Schedule(2, 5, 1.0), Schedule(1, 3, 0.2))}
SLOW_SWAPS = 3  # of those recipes that take their time
ALLOWED = 2.0  # milliseconds that p99.9 may be longer, besides the window


@dataclass(frozen=True, slots=True)
class Swap:
    """A swap that was made; nanoseconds, and its window's milliseconds where it was swapd's."""

    begin: int
    end: int
    mark: str
    window: float


@dataclass(slots=True)
class Run:
    """A load with stretches of swaps in it."""

    requests: list[Request] = field(default_factory=list)
    swaps: list[Swap] = field(default_factory=list)
    quiet: list[tuple[int, int]] = field(default_factory=list)
    swapping: list[tuple[int, int]] = field(default_factory=list)

    def during(self, stretches: Sequence[tuple[int, int]]) -> list[Request]:
        """The requests that were due then."""
        return [request for request in self.requests if any(begin <= request.due < end for begin, end in stretches)]

    def is_stale(self, request: Request) -> bool:
        """Whether a visitor who asked after a swap had ended got what was live before."""
        last = next((swap for swap in reversed(self.swaps) if swap.end < request.sent), None)
        # Unless the next swap had begun when it was answered: whose release it then got, says nothing.
        following = next((swap for swap in self.swaps if swap.end >= request.sent), None)
        if last is None or request.mark == "-" or (following and following.begin < request.done):
            return False
        return request.mark != last.mark


def measure(server: Server, *, is_quick: bool) -> str:
    """Every way under every module of Apache's, as a table."""
    rows: list[Row | str] = []
    lateness: list[float] = []
    own, others = SCHEDULES[not is_quick]
    for mpm in MPMS[:1] if is_quick else MPMS:
        if mpm == "prefork":
            server.use_prefork(CHILDREN)
        else:
            server.web.use_mpm(mpm)
        for keep in (KEPT, 0):
            rows.append(f"{mpm}, {'kept-alive' if keep else 'new'} connections")
            for way in (SWAPD, *RECIPES):
                schedule = own if way is SWAPD else others
                if way.interval >= 1:
                    schedule = Schedule(schedule.stretches, min(schedule.swaps, SLOW_SWAPS), schedule.quiet)
                run = _measure_way(server, way, schedule, keep)
                lateness += [request.lateness for request in run.requests]
                rows += _rows(way, run)
            rows.append("")
            print(f"  {mpm} {'kept' if keep else 'new'}", flush=True)
    legend = LEGEND.format(rate=RATE, kept=KEPT, allowed=ALLOWED, late=milliseconds(quantile(lateness, 0.999)))
    return "\n".join(["Visitors during swaps", "", table(TITLES, rows[:-1]), "", legend])


def _measure_way(server: Server, way: Way, schedule: Schedule, keep: int) -> Run:
    server.lay_out(is_link=way.is_link)
    run = Run()
    with load(server, f"/{SSI}", rate=RATE, keep=keep) as visitors:
        command = server.python("tests.benchmarks.swapper", schedule.document(way))
        done = subprocess.run(command, text=True, capture_output=True, timeout=300)
    if done.returncode:
        raise SystemExit(f"{way.name}: the swapper ended with {done.returncode}:\n{done.stderr}")
    run.requests = visitors.requests
    for line in map(json.loads, done.stdout.splitlines()):
        if "quiet" in line:
            run.quiet.append((line["quiet"][0], line["quiet"][1]))
            run.swapping.append((line["swapping"][0], line["swapping"][1]))
        else:
            run.swaps.append(Swap(line["begin"], line["end"], line["mark"], line["usec"] / 1000))
    return run


TITLES = (
    *("swapped by", "swaps", "takes", "asked", "failed", "mixed", "stale"),
    *("p50", "p99", "p99.9", "max", "goal"),
)
LEGEND = """\
Open-loop: {rate} requests a second, for a page that reads five files, on {kept} kept-alive or on new
connections; p50 to max are milliseconds from when a request was due. The generator itself was {late} ms
late at p99.9. Of swapd's own row, "goal" is what p99.9 is to stay within.

nobody  the same load in the quiet stretches between those of swapd's swaps
takes   milliseconds of one swap, median; of swapd: the window
failed  no answer, no 200, or a part of the page missing; nothing is tried again
mixed   one page with parts of both releases
stale   asked after the swap had ended, answered with the release before it
goal    none failed, and p99.9 is at most nobody's + the p99 of swapd's windows + {allowed:g} ms"""


def _rows(way: Way, run: Run) -> list[Row]:
    swapping = run.during(run.swapping)
    if way is not SWAPD:
        return [_row(way.name, run, swapping, "")]
    quiet = run.during(run.quiet)
    most = _p999(quiet) + quantile([swap.window for swap in run.swaps], 0.99) + ALLOWED
    goal = f"{milliseconds(most)} {is_met(not _failed(swapping) and _p999(swapping) <= most)}"
    return [_row("nobody", Run(), quiet, ""), _row(way.name, run, swapping, goal)]


def _failed(requests: Sequence[Request]) -> int:
    return sum(request.outcome not in ("ok", "mixed") for request in requests)


def _p999(requests: Sequence[Request]) -> float:
    return quantile([request.latency for request in requests], 0.999)


def _row(name: str, run: Run, requests: Sequence[Request], goal: str) -> Row:
    takes = [swap.window or (swap.end - swap.begin) / 1e6 for swap in run.swaps]
    latencies = [request.latency for request in requests]
    return [
        name,
        str(len(run.swaps) or "-"),
        milliseconds(quantile(takes, 0.5)) if takes else "-",
        str(len(requests)),
        str(_failed(requests)),
        str(sum(request.outcome == "mixed" for request in requests)),
        str(sum(run.is_stale(request) for request in requests)),
        *(milliseconds(quantile(latencies, share)) for share in (0.5, 0.99, 0.999)),
        milliseconds(max(latencies)),
        goal,
    ]

"""The pause window of prefork: swapd, the floor in C, and the recipe that administrators type."""

from __future__ import annotations

import contextlib
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.load import Load, load
from tests.benchmarks.server import LIVE, LUA, SOURCE, STAGED, WWW, Server
from tests.benchmarks.table import is_met, milliseconds, quantile, table

CHILDREN = (16, 100, 400)
ROUNDS, QUICK_ROUNDS = 21, 7
GAP = 0.05  # seconds for Apache to come to rest after each window
# The visitors of a loaded case: so many a second, for a page that computes for 0.5 ms (about a fifth of two cores) and
# waits for as long as it takes to keep this share of the children busy.
RATE = 400
TURNS = 20_000
BUSY = 0.25
# bash's own clock: a `date` would be one more process in the figure.
RECIPE = (
    f"begin=$EPOCHREALTIME; killall -STOP apache2; mv {LIVE} {WWW}/old; mv {STAGED} {LIVE}; killall -CONT apache2; "
    f"echo $(( ${{EPOCHREALTIME/./}} - ${{begin/./}} )); mv {WWW}/old {STAGED}"
)

# From the issue: factors of the medians, and milliseconds for single cases.
MOST_OF_FLOOR = 1.5
MOST_OF_RECIPE = 0.1
MOST = {(16, False): 1.0, (400, True): 15.0}


@dataclass(slots=True)
class Case:
    """What was measured with so many children, with visitors or without: milliseconds of each window."""

    children: int
    is_loaded: bool
    master: int  # its process
    swapd: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    recipe: list[float] = field(default_factory=list)
    wedged: int = 0
    busy: float = 0.0  # share of the processors' time

    def row(self) -> list[str]:
        swapd, floor, recipe = (quantile(values, 0.5) for values in (self.swapd, self.floor, self.recipe))
        figures = [
            milliseconds(quantile(values, share))
            for values in (self.floor, self.swapd, self.recipe)
            for share in (0.5, 0.9)
        ]
        goals = [is_met(swapd <= MOST_OF_FLOOR * floor), is_met(swapd <= MOST_OF_RECIPE * recipe)]
        most = MOST.get((self.children, self.is_loaded))
        absolute = f"<{most:g} {is_met(swapd < most)}" if most else "-"
        name = f"{self.children} {'loaded' if self.is_loaded else 'idle'}"
        ratios = [f"{swapd / floor:.2f}", goals[0], f"{swapd / recipe:.3f}", goals[1], absolute]
        return [name, f"{100 * self.busy:.0f}%", *figures, *ratios]


TITLES = (
    *("children", "cpu", "floor", "p90", "swapd", "p90", "recipe", "p90"),
    *("/floor", "<=1.5", "/recipe", "<=0.1", "ms"),
)
LEGEND = """\
Milliseconds from the first SIGSTOP to the last SIGCONT, medians and p90 of {rounds} windows each, taken in turn.
floor   the same signals and looks in C, and nothing else (tests/benchmarks/floor.c)
swapd   the window as shipped, a new process for each
recipe  killall -STOP apache2; mv live old; mv new live; killall -CONT apache2, from its beginning to its end.
        It looks at nobody: nothing says that all were stopped when it renamed. {wedged}
loaded  {rate} visitors a second keep a quarter of the children busy; cpu: both processors' busy time in the case"""


def measure(server: Server, *, is_quick: bool) -> str:
    """All six cases, as a table."""
    rounds = QUICK_ROUNDS if is_quick else ROUNDS
    cases: list[Case] = []
    server.lay_out()
    for children in CHILDREN:
        server.use_prefork(children)
        for is_loaded in (False, True):
            cases.append(_measure_case(server, Case(children, is_loaded, server.master()), rounds))
            print(f"  {' '.join(cases[-1].row()[:1])}", flush=True)
    wedged = sum(case.wedged for case in cases)
    said = f"It left Apache stopped {wedged} times." if wedged else "It left nobody stopped."
    legend = LEGEND.format(rounds=rounds, rate=RATE, wedged=said)
    return "\n".join(["The pause window", "", table(TITLES, [case.row() for case in cases]), "", legend])


def _measure_case(server: Server, case: Case, rounds: int) -> Case:
    waits = 1000 * BUSY * case.children / RATE
    visitors: contextlib.AbstractContextManager[Load | None] = contextlib.nullcontext()
    if case.is_loaded:
        visitors = load(server, f"/{LUA}?{waits:.0f},{TURNS}", rate=RATE)
    with visitors as served:
        time.sleep(1 if case.is_loaded else GAP)
        before = _processor_times()
        for _ in range(rounds):
            _measure_round(server, case)
        case.busy = _busy_share(before, _processor_times())
    if served and (failed := [request for request in served.requests if request.outcome not in ("ok", "mixed")]):
        print(f"  {len(failed)} of {len(served.requests)} visitors failed: {failed[0]}")
    return case


def _measure_round(server: Server, case: Case) -> None:
    case.floor.append(_nanoseconds(server.host.enter(f"{SOURCE}/floor", str(case.master), STAGED, LIVE), case))
    time.sleep(GAP)
    case.swapd.append(_nanoseconds(server.python("tests.benchmarks.window", STAGED, LIVE), case))
    time.sleep(GAP)
    case.recipe.append(int(_output(server.host.enter("bash", "-c", RECIPE))) / 1000)
    time.sleep(GAP)
    if server.web.stopped_httpd():
        case.wedged += 1
        server.web.run("killall", "-CONT", "apache2")


def _nanoseconds(command: list[str], case: Case) -> float:
    """Milliseconds of one window, which must have stopped every child and the master."""
    nanoseconds, processes = map(int, _output(command).split())
    if processes != case.children + 1:
        raise SystemExit(f"{command} stopped {processes} processes of {case.children + 1}")
    return nanoseconds / 1e6


def _output(command: list[str]) -> str:
    done = subprocess.run(command, text=True, capture_output=True, timeout=60)
    if done.returncode or not done.stdout:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def _processor_times() -> list[int]:
    first, _ = Path("/proc/stat").read_text().split("\n", 1)
    return [int(value) for value in first.split()[1:9]]


def _busy_share(before: list[int], after: list[int]) -> float:
    spent = [new - old for old, new in zip(before, after, strict=True)]
    return 1 - (spent[3] + spent[4]) / sum(spent)  # idle and iowait, proc(5)

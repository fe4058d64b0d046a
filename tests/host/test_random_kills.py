"""Hundreds of deployments on real hosts, with kills at random moments of whatever of swapd there is.

The unit is the package's, in its sandbox; systemd brings back what is killed, and the daemon its workers, both sooner
than they would (``tests.host.field``). The three sites of a host take turns, so that a round need not wait until the
one before is over. Who looks at httpd's processes and at the live paths does so all the time. ``make soak`` has
thousands; tests/crash/test_soak.py does the same without systemd.
"""

from __future__ import annotations

import os
import random
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.crash.actors import kill_something
from tests.host import journal
from tests.host.field import FORGIVEN, STRATEGIES, Field, opened, warnings_of_kills
from tests.host.lanes import play_in_lanes
from tests.host.looks import unit_pids
from tests.host.machine import wait_until
from tests.host.stops import stopped
from tests.host.webhost import MPMS
from tests.host.whole import watched
from tests.support.httpd import state_of

ROUNDS = 50  # under each module
SOAK_ROUNDS = int(os.environ.get("SOAK_ROUNDS", "100")) * 10
PAUSE = 0.003  # seconds; about as long as a pause takes

pytestmark = pytest.mark.timeout(900)


def kill(field: Field, daemon: int, source: random.Random) -> str:
    """Some of swapd's processes, or the whole cgroup, or nobody."""
    if source.random() < 1 / 8:
        field.kill_cgroup()
        return "cgroup"
    return kill_something(daemon, source) if daemon else "nobody there"


def wait_moment(field: Field, source: random.Random, takes: float) -> str:
    """Any moment of a deployment that takes so long; each second time one in the pause, which is its shortest part."""
    longest, since = takes, "the drop"
    if source.random() < 1 / 2:
        longest, since = PAUSE, "the first stop"
        master, gives_up = field.master(), time.monotonic() + 2 * takes
        while state_of(master) != "T" and time.monotonic() < gives_up:
            time.sleep(50e-6)
    delay = source.uniform(0, longest)
    time.sleep(delay)  # a random moment is the point
    return f"{delay:.4f} s after {since}"


def play_rounds(field: Field, rounds: int, source: random.Random, history: list[str]) -> None:
    """Deployments, each with a kill at a random moment of it; all are live in the end."""
    began = time.monotonic()
    field.deploy(STRATEGIES[0])
    takes = time.monotonic() - began
    under_way: dict[str, tuple[Path, dict[str, str]]] = {}
    for number in range(rounds):
        strategy = STRATEGIES[number % len(STRATEGIES)]
        if strategy in under_way:
            field.wait_live(strategy, *under_way.pop(strategy), FORGIVEN)
        tarball, content = field.new_release(strategy)
        daemon = next((pid for pid in unit_pids(field.web.host, "swapd") if field.is_daemon(pid)), 0)
        under_way[strategy] = field.drop(strategy, tarball), content
        moment = wait_moment(field, source, takes)
        history.append(f"{number} {strategy}: {moment} {kill(field, daemon, source)}")
    for strategy, upload in under_way.items():
        field.wait_live(strategy, *upload, FORGIVEN)
    for strategy in STRATEGIES:
        field.deploy(strategy)


def play_lane(base: Path, package: Path, mpm: str, rounds: int, seed: int) -> dict[str, Any]:
    """All rounds under one of Apache's modules, on a host of its own."""
    history: list[str] = []
    failure, began = "", time.monotonic()
    with opened(base, package, mpm) as field:
        mark = journal.mark(field.web.host)
        field.stops.reset()
        try:
            with watched(field) as broken:
                play_rounds(field, rounds, random.Random(f"{seed} {mpm}"), history)
            assert not broken, broken[:3]
            field.check_stops()
            wait_until(lambda: not stopped(field.web.host), "httpd runs")
            field.check_told(mark, warnings_of_kills())
        except (AssertionError, OSError):
            failure = f"{mpm}, SOAK_SEED={seed}:\n{traceback.format_exc()}\n{history[-10:]}\n{field.describe()}"
        took = time.monotonic() - began
        print(
            f"{mpm}: {len(history)} rounds in {took:.0f} s; stopped for at most {field.stops.longest:.3f} s", flush=True
        )
    return {"failure": failure}


def play_all(base: Path, package: Path, rounds: int) -> None:
    seed = int(os.environ.get("SOAK_SEED", random.randrange(1 << 32)))
    print(f"SOAK_SEED={seed}")
    reports = play_in_lanes({mpm: partial(play_lane, base, package, mpm, rounds, seed) for mpm in MPMS})
    failures = [report["failure"] for report in reports.values() if report["failure"]]
    assert not failures, "\n\n".join(failures)


def test_hundreds_of_kills_at_random(base: Path, package: Path) -> None:
    play_all(base, package, ROUNDS)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_thousands_of_kills_at_random(base: Path, package: Path) -> None:
    play_all(base, package, SOAK_ROUNDS)

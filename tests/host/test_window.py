"""Killed, stopped or robbed of one another at every step of the window, on a host with the real Apache under each MPM.

A step is a call of the worker's that changes something outside of it (``tests.crash.steps``), from the pause's lock to
the removal of its record. The steps are those that a deployment was seen to take, so one that is added tomorrow is
among them. The worker waits right before the step; what befalls it, the daemon, the guardian or the whole cgroup is
done from outside, and everything then goes on as it may.

Which cases are played by ``make test``: under Apache's default module, event, each step from the first SIGSTOP on with
each actor, the strategies taking turns; what only one strategy does is played with each actor. Before the first
SIGSTOP, and under prefork and worker, each step of each strategy with one actor, the next step with the next one, so
that each actor has its turn at each part of the window. ``make soak`` plays every step with every actor under every
strategy and module. Under worker, daemon and workers are started again as late as it is shipped, so that their
successors cannot stand in for whoever has to resume.

What must hold: no process of httpd's was stopped for longer than ``max`` and a tenth of a second, but when everything
of swapd's hangs: then the unit's watchdog ends it. The live path is the old or the new release, byte for byte. The next
deployment works, that of the same upload among them. Nothing is left stopped, and nothing of swapd's lies about.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from swapd.daemon import RESTART_DELAY
from tests.crash.actors import guardian_of
from tests.host import journal
from tests.host.conftest import Expected
from tests.host.field import STRATEGIES, Field, opened
from tests.host.hook import Held
from tests.host.lanes import play_in_lanes
from tests.host.machine import wait_until
from tests.host.webhost import MPMS
from tests.support.httpd import parent_of, state_of

WHOLLY = "event"  # the module under which all is played
BARELY = "worker"  # the module under which whoever was killed comes back as late as it is shipped
WATCHDOG = 2  # seconds
UNIT = f"WatchdogSec={WATCHDOG}s\n"
SLOWLY = f"RestartSec=3s\nEnvironment=SWAPD_TEST_RESTART_DELAY={RESTART_DELAY}\n"
ENDING = 1.5  # seconds that it may take to end a unit whose watchdog has barked, and to run its ExecStopPost=
LANES = 2  # hosts with that module
# How a deployment may fail whose worker hangs until the guardian has ended the pause: by its deadline, or by the second
# rename of two, because the guardian has taken the first one back.
FORGIVEN = ("pause-timed-out", "cannot-swap")
MOST_FAILURES = 3  # after which a lane gives up

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True, slots=True)
class Actor:
    """What befalls whom. The cgroup is killed as a whole, as an out-of-memory kill may do."""

    whom: tuple[str, ...]
    number: signal.Signals

    def __str__(self) -> str:
        return f"{self.number.name} of {'+'.join(self.whom)}"

    @property
    def hangs_all(self) -> bool:
        return self.number is signal.SIGSTOP and len(self.whom) == 3


PARTIES = (
    ("worker",),
    ("daemon",),
    ("guardian",),
    ("worker", "guardian"),
    ("worker", "daemon"),
    ("worker", "guardian", "daemon"),
)
ACTORS = (
    *(Actor(whom, number) for whom in PARTIES for number in (signal.SIGKILL, signal.SIGSTOP)),
    Actor(("cgroup",), signal.SIGKILL),
)


@dataclass(frozen=True, slots=True)
class Case:
    strategy: str
    step: str
    actor: Actor

    def __str__(self) -> str:
        return f"{self.actor} before “{self.step}” of {self.strategy}"


def record_window(field: Field, strategy: str) -> list[str]:
    """The steps of a deployment's window, from the pause's lock to the removal of its record."""
    tarball, content = field.new_release(strategy)
    field.hook.tell()
    dropped = field.drop(strategy, tarball)
    steps = list(field.hook.told())
    field.wait_live(strategy, dropped, content)
    field.check_tidy(strategy)
    ours = [number for number, step in enumerate(steps) if "pause." in step]
    return steps[ours[0] : ours[-1] + 1]


def choose(windows: dict[str, list[str]], mpm: str, *, is_soak: bool) -> list[Case]:
    """The cases of a module: see above."""
    steps = list(dict.fromkeys(step for window in windows.values() for step in window))
    cases = []
    for turn, (strategy, window) in enumerate(windows.items()):
        for step in window:
            number = steps.index(step)
            actors = find_actors(window, step)
            if not is_soak and (mpm != WHOLLY or _is_before(window, step, "send SIGSTOP")):
                actors = [actors[(number + turn * len(steps)) % len(actors)]]
            elif not is_soak and all(step in other for other in windows.values()):
                actors = actors[(turn - number) % len(windows) :: len(windows)]
            cases += [Case(strategy, step, actor) for actor in actors]
    return cases


def _is_before(window: list[str], step: str, first: str) -> bool:
    return window.index(step) < next(number for number, name in enumerate(window) if name.startswith(first))


def find_actors(window: list[str], step: str) -> list[Actor]:
    """All but those that only the guardian is the matter of, where there is none yet."""
    is_unguarded = step.startswith("start ") or _is_before(window, step, "start swapd.host.guardian")
    return [actor for actor in ACTORS if actor.whom != ("guardian",) or not is_unguarded]


def befall(field: Field, actor: Actor, held: Held) -> None:
    """The daemon first, the worker last: nobody is to act upon another's end before his own."""
    if actor.whom == ("cgroup",):
        field.kill_cgroup()
    else:
        pids = {"daemon": parent_of(held.pid), "worker": held.pid}
        with contextlib.suppress(AssertionError):  # not started yet
            pids["guardian"] = guardian_of(held.pid)
        for whom in ("daemon", "guardian", "worker"):
            if whom in actor.whom and whom in pids:
                with contextlib.suppress(ProcessLookupError):  # systemd was quicker, who saw the daemon's end
                    os.kill(pids[whom], actor.number)
                wait_until(lambda: state_of(pids[whom]) in "TZX", f"the {whom} is hit")  # noqa: B023 - called at once
    held.release()


def play(field: Field, case: Case) -> tuple[float, float]:
    """One case: how long a process was stopped at most, and the lateness of the looks."""
    actor = case.actor
    tarball, content = field.new_release(case.strategy)
    field.stops.reset()
    field.hook.hold(case.step)
    dropped = field.drop(case.strategy, tarball)
    befall(field, actor, field.hook.wait_held())
    is_worker_hit = actor.whom not in (("daemon",), ("guardian",))
    if not is_worker_hit:
        field.wait_ended(dropped)
    wait_until(lambda: not field.stops.is_anything_stopped(), "httpd runs", deadline=10, explain=field.describe)
    field.check_whole(case.strategy, content)
    field.continue_all()
    hangs = actor.number is signal.SIGSTOP
    field.wait_live(case.strategy, dropped, content, FORGIVEN if hangs and is_worker_hit else ())
    field.check_tidy(case.strategy)
    return field.check_stops(WATCHDOG + ENDING) if actor.hangs_all else field.check_stops()


def play_lane(base: Path, package: Path, mpm: str, lane: int, lanes: int, is_soak: bool) -> dict[str, Any]:
    """Every so-manieth case of the module, on a host of its own."""
    failures, played = [], []
    began = time.monotonic()
    with opened(base, package, mpm, UNIT + SLOWLY * (mpm == BARELY)) as field:
        mark = journal.mark(field.web.host)
        windows = {strategy: record_window(field, strategy) for strategy in STRATEGIES}
        for case in choose(windows, mpm, is_soak=is_soak)[lane::lanes]:
            try:
                played.append((case.step, str(case.actor), *play(field, case)))
            except (AssertionError, OSError):
                failures.append(f"{mpm}: {case}\n{traceback.format_exc()}\n{field.describe()}")
                if len(failures) == MOST_FAILURES or not field.mend():
                    break
        try:
            for strategy in STRATEGIES:
                field.deploy(strategy)
            field.check_told(mark, expected_warnings())
        except (AssertionError, OSError):
            failures.append(f"{mpm}: at the end\n{traceback.format_exc()}")
    print(f"{mpm}: {len(played)} cases in {time.monotonic() - began:.0f} s", flush=True)
    return {"failures": failures, "played": played, "steps": [*itertools.chain(*windows.values())]}


def expected_warnings() -> Expected:
    """What systemd and swapd say of all this."""
    expected = Expected()
    for message in (
        "code=killed, status=9/KILL",
        "code=killed, status=6/ABRT",
        "code=dumped, status=6/ABRT",
        "Failed with result 'signal'",
        "Failed with result 'watchdog'",
        "Failed with result 'core-dump'",
        "Watchdog timeout",
        "the worker ended by signal 9; its successor recovers",
    ):
        expected.warning(MESSAGE=message)
    expected.warning(MESSAGE_ID=journal.RECOVERED)
    expected.warning(MESSAGE_ID=journal.RESUMED_LEFTOVER)
    for problem in ("crashed", *FORGIVEN):
        expected.warning(SWAPD_OUTCOME="failed", SWAPD_PROBLEM=problem)
    return expected


def play_all(base: Path, package: Path, is_soak: bool) -> dict[str, list[dict[str, Any]]]:
    """The lanes' reports, by module."""
    lanes = {mpm: LANES if mpm == WHOLLY or is_soak else 1 for mpm in MPMS}
    plays = {
        f"{mpm} {lane}": partial(play_lane, base, package, mpm, lane, count, is_soak)
        for mpm, count in lanes.items()
        for lane in range(count)
    }
    reports = play_in_lanes(plays)
    return {mpm: [reports[name] for name in plays if name.startswith(f"{mpm} ")] for mpm in MPMS}


def check(reports: list[dict[str, Any]]) -> None:
    """No case failed; each step was met, and each actor."""
    print_measured(reports)
    failures = [failure for report in reports for failure in report["failures"]]
    assert not failures, "\n\n".join(failures)
    played = [case for report in reports for case in report["played"]]
    assert {step for step, *_ in played} == {step for report in reports for step in report["steps"]}
    assert {actor for _, actor, *_ in played} == set(map(str, ACTORS))


def print_measured(reports: list[dict[str, Any]]) -> None:
    """How many cases there were of each actor, and the longest that any process was stopped."""
    played = [case for report in reports for case in report["played"]]
    for actor in map(str, ACTORS):
        if times := [times for _, name, *times in played if name == actor]:
            stopped, late = map(max, zip(*times, strict=True))
            print(f"{len(times):4} × {actor}: stopped for at most {stopped:.3f} s, looked at up to {late:.3f} s late")


@pytest.fixture(scope="module")
def reports(base: Path, package: Path) -> dict[str, list[dict[str, Any]]]:
    """Of all modules, played side by side."""
    return play_all(base, package, is_soak=False)


@pytest.mark.parametrize("mpm", MPMS)
def test_befallen_at_every_step_of_the_window(reports: dict[str, list[dict[str, Any]]], mpm: str) -> None:
    check(reports[mpm])


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_befallen_by_everything_at_every_step(base: Path, package: Path) -> None:
    for reports in play_all(base, package, is_soak=True).values():
        check(reports)

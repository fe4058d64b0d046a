"""The pause's own algorithm, and what resumes after it, over drawn lives of simulated processes.

The processes and their time are simulated, because the real kernel cannot be told when to give a number away again,
when a fork ends or a thread begins: ``tests/support/simulated.py``. What the pause does with real ones is in
``test_pause.py``.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from swapd.host import processes, quarry, resume
from swapd.host.listeners import Counters
from swapd.host.quarry import Quarry, find_quarry
from swapd.model.config import Pause, PauseMode
from swapd.model.errors import Failed
from swapd.model.record import PauseRecord
from swapd.stages import pause
from tests.support.simulated import HTTPD, STEP, Fate, Role, Simulated, Simulation, Thread

RULES = Pause(PauseMode.ALWAYS, (HTTPD,), 1.0)
DEADLINES = (0.02, 0.005, 0.002, 0.0005)  # seconds from the first signal on
PHASES = (Phase.generate, Phase.shrink)
fates = st.binary(min_size=600, max_size=600)


class NoListeners:
    """Simulated processes have none."""

    def __init__(self, _: Iterable[int]) -> None:
        pass

    def counters(self) -> Counters:
        return Counters(0, 0, 0)


class Killed(BaseException):
    """The pauser does nothing any more."""


def grow(fate: Fate) -> tuple[Simulation, list[Simulated]]:
    """One or two servers as they stood before the pause, and their masters."""
    simulation = Simulation(fate)
    masters = [simulation.spawn(Role.FORKING) for _ in range(1 + fate.pick(2))]
    for master in masters:
        children = [simulation.spawn(Role.LEAF, master) for _ in range(fate.pick(4))]
        if fate.pick(4):
            nursery = simulation.spawn(Role.FORKING, master)
            children += [nursery, *(simulation.spawn(Role.LEAF, nursery) for _ in range(1 + fate.pick(2)))]
        if fate.pick(3) == 1:
            master.threads.append(Thread())
        for process in (master, *children):
            if fate.pick(12) == 1:
                simulation.stop_by_others(process)
    return simulation, masters


@contextlib.contextmanager
def driven(simulation: Simulation, masters: list[Simulated]) -> Iterator[None]:
    """Within, swapd sees the simulated processes and their time, and no others."""

    def find_masters(*_: object) -> list[int]:
        return [master.identity.pid for master in masters if master.threads[0].state != "X"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "child_pids", simulation.child_pids)
        patch.setattr(processes, "read_status", simulation.read_status)
        for module in (processes, quarry, resume):
            patch.setattr(module, "Process", simulation.open)
        patch.setattr(quarry, "Parent", simulation.parent)
        patch.setattr(quarry, "find_masters", find_masters)
        patch.setattr(quarry, "Listeners", NoListeners)
        patch.setattr(pause, "time", simulation)
        patch.setattr(pause, "os", SimpleNamespace(sched_yield=simulation.sched_yield, getpid=os.getpid))
        yield


class Pauser:
    """What a pause does, without its guardian, its listeners and the disk."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.quarry: Quarry = find_quarry(RULES, 0.0)
        self.problem = ""
        self.finds: Callable[[list[Any]], object] = lambda _: None
        simulation.leading = [held.process for held in self.quarry.masters]  # type: ignore[attr-defined]
        self.record: PauseRecord = pause._record(self.quarry, RULES, ())
        simulation.are_numbers_reused = True
        for _ in range(simulation.fate.pick(8)):  # a guardian is started
            simulation.step()
        longest = DEADLINES[simulation.fate.pick(4)]
        self.has_time = longest == DEADLINES[0]  # for all that comes, unless one does not stop at all
        self.deadline = simulation.deadline = simulation.steps * STEP + longest

    def stop(self) -> bool:
        """Whether the window opened."""
        try:
            pause._stop(self.quarry, self.deadline, self.finds)
        except Failed as failed:
            self.problem = failed.problem
            return False
        return True

    def resume(self) -> None:
        pause._resume(self.quarry)


def restless(simulation: Simulation, found: Quarry) -> list[Simulated]:
    """What should rest in the window, and does not.

    Not what a process made that has no children of httpd's: that may be about to become another program. Nor an orphan
    that nobody had seen: nothing tells that it was httpd's.
    """
    held = held_by(found)
    forking: set[Any] = {parent.process.identity for parent in found.forking}
    return [
        process
        for process in simulation.everybody
        if not process.is_at_rest and (process in held or is_new(process, forking))
    ]


def held_by(found: Quarry) -> set[Simulated]:
    return {held.process for held in (*found.masters, *found.children)}  # type: ignore[attr-defined]


def is_new(process: Simulated, forking: set[Any]) -> bool:
    return process.role is Role.LEAF and process.parent is not None and process.parent.identity in forking


def is_below(process: Simulated | None, masters: list[Simulated]) -> bool:
    """Whether it is one of the masters, or was at its birth below one."""
    while process is not None and process not in masters:
        process = process.forked_by
    return process is not None


def check_signals(simulation: Simulation, masters: list[Simulated]) -> None:
    """Nobody was signalled who is none of ours, or whom somebody else had stopped."""
    for process, _ in simulation.signals:
        assert is_below(process, masters)
        assert not process.stopped_by_others
    for process in simulation.everybody:
        if process.stopped_by_others:
            assert process.threads[0].state == "T"


def stopped(simulation: Simulation) -> list[Simulated]:
    """What the pause left stopped, once all signals have taken effect."""
    simulation.settle()
    return [
        process
        for process in simulation.everybody
        if not process.stopped_by_others and any(thread.state == "T" for thread in process.threads)
    ]


@settings(max_examples=1000, phases=PHASES)
@given(fates)
def test_all_rest_when_the_window_opens_and_none_after_it(drawn: bytes) -> None:
    simulation, masters = grow(Fate(drawn))
    with driven(simulation, masters):
        pauser = Pauser(simulation)
        if pauser.stop():
            assert restless(simulation, pauser.quarry) == []
            assert simulation.looked_at >= held_by(pauser.quarry), "a last look at everything, and nothing after it"
            assert simulation.steps * STEP <= pauser.deadline
            assert not any(leader.has_ended for leader in simulation.leading)
        elif pauser.problem == "httpd-restarted":
            assert any(leader.has_ended for leader in simulation.leading)
        else:
            assert simulation.steps * STEP > pauser.deadline
            assert pauser.problem == "pause-timed-out"
            in_vfork = [process for process in held_by(pauser.quarry) if process.has_vforked]
            assert in_vfork or not pauser.has_time
        count = len(simulation.signals)
        pauser.resume()
    order = [process in simulation.leading for process, _ in simulation.signals[count:]]
    assert order == sorted(order), "children first"
    assert {number for _, number in simulation.signals[count:]} <= {signal.SIGCONT}
    assert stopped(simulation) == []
    check_signals(simulation, masters)


def is_findable(process: Simulated, record: PauseRecord) -> bool:
    """Whether the record leads to the process, by its parents as they are now."""
    recorded = {*record.masters, *record.children}
    line: Simulated | None = process
    while line is not None and line.identity not in recorded and line.name == HTTPD:
        line = line.parent
    return line is not None and line.identity in recorded


@settings(max_examples=2000, phases=PHASES)
@given(fates, st.integers(1, 200), st.booleans())
def test_what_a_dead_pauser_left_is_resumed(drawn: bytes, call: int, is_held: bool) -> None:
    """Killed at any of its calls; ``is_held``: by a guardian that took hold of the processes beforehand."""
    simulation, masters = grow(Fate(drawn))

    def die() -> None:
        raise Killed

    with driven(simulation, masters):
        pauser = Pauser(simulation)
        held: dict[Any, Any] = {}
        if is_held:
            resume.hold((*pauser.record.children, *pauser.record.masters), held)
            pauser.finds = lambda identities: resume.hold(identities, held)
        simulation.at_call[simulation.calls + call] = die
        with contextlib.suppress(Killed):
            pauser.stop()
            pauser.resume()
        simulation.at_call.clear()
        simulation.deadline = float("inf")
        for _ in range(simulation.fate.pick(16)):
            simulation.step()
        simulation.are_numbers_reused = False
        lost = [
            process
            for process in simulation.everybody
            if process.identity not in held and not is_findable(process, pauser.record)
        ]
        resume.resume_recorded(pauser.record, held)
    assert [process for process in stopped(simulation) if process not in lost] == []
    check_signals(simulation, masters)


@settings(max_examples=500, phases=PHASES)
@given(fates, st.integers(1, 200))
def test_a_pauser_that_hung_leaves_nothing_stopped(drawn: bytes, call: int) -> None:
    """At any of its calls; meanwhile its guardian resumed all, and it goes on past its deadline."""
    simulation, masters = grow(Fate(drawn))
    with driven(simulation, masters):
        pauser = Pauser(simulation)

        def hang() -> None:
            simulation.steps += round(max(pauser.deadline - simulation.steps * STEP, 0) / STEP)
            simulation.deadline = float("inf")
            simulation.leading = []
            simulation.are_numbers_reused = False
            resume.resume_recorded(pauser.record)
            simulation.are_numbers_reused = True
            simulation.deadline = pauser.deadline

        simulation.at_call[simulation.calls + call] = hang
        pauser.stop()
        pauser.resume()
    assert stopped(simulation) == []
    check_signals(simulation, masters)

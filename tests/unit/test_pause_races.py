"""What the drawn lives of ``test_pause_trees.py`` meet too seldom to count on."""

from __future__ import annotations

import signal

import pytest

from swapd.host import resume
from tests.support.simulated import Fate, Role, Simulated, Simulation
from tests.unit.test_pause_trees import Pauser, driven, restless, stopped


def test_a_fork_that_ends_after_the_parent_was_asked_for_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent is no master, goes on for a while, and stops right after its fork."""
    simulation = Simulation(Fate(b""))
    nursery = simulation.spawn(Role.FORKING, simulation.spawn(Role.FORKING))
    simulation.spawn(Role.LEAF, nursery)
    with driven(simulation, simulation.everybody[:1]):
        pauser = Pauser(simulation)
        (parent,) = (parent for parent in pauser.quarry.forking if parent.process.identity == nursery.identity)
        asking, sending = parent.changed_child_pids, parent.process.send

        def ask() -> list[int]:
            pids = asking()
            if not nursery.is_at_rest:
                simulation.spawn(Role.LEAF, nursery)
                nursery.threads[0].stops_at = simulation.steps
            return pids

        def send(number: signal.Signals) -> None:
            sending(number)
            if number == signal.SIGSTOP:
                nursery.threads[0].stops_at = simulation.steps + 40

        monkeypatch.setattr(parent, "changed_child_pids", ask)
        monkeypatch.setattr(parent.process, "send", send)
        assert pauser.stop()
        assert restless(simulation, pauser.quarry) == []
        pauser.resume()
    assert stopped(simulation) == []


def test_a_master_that_ends_as_soon_as_it_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a SIGTERM that waited, say. What it forked after the record was written is nobody's child then."""
    simulation = Simulation(Fate(b""))
    master = simulation.spawn(Role.FORKING)
    with driven(simulation, [master]):
        pauser = Pauser(simulation)
        late = simulation.spawn(Role.LEAF, master)
        assert pauser.stop()
        assert late.is_at_rest
        sending = simulation.send

        def send(process: Simulated, number: signal.Signals) -> None:
            sending(process, number)
            if process is master:
                simulation.end(master)

        monkeypatch.setattr(simulation, "send", send)
        assert resume.resume_recorded(pauser.record) == 2
    assert stopped(simulation) == []

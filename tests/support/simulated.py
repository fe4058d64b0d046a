"""A simulated kernel's processes, for what the real one cannot be made to do on demand.

A number that is another's by now, a fork that is under way when the signal comes: the real kernel does each now and
then, and neither when a test asks. So here time passes only within the calls that swapd makes, and what happens in it
is drawn. What is real is everything of swapd's above ``Process`` and ``Parent``, which have tests on the real kernel.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from swapd.host.processes import Status
from swapd.model.record import ProcessIdentity

HTTPD, OTHER = "httpd", "php"
STEP = 10e-6  # seconds
FIRST_PID = 1 << 23  # above every real number, so that ours is not among them
REST = 30  # steps before a number is given away again
AT_REST = frozenset("TZX")


class Role(Enum):
    """What a process does when it has the processor."""

    FORKING = auto()  # forks leaves, and reaps them
    LEAF = auto()  # starts programs, and threads
    PROGRAM = auto()  # between fork or vfork and exec it has httpd's name
    STRANGER = auto()  # httpd by its name and not of the tree


ENDINGS = {Role.FORKING: [15], Role.STRANGER: [15], Role.LEAF: [6, 7, 8, 9], Role.PROGRAM: [6, 7, 8, 9]}


class Fate:
    """What happens next, drawn beforehand. At its end, and where it is zero, nothing unusual happens any more."""

    def __init__(self, drawn: bytes) -> None:
        self._drawn = iter(drawn)

    def pick(self, count: int) -> int:
        return next(self._drawn, 0) % count


@dataclass(slots=True)
class Thread:
    state: str = "S"
    stops_at: int = -1  # the step at which a SIGSTOP that was sent takes effect


@dataclass(eq=False, slots=True)
class Simulated:
    """A process. It is Z once it has ended, and X when it has been reaped."""

    identity: ProcessIdentity
    role: Role
    parent: Simulated | None
    name: str = HTTPD
    threads: list[Thread] = field(default_factory=lambda: [Thread()])
    forked_by: Simulated | None = None
    stopped_by_others: bool = False
    has_vforked: Simulated | None = None  # the child for which it waits

    @property
    def is_at_rest(self) -> bool:
        return all(thread.state in AT_REST for thread in self.threads)

    @property
    def has_ended(self) -> bool:
        return self.threads[0].state in "ZX"


class Simulation:
    """Processes, and the time in which they run."""

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        self.steps = 0
        self.calls = 0
        self.deadline = float("inf")
        self.late = 0
        self.are_numbers_reused = False  # not amid a look at everybody: the kernel goes through all others first
        self.at_call: dict[int, Callable[[], object]] = {}
        self.everybody: list[Simulated] = []
        self.leading: list[Simulated] = []  # the masters of what is stopped
        self.looked_at: set[Simulated] = set()  # and found to rest, since the last wait or signal
        self.signals: list[tuple[Simulated, signal.Signals]] = []
        self._by_pid: dict[int, Simulated] = {}
        self._free: list[tuple[int, int]] = []  # numbers, and the step at which each became free

    # What swapd calls. Each takes time, in which the others go on.

    def _pass_time(self, least: int = 1) -> None:
        self.calls += 1
        if self.steps * STEP > self.deadline:
            self.late += 1
            # At most everything but one look of `_stop`, before it reads the clock.
            assert self.late <= 10 * len(self.everybody) + 10, "it goes on after its deadline"
        if act := self.at_call.pop(self.calls, None):
            act()
        for _ in range(least + self.fate.pick(3)):
            self.step()

    def monotonic(self) -> float:
        self._pass_time()
        return self.steps * STEP

    def sleep(self, seconds: float) -> None:
        self.looked_at.clear()
        self._pass_time(round(seconds / STEP))

    def sched_yield(self) -> None:
        self.sleep(STEP)

    def child_pids(self, pid: int) -> list[int]:
        self._pass_time()
        return [child.identity.pid for child in self.children(self._by_pid.get(pid))]

    def read_status(self, pid: int) -> Status | None:
        self._pass_time()
        process = self._by_pid.get(pid)
        return process and Status(process.name, process.threads[0].state, 0, 1, process.identity.start_time)

    def open(self, pid: int) -> Held:
        self._pass_time()
        if pid not in self._by_pid:
            raise ProcessLookupError(pid)
        return Held(self, self._by_pid[pid])

    def parent(self, held: Held) -> Parent:
        self._pass_time()
        return Parent(self, held)

    def send(self, process: Simulated, number: signal.Signals) -> None:
        self._pass_time()
        if process.threads[0].state == "X":
            return
        self.signals.append((process, number))
        self.looked_at.clear()
        if number == signal.SIGSTOP and process not in self.leading:
            assert all(leader.is_at_rest for leader in self.leading), "masters first, and seen stopped"
        for thread in process.threads:
            if number == signal.SIGCONT:
                thread.stops_at = -1
                thread.state = "S" if thread.state == "T" else thread.state
            elif thread.state != "T":
                thread.stops_at = self.steps + self.fate.pick(12) ** 2

    # What happens.

    def step(self) -> None:
        """Signals that were sent take effect; one of the processes acts, if it runs."""
        self.steps += 1
        for process in self.everybody:
            for thread in process.threads:
                if 0 <= thread.stops_at <= self.steps and thread.state in "RS":
                    thread.state, thread.stops_at = "T", -1
        action = self.fate.pick(16)
        if action == 0:
            return
        alive = [process for process in self.everybody if not process.is_at_rest] or self.everybody
        process = alive[self.fate.pick(len(alive))]
        running = next((thread for thread in process.threads if thread.state in "RS"), None)
        if running is not None:
            running.state = "R"
            if action in ENDINGS[process.role]:
                self.end(process)
            else:
                self._act(process, running, action)

    def settle(self) -> None:
        """Until every signal has taken effect; nobody acts meanwhile."""
        self.fate = Fate(b"")
        for _ in range(150):
            self.step()

    def _act(self, process: Simulated, thread: Thread, action: int) -> None:
        match process.role, action:
            case Role.FORKING, 1 | 2 | 3 | 4 | 5:
                self.spawn(Role.LEAF, process)
            case Role.FORKING, 6 | 7 | 8 | 9:
                for child in filter(lambda child: child.has_ended, self.children(process)):
                    self._reap(child)
            case Role.LEAF, 1 | 2:
                self.spawn(Role.PROGRAM, process)
            case Role.LEAF, 3 if not process.has_vforked:
                process.has_vforked = self.spawn(Role.PROGRAM, process)
                thread.state = "D"
            case Role.LEAF, 4 | 5 if not process.has_vforked:
                # It has the SIGSTOP of its process to come, as every other thread has.
                process.threads.append(Thread("R", thread.stops_at + 3 if thread.stops_at >= 0 else -1))
            case Role.PROGRAM, 1 | 2 | 3:
                process.name = OTHER
                self._release_vfork(process)
            case Role.LEAF, 14:
                self.add_stranger()

    def spawn(self, role: Role, parent: Simulated | None = None) -> Simulated:
        """A new process, under a number that another one has had where the fate says so."""
        pid = FIRST_PID + len(self.everybody)
        if self.are_numbers_reused and self._free and self._free[0][1] < self.steps - REST and self.fate.pick(4) != 1:
            pid, _ = self._free.pop(0)
        process = Simulated(ProcessIdentity(pid, len(self.everybody)), role, parent, forked_by=parent)
        self.everybody.append(process)
        self._by_pid[pid] = process
        return process

    def add_stranger(self) -> None:
        """Processes called as httpd's, one of them stopped, and all of them none of ours."""
        child = self.spawn(Role.STRANGER, self.spawn(Role.STRANGER))
        self.stop_by_others(child)

    def stop_by_others(self, process: Simulated) -> None:
        process.stopped_by_others = True
        for thread in process.threads:
            thread.state = "T"

    def end(self, process: Simulated) -> None:
        for thread in process.threads:
            thread.state, thread.stops_at = "Z", -1
        process.has_vforked = None
        self._release_vfork(process)
        for child in self.children(process):
            child.parent = None
            if child.has_ended:
                self._reap(child)
        if process.parent is None:
            self._reap(process)

    def _reap(self, process: Simulated) -> None:
        for thread in process.threads:
            thread.state = "X"
        process.parent = None
        del self._by_pid[process.identity.pid]
        self._free.append((process.identity.pid, self.steps))

    def _release_vfork(self, child: Simulated) -> None:
        for process in self.everybody:
            if process.has_vforked is child:
                process.has_vforked = None
                for thread in process.threads:
                    thread.state = "R" if thread.state == "D" else thread.state

    def children(self, parent: Simulated | None) -> list[Simulated]:
        return [process for process in self.everybody if process.parent is parent is not None]


class Held:
    """As ``Process``."""

    def __init__(self, simulation: Simulation, process: Simulated) -> None:
        self._simulation = simulation
        self.process = process
        self.identity, self.name = process.identity, process.name

    def close(self) -> None:
        pass

    def state(self) -> str:
        self._simulation._pass_time()
        return self.process.threads[0].state

    def is_at_rest(self) -> bool:
        self._simulation._pass_time()
        if self.process.is_at_rest:
            self._simulation.looked_at.add(self.process)
        return self.process.is_at_rest

    def is_there(self) -> bool:
        self._simulation._pass_time()
        return self.process.threads[0].state != "X"

    def send(self, number: signal.Signals) -> None:
        assert number == signal.SIGCONT or self.name == HTTPD
        self._simulation.send(self.process, number)


class Parent:
    """As ``Parent``."""

    def __init__(self, simulation: Simulation, held: Held) -> None:
        self._simulation = simulation
        self._process = held.process
        self.process = held
        self._seen: list[int] = []

    def close(self) -> None:
        pass

    def changed_child_pids(self) -> list[int]:
        self._simulation._pass_time()
        pids = [child.identity.pid for child in self._simulation.children(self._process)]
        if pids == self._seen and len(self._process.threads) == 1:
            return []
        self._seen = pids
        return pids

"""Pause: stop the httpd processes, see them stopped, and resume them whatever happens.

Facts that this stage rests on:

- SIGSTOP is asynchronous: of 200 immediate readings of /proc 31 still showed R. Paused means seen stopped.
- A child that exits while its parent is stopped is a zombie and never shows T: Z and X count as stopped. A script
  that waited for T alone left a loaded Apache stopped for ever.
- Parent first, then its children until there are no new ones; resumed the other way round. Children first missed
  processes that the parent forked meanwhile.
- Nothing but us resumes a stopped process. So what is about to be stopped is written down before the first SIGSTOP,
  and a guardian process resumes it all when we die or hang; ``swapd resume`` does the same from what is written.
- SIGCONT makes poll() return EINTR, at which Apache's event MPM and nginx expire kept-alive connections whose time is
  over: a pause must stay far below KeepAliveTimeout.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from swapd.host import processes, records
from swapd.host.files import locked
from swapd.host.guardian import ARMED, DISMISSED
from swapd.host.linux import boot_id
from swapd.host.masters import find_masters
from swapd.host.processes import STOPPED, Process
from swapd.host.programs import own_program
from swapd.host.resume import resume_abandoned
from swapd.model.config import Pause
from swapd.model.errors import Busy, Failed
from swapd.model.layout import Layout
from swapd.model.record import PauseRecord, ProcessIdentity, Rename, now
from swapd.model.release import PauseCost

EAGER_LOOKS = 50  # most stop within the first ones; what takes longer gets the processor, for SPIN seconds a look
SPIN = 50e-6
# Resuming 400 processes that all want the processor at once takes 72 ms at nice 0, and 8 ms at nice -10.
NICENESS = -10
ARMING_PATIENCE = 10.0  # seconds for a new process to start on a loaded machine
LOCK_PATIENCE = 3 * ARMING_PATIENCE  # for the pauses of other sites
SAFE = "Everything that was stopped has been resumed, and the live release is untouched."


@dataclass(slots=True)
class Quarry:
    """The processes that a pause will stop: found and held beforehand, so that the window need not look for them.

    ``forking`` are those that have children of httpd's: only they are asked for new ones in the window. Another child
    may be about to exec a program that a page asked for; were that one stopped inside vfork, its parent never would be.
    """

    names: frozenset[str]
    masters: list[Process]
    children: list[Process]
    already_stopped: list[Process]
    forking: list[int]

    def close(self) -> None:
        for process in (*self.masters, *self.children, *self.already_stopped):
            process.close()

    @property
    def size(self) -> int:
        """How many processes the pause stops."""
        return len(self.masters) + len(self.children)


@dataclass(slots=True)
class Window:
    """An open window: everything is stopped. ``cost`` is known once it is closed."""

    quarry: Quarry
    deadline: float  # of time.monotonic()
    cost: PauseCost | None = None


@contextlib.contextmanager
def found(rules: Pause, layout: Layout) -> Iterator[Quarry | None]:
    """The processes to pause, or None when no httpd runs; one pause at a time on a host, for as long as this lasts.

    What an earlier pause left stopped by a crash is resumed first. Raises ``Failed`` when one of the processes cannot
    be signalled, or another pause does not end.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(layout.pause_lock, "another pause", patience=LOCK_PATIENCE))
        except Busy as busy:
            raise Failed("pause-busy", "another pause on this host does not end", "Run swapd resume.") from busy
        resume_abandoned(layout)
        quarry = _find(rules)
        stack.callback(quarry.close)
        _refuse_unreachable(quarry)
        yield quarry if quarry.size else None


def _find(rules: Pause) -> Quarry:
    names = frozenset(rules.processes)
    masters: list[Process] = []
    for pid in find_masters(names, rules.user):
        with contextlib.suppress(ProcessLookupError):
            masters.append(Process(pid))
    children = processes.descendants([process.identity.pid for process in masters], names, ())
    everything = {process.identity.pid for process in (*masters, *children)}
    forking = [pid for pid in everything if everything.intersection(processes.child_pids(pid))]
    # What somebody else has stopped is left as it is: neither stopped nor, above all, resumed.
    already_stopped = [process for process in (*masters, *children) if process.state() == STOPPED]
    return Quarry(
        names,
        [process for process in masters if process not in already_stopped],
        [process for process in children if process not in already_stopped],
        already_stopped,
        forking or [process.identity.pid for process in masters],
    )


def _refuse_unreachable(quarry: Quarry) -> None:
    for process in (*quarry.masters, *quarry.children):
        if not process.may_signal():
            raise Failed(
                "may-not-signal",
                f"process {process.identity.pid} ({process.name}) may not be signalled by user {os.geteuid()}",
                "Nothing was stopped and the live release is untouched. swapd needs CAP_KILL (the unit grants it), or "
                "[pause] user to name whose processes it is to pause.",
            )


@contextlib.contextmanager
def paused(quarry: Quarry, rules: Pause, layout: Layout, undo: tuple[Rename, ...] = ()) -> Iterator[Window]:
    """In the body, every process of ``quarry`` and every child it has by then is stopped, and was just seen stopped.

    They are resumed when the body ends, however it ends. The body is a rename or two and nothing else; ``undo`` is for
    whoever resumes when we die between the two. Raises ``Failed`` (``pause-timed-out``) when one does not stop in time;
    everything is then resumed, and no body ran.
    """
    records.write_pause(layout, _record(quarry, rules, undo))
    try:
        with _guarded(layout):
            begin = time.monotonic()
            window = Window(quarry, begin + rules.max)
            try:
                _stop(window)
                yield window
            finally:
                _resume(quarry)
                window.cost = PauseCost(round((time.monotonic() - begin) * 1e6), quarry.size)
    finally:
        records.remove_pause(layout)


def _stop(window: Window) -> None:
    """Masters first, seen stopped: they fork no more. Then the children, until there are no new ones and all rest.

    The last round looks at every process once more: at its end, all rest at once.
    """
    quarry = window.quarry
    known = {process.identity.pid for process in (*quarry.masters, *quarry.children, *quarry.already_stopped)}
    _send(quarry.masters, signal.SIGSTOP)
    _wait(quarry.masters, window.deadline)
    _send(quarry.children, signal.SIGSTOP)
    while True:
        new = processes.open_children(quarry.forking, quarry.names, known)
        quarry.children.extend(new)
        known.update(process.identity.pid for process in new)
        _send(new, signal.SIGSTOP)
        is_quiet = _wait((*quarry.masters, *quarry.children), window.deadline) and not new
        if time.monotonic() > window.deadline:
            raise Failed("pause-timed-out", "the pause reached its longest time before the swap", SAFE)
        if is_quiet:
            return


def _send(group: list[Process], number: signal.Signals) -> None:
    for process in group:
        process.send(number)


def _wait(group: list[Process] | tuple[Process, ...], deadline: float) -> bool:
    """Until all of the group rest; whether they did so at the first look."""
    waiting = _restless(group)
    looks = 1
    while waiting:
        if time.monotonic() > deadline:
            process = waiting[0]
            raise Failed(
                "pause-timed-out",
                f"process {process.identity.pid} ({process.name}) is still in state {process.state()}",
                SAFE,
            )
        if looks < EAGER_LOOKS:
            os.sched_yield()
        else:
            time.sleep(SPIN)
        waiting = _restless(waiting)
        looks += 1
    return looks == 1


def _restless(group: Iterable[Process]) -> list[Process]:
    return [process for process in group if not (process.is_at_rest() and process.are_threads_at_rest())]


def _resume(quarry: Quarry) -> None:
    """Children first, the master last: a master that ran before them would see its children stopped."""
    for process in (*reversed(quarry.children), *quarry.masters):
        with contextlib.suppress(PermissionError):
            process.send(signal.SIGCONT)


def _record(quarry: Quarry, rules: Pause, undo: tuple[Rename, ...]) -> PauseRecord:
    own = processes.read_status(os.getpid())
    return PauseRecord(
        boot_id(),
        ProcessIdentity(os.getpid(), own.start_time if own else 0),
        now(),
        tuple(process.identity for process in quarry.masters),
        tuple(process.identity for process in quarry.children),
        tuple(process.identity for process in quarry.already_stopped),
        tuple(sorted(quarry.names)),
        rules.max,
        undo,
    )


@contextlib.contextmanager
def _guarded(layout: Layout) -> Iterator[None]:
    """A guardian stands by, and nothing of our own lengthens the window or breaks into it.

    No garbage collection, and no signal: a KeyboardInterrupt could strike amid the resuming, a terminal's Ctrl-Z would
    stop us with httpd. The guardian inherits the mask. Within, there is no log, no look-up, no import and no fsync.
    ``Failed`` (``no-guardian``) when there cannot be one.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        guardian = _arm(layout)
        gc.disable()
        try:
            yield
        finally:
            gc.enable()
            with contextlib.suppress(BrokenPipeError):
                guardian.communicate(DISMISSED)
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _arm(layout: Layout) -> subprocess.Popen[bytes]:
    """A guardian that has read the pause record and stands by."""
    safe = "Nothing was stopped and the live release is untouched."
    try:
        guardian = subprocess.Popen(
            own_program("swapd.host.guardian", str(layout.pause_record)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # what is done to our process group or session leaves it alive
        )
    except OSError as error:
        raise Failed("no-guardian", f"the guardian cannot be started: {error.strerror}", safe) from error
    said = b""
    if guardian.stdout is not None:
        poll = select.poll()
        poll.register(guardian.stdout, select.POLLIN)
        if poll.poll(ARMING_PATIENCE * 1000):
            said = os.read(guardian.stdout.fileno(), len(ARMED))
    if said != ARMED:
        guardian.kill()
        guardian.communicate()
        raise Failed("no-guardian", "the guardian does not stand by", f"{safe} See journalctl -u swapd for why.")
    return guardian

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
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from swapd.host import processes, records
from swapd.host.files import locked
from swapd.host.guard import ARMING_PATIENCE, guarded
from swapd.host.linux import boot_id
from swapd.host.listeners import Counters
from swapd.host.processes import ENDED, Process
from swapd.host.quarry import Quarry, find_quarry, refuse_forbidden, warn_of_full_queues
from swapd.host.resume import resume_abandoned
from swapd.model.config import Pause
from swapd.model.errors import Busy, Failed
from swapd.model.layout import Layout
from swapd.model.record import PathSwap, PauseRecord, ProcessIdentity, now
from swapd.model.release import PauseCost

EAGER_LOOKS = 50  # most stop within the first ones; what takes longer gets the processor, for SPIN seconds a look
SPIN = 50e-6
LOCK_PATIENCE = 3 * ARMING_PATIENCE  # seconds, for the pauses of other sites
SAFE = "Everything that was stopped has been resumed, and the live release is untouched."


class Restarted(Failed):
    """A master has ended since it was found: another may run by now, which nobody has stopped. Find them again."""


@dataclass(frozen=True, slots=True)
class Found:
    """The processes to pause, and the lock that makes it one pause at a time on a host."""

    quarry: Quarry
    lock: int


@contextlib.contextmanager
def found(rules: Pause, layout: Layout) -> Iterator[Found | None]:
    """The processes to pause, or None when no httpd runs; one pause at a time on a host, for as long as this lasts.

    What an earlier pause left stopped by a crash is resumed first. Raises ``Failed`` when one of the processes cannot
    be signalled, its service's watchdog would end it, or another pause does not end.
    """
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(locked(layout.pause_lock, "another pause", patience=LOCK_PATIENCE))
        except Busy as busy:
            raise Failed("pause-busy", "another pause on this host does not end", "Run swapd resume.") from busy
        resume_abandoned(layout)
        quarry = find_quarry(rules, time.monotonic())
        stack.callback(quarry.close)
        refuse_forbidden(quarry, rules)
        yield Found(quarry, lock) if quarry.size else None


@contextlib.contextmanager
def paused(
    found: Found,
    rules: Pause,
    layout: Layout,
    undo: tuple[PathSwap, ...] = (),
    *,
    ended: Callable[[PauseCost], object] = lambda _: None,
) -> Iterator[None]:
    """In the body, every process of the quarry and every child it has by then is stopped, and was just seen stopped.

    They are resumed when the body ends, however it ends. The body is a rename or two and nothing else; ``undo`` is for
    whoever resumes when we die amid several. ``ended`` is called after all is resumed, whether the body ran or not.
    Raises ``Failed`` (``pause-timed-out``) when one does not stop in time, ``Restarted`` when a master has ended since
    it was found; everything is then resumed, and no body ran.
    """
    quarry = found.quarry
    records.write_pause(layout, _record(quarry, rules, undo))
    begin = end = 0.0
    before = quarry.counters
    try:
        with guarded(layout, found.lock) as guardian:
            before = quarry.listeners.counters()
            records.stamp_pause(layout)
            begin = time.monotonic()
            try:
                _stop(quarry, begin + rules.max, guardian.take)
                yield
            except OSError as error:
                if time.monotonic() > begin + rules.max:
                    raise Failed("pause-timed-out", "swapd itself was held up amid the pause", SAFE) from error
                raise
            finally:
                try:
                    quarry.listeners.ask()
                finally:
                    _resume(quarry)
                    end = time.monotonic()
    finally:
        records.remove_pause(layout)
        if end:
            warn_of_full_queues(quarry, before, begin, rules.max)
            ended(_cost(quarry, before, end - begin))


def _stop(quarry: Quarry, deadline: float, finds: Callable[[list[ProcessIdentity]], object]) -> None:
    """Masters first, seen stopped: they fork no more. Then the children, until there are no new ones and all rest.

    The last round looks at every process once more: at its end, all rest at once, under the masters that were found.
    ``finds`` is told of what the pause record does not name.
    """
    _send(quarry.masters, signal.SIGSTOP)
    _wait(quarry.masters, deadline)
    _send(quarry.children, signal.SIGSTOP)
    # A fork that was under way may end after the SIGSTOP: only those that rest have no new children any more.
    _wait([parent.process for parent in quarry.forking], deadline)
    # Nor is a number of one that has ended given to a new child any more.
    held = (*quarry.masters, *quarry.children, *quarry.already_stopped)
    known = {process.identity.pid for process in held if process.is_there()}
    while True:
        forked = [pid for parent in quarry.forking for pid in parent.changed_child_pids()]
        new = processes.open_named(forked, quarry.names, known)
        if new:
            finds([process.identity for process in new])
            quarry.children.extend(new)
            known.update(process.identity.pid for process in new)
            _send(new, signal.SIGSTOP)
        is_quiet = _wait((*quarry.masters, *quarry.children), deadline) and not new
        if is_quiet and any(process.state() in ENDED for process in quarry.masters):
            raise Restarted("httpd-restarted", "httpd was restarted, again and again, while it was being paused", SAFE)
        if time.monotonic() > deadline:
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
    return [process for process in group if not process.is_at_rest()]


def _resume(quarry: Quarry) -> None:
    """Children first, the master last: a master that ran before them would see its children stopped."""
    for process in (*reversed(quarry.children), *quarry.masters):
        with contextlib.suppress(OSError):  # whatever it is, the others must go on
            process.send(signal.SIGCONT)


def _cost(quarry: Quarry, before: Counters, seconds: float) -> PauseCost:
    after = quarry.listeners.counters()
    return PauseCost(
        round(seconds * 1e6),
        quarry.size,
        quarry.listeners.queues(),
        max(after.overflows - before.overflows, 0),
        max(after.drops - before.drops, 0),
    )


def _record(quarry: Quarry, rules: Pause, undo: tuple[PathSwap, ...]) -> PauseRecord:
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

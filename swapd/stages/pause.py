"""Pause: stop the httpd processes, see them stopped, and resume them whatever happens.

Facts that this stage rests on:

- SIGSTOP is asynchronous: of 200 immediate readings of /proc 31 still showed R. Paused means seen stopped.
- A child that exits while its parent is stopped is a zombie and never shows T: Z and X count as stopped. A script
  that waited for T alone left a loaded Apache stopped for ever.
- Parent first, then its children until there are no new ones; resumed the other way round. Children first missed
  processes that the parent forked meanwhile.
- Nothing but us resumes a stopped process. So what is about to be stopped is written down before the first SIGSTOP,
  and a guardian process resumes it all when we die or hang; ``swapd resume`` does the same from what is written.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from swapd.host import processes, records
from swapd.host.files import locked
from swapd.host.linux import boot_id
from swapd.host.processes import AT_REST, STOPPED, Process
from swapd.model.config import Pause
from swapd.model.errors import Busy, Failed
from swapd.model.layout import Layout
from swapd.model.record import PauseRecord, ProcessIdentity
from swapd.model.release import PauseCost

# How long to leave the processor to the processes that are stopping, between two readings of their states.
SPIN = 50e-6
SAFE = "Everything that was stopped has been resumed, and the live release is untouched."


@dataclass(slots=True)
class Quarry:
    """The processes that a pause will stop: found and held beforehand, so that the window need not look for them."""

    names: frozenset[str]
    masters: list[Process]
    children: list[Process]
    already_stopped: list[Process] = field(default_factory=list)

    def close(self) -> None:
        for process in (*self.masters, *self.children, *self.already_stopped):
            process.close()


@dataclass(slots=True)
class Window:
    """An open window: everything is stopped. ``cost`` is known once it is closed."""

    quarry: Quarry
    deadline: float  # of time.monotonic()
    cost: PauseCost | None = None

    def recheck(self) -> None:
        """Raises ``Failed`` (``pause-lost``) when anything runs again, or the time is over. For just before the rename.

        Whoever else continues a process (an administrator, php-fpm's master, systemd's stop) is not fought.
        """
        for process in (*self.quarry.masters, *self.quarry.children):
            if (state := process.state()) not in AT_REST:
                raise Failed(
                    "pause-lost", f"process {process.identity.pid} ({process.name}) runs again, in state {state}", SAFE
                )
        if time.monotonic() > self.deadline:
            raise Failed("pause-too-long", "the pause reached its longest time before the swap", SAFE)


@contextlib.contextmanager
def found(rules: Pause) -> Iterator[Quarry | None]:
    """The processes to pause, or None when no httpd runs. ``Failed`` when one of them cannot be signalled."""
    names = frozenset(rules.processes)
    quarry = Quarry(names, [], [])
    try:
        for pid in processes.find_masters(names, rules.user):
            with contextlib.suppress(ProcessLookupError):
                quarry.masters.append(Process(pid))
        quarry.children = processes.descendants([process.identity.pid for process in quarry.masters], names, ())
        _set_stopped_aside(quarry)
        _refuse_unreachable(quarry)
        yield quarry if quarry.masters or quarry.children else None
    finally:
        quarry.close()


def _set_stopped_aside(quarry: Quarry) -> None:
    """What somebody else has stopped is left as it is: neither stopped nor, above all, resumed."""
    quarry.already_stopped = [p for p in (*quarry.masters, *quarry.children) if p.state() == STOPPED]
    quarry.masters = [process for process in quarry.masters if process not in quarry.already_stopped]
    quarry.children = [process for process in quarry.children if process not in quarry.already_stopped]


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
def paused(quarry: Quarry, rules: Pause, layout: Layout) -> Iterator[Window]:
    """Every process of ``quarry``, and every child it has by then, is stopped and seen stopped in the body.

    They are resumed when the body ends, however it ends. One pause at a time on a host. Raises ``Failed``
    (``pause-timed-out``) when one of them does not stop in time; everything is then resumed, and the body never ran.
    """
    with locked(layout.pause_lock, "another pause", patience=10 * rules.max):
        records.write_pause(layout, _record(quarry, rules))
        try:
            with _guarded(quarry, rules.max):
                window = Window(quarry, time.monotonic() + rules.max)
                begin = time.monotonic()
                try:
                    _stop(window)
                    yield window
                finally:
                    _resume(quarry)
                    duration = time.monotonic() - begin
                    window.cost = PauseCost(round(duration * 1e6), len(quarry.masters) + len(quarry.children))
        finally:
            records.remove_pause(layout)


@contextlib.contextmanager
def _guarded(quarry: Quarry, patience: float) -> Iterator[None]:
    """A guardian stands by, and nothing of our own lengthens the window or breaks into it.

    No garbage collection, and no Python signal handler: a KeyboardInterrupt could strike amid the resuming. Within,
    there is no log, no look-up, no import and no fsync.
    """
    guardian = Guardian(quarry, patience)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        guardian.dismiss()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _record(quarry: Quarry, rules: Pause) -> PauseRecord:
    own = processes.read_status(os.getpid())
    return PauseRecord(
        boot_id(),
        ProcessIdentity(os.getpid(), own.start_time if own else 0),
        tuple(process.identity for process in quarry.masters),
        tuple(process.identity for process in quarry.children),
        tuple(process.identity for process in quarry.already_stopped),
        tuple(sorted(quarry.names)),
        rules.max,
    )


def _stop(window: Window) -> None:
    """Masters first, seen stopped: then they fork no more. Then their children, until there are no new ones."""
    quarry = window.quarry
    _stop_all(quarry.masters, window.deadline)
    _stop_all(quarry.children, window.deadline)
    roots = [process.identity.pid for process in quarry.masters]
    known = {p.identity.pid for p in (*quarry.masters, *quarry.children, *quarry.already_stopped)}
    while new := processes.descendants(roots, quarry.names, known):
        quarry.children.extend(new)
        known.update(process.identity.pid for process in new)
        _stop_all(new, window.deadline)


def _stop_all(group: Iterable[Process], deadline: float) -> None:
    waiting = list(group)
    for process in waiting:
        process.send(signal.SIGSTOP)
    while waiting := [process for process in waiting if process.state() not in AT_REST]:
        if time.monotonic() > deadline:
            process = waiting[0]
            raise Failed(
                "pause-timed-out",
                f"process {process.identity.pid} ({process.name}) is still in state {process.state()}",
                SAFE,
            )
        time.sleep(SPIN)


def _resume(quarry: Quarry) -> None:
    """Children first, the master last: a master that ran before them would see its children stopped."""
    for process in (*reversed(quarry.children), *quarry.masters):
        with contextlib.suppress(PermissionError):
            process.send(signal.SIGCONT)


class Guardian:
    """A child process that resumes everything when we die, or do not dismiss it in time."""

    def __init__(self, quarry: Quarry, patience: float) -> None:
        reading, self._pipe = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._pipe)
                self._guard(reading, quarry, patience)
            finally:
                os._exit(0)
        os.close(reading)

    @staticmethod
    def _guard(pipe: int, quarry: Quarry, patience: float) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        ready, _, _ = select.select([pipe], [], [], patience)
        if ready and os.read(pipe, 1):
            return  # dismissed; end-of-file without a byte means that the pauser died
        # Children that were forked after we were: the masters are stopped by now or never will be, so this ends.
        known = {p.identity.pid for p in (*quarry.masters, *quarry.children, *quarry.already_stopped)}
        roots = [process.identity.pid for process in quarry.masters]
        new = [p for p in processes.descendants(roots, quarry.names, known) if p.state() == STOPPED]
        quarry.children.extend(new)
        _resume(quarry)

    def dismiss(self) -> None:
        """Ends the guardian, after everything is resumed."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._pipe, b".")
        os.close(self._pipe)
        os.waitpid(self._pid, 0)


def resume_leftover(layout: Layout) -> tuple[int, int]:
    """Resumes what a crashed or hanging pauser left stopped: how many processes, and the pauser's pid.

    Safe at any time: a pause that is going on is waited for, up to its longest time; a process is resumed only when
    it is the one that was written down (pid, start time, boot) or its child, and was not stopped before.
    """
    record = records.read_pause(layout)
    if record is None:
        return 0, 0
    with contextlib.suppress(Busy), locked(layout.pause_lock, "a pause", patience=record.max):
        record = records.read_pause(layout)
    if record is None:
        return 0, 0
    count = 0
    if record.boot_id == boot_id():
        count = _resume_recorded(record)
    records.remove_pause(layout)
    return count, record.pauser.pid


def _resume_recorded(record: PauseRecord) -> int:
    masters = list(_still_there(record.masters))
    children = list(_still_there(record.children))
    known = {process.identity.pid for process in (*masters, *children)}
    roots = [process.identity.pid for process in masters]
    children += processes.descendants(roots, record.names, known)
    stopped = [
        process
        for process in (*children, *masters)
        if process.state() == STOPPED and process.identity not in record.already_stopped
    ]
    for process in stopped:
        process.send(signal.SIGCONT)
    for process in (*children, *masters):
        process.close()
    return len(stopped)


def _still_there(identities: Iterable[ProcessIdentity]) -> Iterator[Process]:
    for identity in identities:
        try:
            process = Process(identity.pid)
        except ProcessLookupError:
            continue
        if process.identity == identity:
            yield process
        else:
            process.close()

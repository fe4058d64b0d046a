"""Resume: continue what a pauser that crashed or hangs left stopped, from what it wrote down before its first SIGSTOP.

Facts that this rests on:

- Nothing resumes a stopped process by itself.
- SIGSTOP is asynchronous: what was just sent one may still run, and stop a moment later.
- A process number may have been given to another process: pid, start time and boot together tell.
- Of several renames a crash may let only the first happen: resumed visitors would find nothing, or half a release.
- The recorded processes may have forked after the record was written: children of a recorded master are included.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from swapd.host import processes, records
from swapd.host.files import locked, sweep_temporaries
from swapd.host.linux import boot_id
from swapd.host.processes import STOPPED, Process
from swapd.host.renames import put_back
from swapd.model.errors import Busy
from swapd.model.layout import Layout
from swapd.model.record import PauseRecord, ProcessIdentity

LATE = 0.1  # seconds that the guardian of a dead pauser may take to do its work


def resume_leftover(layout: Layout) -> tuple[int, int]:
    """Resumes what a crashed or hanging pauser left stopped: how many processes, and the pauser's pid.

    Safe at any time: a pause that is going on is waited for, until it is overdue.
    """
    record = records.read_pause(layout)
    if record is None:
        return 0, 0
    patience = record.max - records.read_pause_age(layout) if is_alive(record.pauser) else LATE
    with contextlib.suppress(Busy), locked(layout.pause_lock, "a pause", patience=patience):
        return resume_abandoned(layout)
    # Whoever holds the lock is overdue: it hangs, or was itself stopped. Unless it is another pause by now.
    if records.read_pause(layout) != record:
        return 0, 0
    return resume_recorded(record), record.pauser.pid


def resume_abandoned(layout: Layout) -> tuple[int, int]:
    """As ``resume_leftover``, for whoever holds the lock of the pause: a record that is there then is a crash's."""
    sweep_temporaries(layout.run)
    record = records.read_pause(layout)
    if record is None:
        return 0, 0
    count = resume_recorded(record)
    records.remove_pause(layout)
    return count, record.pauser.pid


def resume_for_stopped(layout: Layout, pauser: int) -> int:
    """Resumes what the process ``pauser`` has stopped if it is itself stopped, by whomever; how many processes.

    For whoever has started it: it does not come to do so itself, and its guardian may have been stopped with it. When
    it goes on one day, it finds httpd running, and gives up.
    """
    record = records.read_pause(layout)
    if record is None or record.pauser.pid != pauser:
        return 0
    status = processes.read_status(pauser)
    return resume_recorded(record) if status is not None and status.state == STOPPED else 0


def is_alive(pauser: ProcessIdentity) -> bool:
    """Whether the recorded pauser is still there, stopped or not."""
    status = processes.read_status(pauser.pid)
    return status is not None and status.start_time == pauser.start_time and status.state not in "ZX"


def hold(identities: Iterable[ProcessIdentity], held: dict[ProcessIdentity, Process]) -> None:
    """Opens those of the processes that are there, so that resuming them can meet nobody else. Close them.

    As many as there are descriptors for; the others are opened when it is time.
    """
    for identity in identities:
        with contextlib.suppress(OSError):
            process = Process(identity.pid)
            if process.identity == identity:
                held[identity] = process
            else:
                process.close()


def resume_recorded(record: PauseRecord, held: Mapping[ProcessIdentity, Process] = MappingProxyType({})) -> int:
    """Resumes the recorded processes, children first, masters last, and closes them; how many of them were stopped.

    Before that, swaps of several renames that a crash left half done are undone. A process that was stopped before the
    pause stays so. What is in ``held`` besides was found later, and is resumed, too. Raises nothing for one that is
    gone or not ours.
    """
    if record.boot_id != boot_id():
        return 0
    put_back(record.undo)
    # What they forked since first, as long as they rest: one that runs may end, and nothing leads to its children then.
    count = _resume_forked(record)
    # One by one, so that no lack of descriptors keeps any of them stopped.
    found_later = [identity for identity in held if identity not in record.children and identity not in record.masters]
    order = (*found_later, *reversed(record.children), *record.masters)
    count += sum(_resume(identity, record, held.get(identity)) for identity in order)
    return count + _resume_forked(record)  # for whom there was no descriptor before


def _resume_forked(record: PauseRecord) -> int:
    """Resumes what the recorded processes forked after the record was written; how many of them were stopped."""
    recorded = (*record.masters, *record.children)
    pids = {identity.pid for identity in recorded if _is_same(identity)}
    count = 0
    with contextlib.suppress(OSError):
        for process in processes.descendants(pids, record.names, pids):
            count += _resume(process.identity, record, process)
    return count


def _is_same(identity: ProcessIdentity) -> bool:
    status = processes.read_status(identity.pid)
    return status is not None and status.start_time == identity.start_time


def _resume(identity: ProcessIdentity, record: PauseRecord, held: Process | None) -> bool:
    """Continues the process if it is the recorded one; whether it was seen stopped.

    Whatever its state: a SIGSTOP that was sent a moment ago may not have stopped it yet, and SIGCONT takes it back. To
    a process that runs, SIGCONT is nothing.
    """
    try:
        process = held or Process(identity.pid)
    except OSError:
        return False
    try:
        if process.identity != identity or identity in record.already_stopped:
            return False
        was_stopped = process.state() == STOPPED
        process.send(signal.SIGCONT)
    except PermissionError:
        return False
    finally:
        process.close()
    return was_stopped

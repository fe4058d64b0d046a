"""Resume: continue what a pauser that crashed or hangs left stopped, from what it wrote down before its first SIGSTOP.

Facts that this rests on:

- Nothing resumes a stopped process by itself.
- SIGSTOP is asynchronous: what was just sent one may still run, and stop a moment later.
- A process number may have been given to another process: pid, start time and boot together tell.
- Of two renames a crash may let only the first happen: without a live path, resumed visitors would find nothing.
- The recorded processes may have forked after the record was written: children of a recorded master are included.
"""

from __future__ import annotations

import contextlib
import os
import signal

from swapd.host import processes, records
from swapd.host.files import locked, sweep_temporaries
from swapd.host.linux import boot_id
from swapd.host.processes import STOPPED, Process
from swapd.model.errors import Busy
from swapd.model.layout import Layout
from swapd.model.record import PauseRecord, ProcessIdentity, Rename


def resume_leftover(layout: Layout) -> tuple[int, int]:
    """Resumes what a crashed or hanging pauser left stopped: how many processes, and the pauser's pid.

    Safe at any time: a pause that is going on is waited for, up to its longest time.
    """
    record = records.read_pause(layout)
    if record is None:
        return 0, 0
    with contextlib.suppress(Busy), locked(layout.pause_lock, "a pause", patience=record.max):
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


def resume_recorded(record: PauseRecord) -> int:
    """Resumes the recorded processes, children first, masters last; how many of them were stopped.

    Before that, a live path that is missing between two renames gets its tree back. One that was stopped before the
    pause stays so. Raises nothing for a process that is gone or not ours.
    """
    if record.boot_id != boot_id():
        return 0
    for rename in record.undo:
        _undo(rename)
    # One by one, so that no lack of descriptors keeps any of them stopped; what they forked since comes afterwards.
    count = sum(_resume(identity, record) for identity in (*reversed(record.children), *record.masters))
    recorded = {identity.pid for identity in (*record.masters, *record.children)}
    for process in processes.descendants(recorded, record.names, recorded):
        count += _resume(process.identity, record)
        process.close()
    return count


def _undo(rename: Rename) -> None:
    # Not by RENAME_NOREPLACE: the filesystems that need two renames refuse the flag.
    if not os.path.lexists(rename.new) and os.path.lexists(rename.old):
        with contextlib.suppress(OSError):
            os.rename(rename.old, rename.new)


def _resume(identity: ProcessIdentity, record: PauseRecord) -> bool:
    """Continues the process if it is the recorded one; whether it was seen stopped.

    Whatever its state: a SIGSTOP that was sent a moment ago may not have stopped it yet, and SIGCONT takes it back. To
    a process that runs, SIGCONT is nothing.
    """
    try:
        process = Process(identity.pid)
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

"""The process that resumes httpd when a pauser dies or hangs: ``python -m swapd.host.guardian PAUSE-RECORD``.

It reads what is about to be stopped, takes hold of it by pidfds, and says when it stands by. Then one byte dismisses
it; the end of its input without that byte means that the pauser has died, and its own deadline that the pauser hangs.
Both mean: resume everything. A program of its own and not a fork, because a fork would copy the pauser's locks, and
make each page that the pauser writes to in the window a copy first.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import tomllib
from pathlib import Path

from swapd.host.linux import prctl_set_name, take_precedence
from swapd.host.processes import Process
from swapd.host.resume import hold, resume_recorded
from swapd.model.record import PauseRecord, ProcessIdentity

ARMED = b"armed\n"
DISMISSED = b"."  # lines of a pid and its start time may come before
# Seconds after the pause's longest time: the pauser resumes at its own deadline; only when it does not, we do.
GRACE = 0.05


def main() -> None:
    """Reads the record, then stands by."""
    # systemd ends a unit's processes by SIGTERM, and the guardian is needed just then. The pauser's mask is inherited;
    # this is for whoever starts us otherwise.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    prctl_set_name("swapd guardian")
    path = Path(sys.argv[1])
    try:
        record = PauseRecord.from_document(tomllib.loads(path.read_text("utf-8")), str(path))
    except FileNotFoundError:
        return  # the pauser died before it stopped anything, and somebody has tidied up after it
    held: dict[ProcessIdentity, Process] = {}
    hold((*record.children, *record.masters), held)
    take_precedence()
    try:
        os.write(1, ARMED)
    except BrokenPipeError:
        return  # the pauser died before it stopped anything
    if not _is_dismissed(time.monotonic() + record.max + GRACE, held):
        resume_recorded(record, held)


def _is_dismissed(deadline: float, held: dict[ProcessIdentity, Process]) -> bool:
    """Waits; takes hold of the processes that the pauser names meanwhile, which it found later than the record."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    rest = b""
    while (left := deadline - time.monotonic()) > 0 and poll.poll(left * 1000):
        said = os.read(0, 1 << 16)
        if not said or said.endswith(DISMISSED):
            return bool(said)
        # What is longer than PIPE_BUF may come in pieces.
        *lines, rest = (rest + said).split(b"\n")
        hold([ProcessIdentity(*map(int, line.split())) for line in lines], held)
    return False


if __name__ == "__main__":
    main()

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
import tomllib
from pathlib import Path

from swapd.host.linux import prctl_set_name, take_precedence
from swapd.host.resume import hold, resume_recorded
from swapd.model.record import PauseRecord

ARMED = b"armed\n"
DISMISSED = b"."
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
    held = hold(record)
    take_precedence()
    try:
        os.write(1, ARMED)
    except BrokenPipeError:
        return  # the pauser died before it stopped anything
    poll = select.poll()
    poll.register(0, select.POLLIN)
    if poll.poll((record.max + GRACE) * 1000) and os.read(0, 1) == DISMISSED:
        return
    resume_recorded(record, held)


if __name__ == "__main__":
    main()

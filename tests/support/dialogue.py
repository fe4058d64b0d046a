"""A conversation with a command at a terminal: what it asks, and what is typed."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Sequence

from tests.support.sites import environment
from tests.support.waiting import PATIENCE


def converse(command_line: Sequence[str], answers: Sequence[tuple[str, str]]) -> tuple[int, str]:
    """Types each answer once its question has been asked, an empty one for what is proposed; exit status and output."""
    controller, terminal = pty.openpty()
    command = subprocess.Popen(
        list(command_line), stdin=terminal, stdout=terminal, stderr=terminal, env=environment(TERM="dumb")
    )
    os.close(terminal)
    shown, rest, deadline = "", list(answers), time.monotonic() + PATIENCE
    try:
        while select.select([controller], [], [], max(0.0, deadline - time.monotonic()))[0]:
            try:
                shown += os.read(controller, 1 << 16).decode(errors="replace")
            except OSError:  # EIO: the other side is closed
                break
            # What was asked before has been answered.
            while rest and rest[0][0] in shown.rpartition("\n")[2]:
                os.write(controller, f"{rest.pop(0)[1]}\n".encode())
                shown += "\n"
    finally:
        os.close(controller)
        command.kill()
        status = command.wait()
    assert not rest, f"never asked: {rest[0][0]}\n{shown}"
    return status, shown.replace("\r\n", "\n")

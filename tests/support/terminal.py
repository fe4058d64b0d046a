"""A command on a terminal of a certain width, and what it shows there."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from collections.abc import Callable, Sequence

from tests.support.sites import environment
from tests.support.waiting import PATIENCE


def run_on_terminal(
    command_line: Sequence[str], columns: int = 100, seen: Callable[[str], object] = lambda _: None, **variables: str
) -> tuple[int, str]:
    """Its exit status and all that it wrote; ``seen`` is called with what it has written so far, when that is more."""
    controller, terminal = pty.openpty()
    given = environment(TERM="xterm", COLUMNS=str(columns), **variables)
    for name in ("NO_COLOR", "FORCE_COLOR"):
        if name not in variables:
            given.pop(name, None)
    command = subprocess.Popen(command_line, stdin=terminal, stdout=terminal, stderr=terminal, env=given)
    os.close(terminal)
    shown = b""
    while select.select([controller], [], [], PATIENCE)[0]:
        try:
            shown += os.read(controller, 1 << 16)
        except OSError:  # EIO: the other side is closed
            break
        seen(shown.decode(errors="replace"))
    os.close(controller)
    return command.wait(PATIENCE), shown.decode(errors="replace").replace("\r\n", "\n")

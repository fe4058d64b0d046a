"""Whether a directory answers at all, found out by a process that may wait for ever.

Whoever looks into a network filesystem whose server is away, or into FUSE whose program hangs, waits until it is back,
some so that not even SIGKILL ends it. The daemon has other sites to look after.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from swapd.host.coprocess import Coprocess

NAME = "(probe)"  # in brackets, which no site's name has
PATIENCE = 1.0  # seconds for an answer
KILLED = 0.2  # seconds for the end of a process that was killed


class Reach:
    """Asks directories for an answer."""

    def __init__(self) -> None:
        self._stuck: dict[Path, Coprocess] = {}

    def answers(self, directory: Path) -> bool:
        """Whether the directory can be looked into, if only to find an error. ``OSError`` when nobody can look."""
        stuck = self._stuck.get(directory)
        if stuck is not None and not stuck.has_ended():
            return False
        self._stuck.pop(directory, None)

        def look() -> None:
            with contextlib.suppress(OSError):
                os.listdir(directory)

        probe = Coprocess(NAME, look)
        if probe.has_ended(PATIENCE):
            return True
        probe.kill()
        if not probe.has_ended(KILLED):
            self._stuck[directory] = probe
        return False

"""Whether a directory answers at all, found out by a process that may wait for ever.

Whoever looks into a network filesystem whose server is away, or into FUSE whose program hangs, waits until it is back,
some so that not even SIGKILL ends it. The daemon has other sites to look after.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from swapd.host.coprocess import Coprocess

NAME = "(probe)"  # in brackets, which no site's name has
PATIENCE = 2.0  # seconds for an answer
KILLED = 0.2  # seconds for the end of a process that was killed


class Reach:
    """Asks directories for an answer."""

    def __init__(self) -> None:
        self._stuck: dict[Path, Coprocess] = {}

    def find_silent(self, directories: Iterable[Path]) -> set[Path]:
        """Those that cannot be looked into, not even to find an error; all are asked at the same time."""
        self._stuck = {directory: probe for directory, probe in self._stuck.items() if not probe.has_ended()}
        silent, asked = set[Path](), dict[Path, Coprocess]()
        for directory in directories:
            if directory in self._stuck:
                silent.add(directory)
            else:
                try:
                    asked[directory] = Coprocess(NAME, partial(_look, directory))
                except OSError:  # no further process: then it is taken for what it is nearly always
                    continue
        deadline = time.monotonic() + PATIENCE
        for directory, probe in asked.items():
            if not probe.has_ended(max(0.0, deadline - time.monotonic())):
                silent.add(directory)
                probe.kill()
        for directory in silent & asked.keys():
            if not asked[directory].has_ended(KILLED):
                self._stuck[directory] = asked[directory]
        return silent


def _look(directory: Path) -> None:
    with contextlib.suppress(OSError):
        os.listdir(directory)

"""A look at a unit's processes, from outside their host, all the time."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from typing import Self

from tests.host.machine import Host

LOOK = 0.004  # seconds between two looks


def unit_pids(host: Host, unit: str) -> list[int]:
    """The processes of a unit, by the outer machine's numbers. Zombies are none."""
    with contextlib.suppress(FileNotFoundError, OSError):  # ENODEV: the cgroup goes while it is read
        path = host.path(f"/sys/fs/cgroup/system.slice/{unit}.service/cgroup.procs")
        return [pid for pid in map(int, path.read_text().split()) if pid]
    return []


class Looks(ABC):
    """A context manager within which ``look`` is called again and again, in a thread."""

    def __init__(self) -> None:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._go_on)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._is_over.wait(LOOK):
            self.look()

    @abstractmethod
    def look(self) -> None:
        """Takes in what there is at this moment."""

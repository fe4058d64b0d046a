"""Which processes a unit of a host starts, looked at from outside all the time."""

from __future__ import annotations

import threading
from typing import Self

from tests.host.machine import Host
from tests.host.stops import LOOK, unit_pids
from tests.support.httpd import name_of


class Started:
    """A context manager that sees every process of the unit that lives for longer than a look takes.

    ``names`` has the name that each was seen under last, by the outer machine's process id.
    """

    def __init__(self, host: Host, unit: str) -> None:
        self._host = host
        self._unit = unit
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.names: dict[int, str] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def count(self, name: str) -> int:
        """How many processes had this name."""
        return list(self.names.values()).count(name)

    def _look(self) -> None:
        while not self._is_over.wait(LOOK):
            for pid in unit_pids(self._host, self._unit):
                self.names[pid] = name_of(pid) or self.names.get(pid, "")

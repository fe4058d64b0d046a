"""Which processes a unit of a host starts."""

from __future__ import annotations

from tests.host.looks import Looks, unit_pids
from tests.host.machine import Host
from tests.support.httpd import name_of


class Started(Looks):
    """Sees every process of the unit that lives for longer than a look takes.

    ``names`` has the name that each was seen under last, by the outer machine's process id.
    """

    def __init__(self, host: Host, unit: str) -> None:
        super().__init__()
        self._host = host
        self._unit = unit
        self.names: dict[int, str] = {}

    def count(self, name: str) -> int:
        """How many processes had this name."""
        return list(self.names.values()).count(name)

    def look(self) -> None:
        for pid in unit_pids(self._host, self._unit):
            self.names[pid] = name_of(pid) or self.names.get(pid, "")

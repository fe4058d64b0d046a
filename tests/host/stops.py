"""How long httpd's processes are stopped."""

from __future__ import annotations

import time

from tests.host.looks import LOOK, Looks, unit_pids
from tests.host.machine import Host
from tests.support.httpd import state_of


def stopped(host: Host, unit: str = "apache2") -> list[int]:
    """Those of the unit's processes that are stopped at this moment."""
    return [pid for pid in unit_pids(host, unit) if state_of(pid) == "T"]


class Stops(Looks):
    """Sees every httpd process, all the time.

    ``longest`` is how long a single one was seen stopped, from the first look at which it was to the last, since the
    last ``reset``: never more than it truly was. ``late`` is by how much the looks themselves came late, which is
    what the machine took from everybody.
    """

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host
        self._last = 0.0  # of time.monotonic(): the last look
        self._since: dict[int, float] = {}
        self.longest = 0.0
        self.late = 0.0
        self.looks = 0

    def reset(self) -> None:
        """Forgets what was; what is stopped now counts from now on."""
        self._since = {}
        self.longest = self.late = 0.0

    def is_anything_stopped(self) -> bool:
        """By a look of its own, at this moment."""
        return bool(stopped(self._host))

    def look(self) -> None:
        begin = time.monotonic()
        if self.looks:
            self.late = max(self.late, begin - self._last - LOOK)
        self._last = begin
        since, self._since = self._since, {}
        for pid in stopped(self._host):
            self._since[pid] = since.get(pid, time.monotonic())
            self.longest = max(self.longest, begin - self._since[pid])
        self.looks += 1

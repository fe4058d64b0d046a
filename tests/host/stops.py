"""How long httpd's processes are stopped, looked at from outside the host all the time."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Self

from tests.host.machine import Host
from tests.support.httpd import state_of

LOOK = 0.004  # seconds between two looks


def unit_pids(host: Host, unit: str) -> list[int]:
    """The processes of a unit, by the outer machine's numbers. Zombies are none."""
    with contextlib.suppress(FileNotFoundError, OSError):  # ENODEV: the cgroup goes while it is read
        path = host.path(f"/sys/fs/cgroup/system.slice/{unit}.service/cgroup.procs")
        return [pid for pid in map(int, path.read_text().split()) if pid]
    return []


def stopped(host: Host, unit: str = "apache2") -> list[int]:
    """Those of the unit's processes that are stopped at this moment."""
    return [pid for pid in unit_pids(host, unit) if state_of(pid) == "T"]


class Stops:
    """A context manager that looks at every httpd process, all the time.

    ``longest`` is how long a single one was seen stopped, from the first look at which it was to the last, since the
    last ``reset``: never more than it truly was. ``late`` is by how much the looks themselves came late, which is
    what the machine took from everybody.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._since: dict[int, float] = {}
        self.longest = 0.0
        self.late = 0.0
        self.looks = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def reset(self) -> None:
        """Forgets what was; what is stopped now counts from now on."""
        self._since = {}
        self.longest = self.late = 0.0

    def is_anything_stopped(self) -> bool:
        """By a look of its own, at this moment."""
        return bool(stopped(self._host))

    def _look(self) -> None:
        last = time.monotonic()
        while not self._is_over.wait(LOOK):
            begin = time.monotonic()
            self.late = max(self.late, begin - last - LOOK)
            last = begin
            since, self._since = self._since, {}
            for pid in stopped(self._host):
                self._since[pid] = since.get(pid, time.monotonic())
                self.longest = max(self.longest, begin - self._since[pid])
            self.looks += 1

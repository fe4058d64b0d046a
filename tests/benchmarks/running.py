"""swapd's daemon, as it runs without root, with the moment at which it said each line."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from swapd.host.watcher import NAME
from tests.support.daemon import NotifySocket
from tests.support.httpd import name_of
from tests.support.sites import Scratch, environment
from tests.support.waiting import wait_until

LONGEST = 600.0  # seconds that anything may take here
LIVE = re.compile(r"shop: (\S+)@[0-9a-f]{12} is live;")
NO_ISAL = 'raise ImportError("as if it were not installed")\n'


class Running:
    """A daemon with one site, which nothing is paused for. Use ``running``."""

    def __init__(
        self, root: Path, *, has_isal: bool = True, before: Callable[[Path], None] | None = None, **keys: Any
    ) -> None:
        """``before`` is called with the drop directory before the daemon starts; ``keys`` are the site's."""
        root.mkdir(parents=True)
        self.scratch = Scratch(root)
        self.incoming = self.scratch.add_site(**{"keep": 100, "pause": {"mode": "never"}, **keys})
        if before is not None:
            before(self.incoming)
        self._said: list[tuple[float, str]] = []
        self._live: list[tuple[str, float]] = []  # looked for once in each line: a crowd's are many
        self._notify = NotifySocket()
        variables = {"NOTIFY_SOCKET": self._notify.address}
        if not has_isal:
            (root / "without" / "isal").mkdir(parents=True)
            (root / "without" / "isal" / "__init__.py").write_text(NO_ISAL)
            variables["PYTHONPATH"] = f"{root / 'without'}{os.pathsep}{environment()['PYTHONPATH']}"
        self._process = subprocess.Popen(
            self.scratch.command_line("run"),
            env=environment() | variables,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        wait_until(lambda: "READY=1" in self._notify.states, "the daemon to be ready")

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            moment = time.monotonic()
            self._said.append((moment, line))
            if match := LIVE.search(line):
                self._live.append((match[1], moment))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._notify.close()

    @property
    def lines(self) -> list[str]:
        return [line for _, line in self._said]

    def wait_said(self, text: str) -> float:
        """When it said this, of time.monotonic(); waits for that. ``SystemExit`` when a deployment goes wrong."""

        def find() -> float:
            for moment, line in reversed(self._said):
                if text in line:
                    return moment
                if re.search(r" (rejected|failed): ", line):
                    raise SystemExit(line)
            return 0.0

        return wait_until(find, f"{text}; said: {self.lines[-3:]}", LONGEST)

    def find_live(self) -> list[tuple[str, float]]:
        """The names of the releases that went live, and when."""
        return list(self._live)

    def wait_outcomes(self, count: int) -> None:
        """Until so many releases have gone live."""
        wait_until(lambda: len(self._live) >= count, f"{count} outcomes", LONGEST)

    def wait_live(self, count: int) -> float:
        """When the ``count``-th release went live; waits for that, and until the daemon is idle."""
        self.wait_outcomes(count)
        wait_until(lambda: self._family() == [self._process.pid], "the worker's end", LONGEST)
        return self.find_live()[count - 1][1]

    def processor(self) -> float:
        """Seconds of the processor that the daemon and its children have taken, and theirs that have ended."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return sum(map(_processor, (self._process.pid, *map(int, children))))

    @contextlib.contextmanager
    def measured(self) -> Iterator[dict[str, int]]:
        """The most that each process had resident meanwhile, by what it is, in bytes; looked at all the time."""
        most: dict[str, int] = {}
        is_over = threading.Event()

        def look() -> None:
            while not is_over.wait(0.002):
                for pid in self._family():
                    name = {"swapd shop": "worker", "swapd extract": "extraction"}.get(name_of(pid), "")
                    name = "daemon" if pid == self._process.pid else name
                    if name:
                        most[name] = max(most.get(name, 0), _peak(pid))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield most
        finally:
            is_over.set()
            thread.join()

    def _family(self) -> list[int]:
        found = [self._process.pid]
        for pid in found:
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return [pid for pid in found if name_of(pid) != f"swapd {NAME}"]


def _processor(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # utime, stime, cutime, cstime: proc(5)
    return 0.0


def _peak(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def running(
    root: Path, *, has_isal: bool = True, before: Callable[[Path], None] | None = None, **keys: Any
) -> Iterator[Running]:
    """The daemon, for as long as the block lasts."""
    daemon = Running(root, has_isal=has_isal, before=before, **keys)
    try:
        yield daemon
    finally:
        daemon.close()

"""Real process trees that stand for httpd, each under a name that no other test's has."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.waiting import wait_until

PROJECT = Path(__file__).parents[2]


def unique_name() -> str:
    """A process's name (at most 15 bytes) that no other process on this machine has."""
    return f"h{secrets.token_hex(6)}"


def state_of(pid: int) -> str:
    """The state letter of proc(5), read without swapd's own code; ``X`` for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1].decode()
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def parent_of(pid: int) -> int:
    """The parent's pid; 0 for a process that is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def name_of(pid: int) -> str:
    """As the kernel has it; empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def pids_called(name: str) -> list[int]:
    """Every process of this name, found without swapd's own code."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if Path(f"/proc/{entry}/comm").read_bytes() == f"{name[:15]}\n".encode():
                found.append(int(entry))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


class Httpd:
    """A master and its workers. Close it; nothing of it is then left, stopped or not."""

    def __init__(self, workers: int = 3, name: str = "", prefix: Sequence[str] = ()) -> None:
        """``prefix`` is a command that runs the master in its own place, such as in another namespace."""
        self.name = name or unique_name()
        self._master = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.support.prefork", self.name, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=PROJECT,
            bufsize=0,
            start_new_session=True,
        )
        self.master = self._master.pid
        assert self._master.stdout is not None
        self._master.stdout.readline()
        self.workers = self.tell(f"fork {workers}") if workers else []

    def tell(self, command: str) -> list[int]:
        """Has the master do something; the pids that it made."""
        assert self._master.stdin is not None
        assert self._master.stdout is not None
        self._master.stdin.write(f"{command}\n".encode())
        return list(map(int, self._master.stdout.readline().split()))

    def pids(self) -> list[int]:
        """All processes of the tree's name that there are now."""
        return pids_called(self.name)

    def states(self) -> dict[int, str]:
        """How each of them stands."""
        return {pid: state_of(pid) for pid in self.pids()}

    def is_at_rest(self) -> bool:
        """Whether nothing of it runs: each is stopped, or a zombie."""
        states = self.states()
        return bool(states) and set(states.values()) <= {"T", "Z", "X"}

    def is_running(self) -> bool:
        """Whether nothing of it is stopped."""
        states = self.states()
        return bool(states) and "T" not in states.values()

    def was_stopped(self) -> bool:
        """Whether the master has been stopped at any time since this was asked last, though it may run again."""
        # The kernel keeps it for the parent that a process was stopped or continued, until it is asked.
        options = os.WSTOPPED | os.WCONTINUED | os.WNOHANG
        found = False
        while os.waitid(os.P_PID, self.master, options) is not None:
            found = True
        return found

    def close(self) -> None:
        """Kills all of it, stopped or not."""
        self._master.kill()
        self._master.wait()
        for pid in self._survivors():  # the kernel kills most of them with their master
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pipe in (self._master.stdin, self._master.stdout):
            if pipe is not None:
                pipe.close()
        wait_until(lambda: not self._survivors(), f"the end of all processes called {self.name}")

    def _survivors(self) -> list[int]:
        """Processes of this tree, which is a session of its own, that have not ended."""
        alive = []
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) == self.master and state_of(pid) not in "ZX":
                    alive.append(pid)
        return alive

    def __enter__(self) -> Httpd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

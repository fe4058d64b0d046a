"""The httpd processes of this machine: which they are, how they stand, and signals that cannot hit another.

psutil finds the master processes by name; it is too slow for what must be quick (10 ms for 500 processes), so
children are enumerated by parentage, from ``/proc/PID/task/*/children``. A process is held by a pidfd: its number
may be given to another process, the descriptor never is.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from swapd.model.record import ProcessIdentity

STOPPED = "T"
# A zombie or a dead process runs nothing, and never shows T (a child that exits while its parent is stopped stays Z).
AT_REST = frozenset("TZX")


@dataclass(frozen=True, slots=True)
class Status:
    """One reading of ``/proc/PID/stat``."""

    name: str
    state: str
    parent: int
    start_time: int


def parse_stat(line: bytes) -> Status:
    """A ``/proc/PID/stat`` line; the name may itself hold blanks and parentheses, so the last ``)`` ends it."""
    opening, closing = line.index(b"("), line.rindex(b")")
    rest = line[closing + 2 :].split()
    name = line[opening + 1 : closing].decode("utf-8", "replace")
    return Status(name, rest[0].decode(), int(rest[1]), int(rest[19]))


def read_status(pid: int) -> Status | None:
    """How the process stands now, or None when there is none."""
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return None


class Process:
    """A running process, held by a pidfd and an open ``/proc/PID/stat``. Close it."""

    __slots__ = ("_pidfd", "_stat", "identity", "name")

    def __init__(self, pid: int) -> None:
        """Raises ``ProcessLookupError`` when there is no such process."""
        self._pidfd = os.pidfd_open(pid)
        try:
            self._stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            os.close(self._pidfd)
            raise ProcessLookupError(pid) from None
        try:
            status = parse_stat(os.pread(self._stat, 1024, 0))
            # Both descriptors are of one process only if the pidfd's was still there after stat was opened.
            signal.pidfd_send_signal(self._pidfd, 0)
        except PermissionError:
            pass  # there it is, and not ours to signal: `may_signal` says so
        except BaseException:
            self.close()
            raise
        self.identity = ProcessIdentity(pid, status.start_time)
        self.name = status.name

    def close(self) -> None:
        os.close(self._pidfd)
        os.close(self._stat)

    def state(self) -> str:
        """The state letter of proc(5); ``X`` once the process is gone."""
        try:
            line = os.pread(self._stat, 1024, 0)
        except ProcessLookupError:
            return "X"
        return chr(line[line.rindex(b")") + 2]) if line else "X"

    def send(self, number: signal.Signals) -> None:
        """Sends the signal; a process that has ended is fine. Raises ``PermissionError`` where it is not ours."""
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            pass

    def may_signal(self) -> bool:
        """Whether the kernel would let us signal it."""
        try:
            signal.pidfd_send_signal(self._pidfd, 0)
        except PermissionError:
            return False
        except ProcessLookupError:
            pass
        return True


def is_in_own_namespace(pid: int) -> bool:
    """Whether the process is in our own PID namespace and not in a container's.

    ``NSpid`` has one number for each namespace that the process is in, ours first (proc(5)); reading it needs no
    privilege, which ``/proc/PID/ns/pid`` does.
    """
    try:
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return len(line.split()) == 2
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


def find_masters(names: Collection[str], user: str = "") -> list[int]:
    """The pids of the processes called by one of ``names`` whose parent is not; with ``user``, only that user's.

    A master that has been stopped, by whomever, is among them.
    """
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["name", "ppid", "username"]):
        info = process.info
        if info["name"] in names and process.pid != os.getpid() and (not user or info["username"] == user):
            found[process.pid] = process
    return sorted(
        pid for pid, process in found.items() if process.info["ppid"] not in found and is_in_own_namespace(pid)
    )


def child_pids(pid: int) -> list[int]:
    """The process's children now, of all its threads; none when it is gone."""
    pids: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return pids
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as file:
                pids.extend(map(int, file.read(1 << 20).split()))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pids


def descendants(pids: Iterable[int], names: Collection[str], known: Collection[int]) -> list[Process]:
    """Opens those below ``pids`` that are called by one of ``names`` and are not ``known``; never ourselves.

    A descendant under another name is not httpd's own: it may be a program that a page started, even swapd.
    """
    found: list[Process] = []
    seen = {os.getpid()}
    waiting = list(pids)
    while waiting:
        for pid in child_pids(waiting.pop()):
            if pid in seen:
                continue
            seen.add(pid)
            if pid in known:
                waiting.append(pid)
                continue
            try:
                process = Process(pid)
            except ProcessLookupError:
                continue
            if process.name in names:
                found.append(process)
                waiting.append(pid)
            else:
                process.close()
    return found

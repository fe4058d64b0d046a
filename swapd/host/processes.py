"""The httpd processes of this machine: which they are, how they stand, and signals that cannot hit another.

Children are enumerated by parentage, from ``/proc/PID/task/*/children``. A process is held by a pidfd: its number may
be given to another process, the descriptor never is.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from swapd.model.record import ProcessIdentity

STOPPED = "T"
ENDED = frozenset("ZX")
# A zombie or a dead process runs nothing, and never shows T (a child that exits while its parent is stopped stays Z).
_AT_REST_BYTES = frozenset(b"TZX")


def kernel_name(name: str) -> str:
    """A process's name as the kernel keeps it and ``Process.name`` says: its first 15 bytes (prctl(2))."""
    return name[:15]


@dataclass(frozen=True, slots=True)
class Status:
    """One reading of ``/proc/PID/stat``."""

    name: str
    state: str
    parent: int
    threads: int
    start_time: int


def parse_stat(line: bytes) -> Status:
    """A ``/proc/PID/stat`` line; the name may itself hold blanks and parentheses, so the last ``)`` ends it."""
    opening, closing = line.index(b"("), line.rindex(b")")
    rest = line[closing + 2 :].split()
    name = line[opening + 1 : closing].decode("utf-8", "replace")
    return Status(name, rest[0].decode(), int(rest[1]), int(rest[17]), int(rest[19]))


def read_status(pid: int) -> Status | None:
    """How the process stands now, or None when there is none."""
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return None


class Process:
    """A running process, held by a pidfd and an open ``/proc/PID/stat``; several threads, each by its own. Close it."""

    __slots__ = ("_alone", "_pidfd", "_stat", "_threads", "identity", "name")

    def __init__(self, pid: int) -> None:
        """Raises ``ProcessLookupError`` when there is no such process."""
        self._threads: dict[str, int] = {}
        self._pidfd = os.pidfd_open(pid)
        try:
            self._stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            os.close(self._pidfd)
            if isinstance(error, (FileNotFoundError, ProcessLookupError)):  # the latter while it is going
                raise ProcessLookupError(pid) from None
            raise
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
        # num_threads, itrealvalue (which is always 0) and starttime, as proc(5) has them in a line: to look for this is
        # quicker than to split the line.
        self._alone = b" 1 0 %d " % status.start_time
        if status.threads > 1:
            self._hold_threads()

    @property
    def threads(self) -> int:
        """How many of its threads are known."""
        return len(self._threads) or 1

    def _hold_threads(self) -> None:
        """Opens the threads that are not held yet."""
        directory = f"/proc/{self.identity.pid}/task"
        try:
            for thread in os.listdir(directory):
                if thread not in self._threads:
                    try:
                        self._threads[thread] = os.open(f"{directory}/{thread}/stat", os.O_RDONLY | os.O_CLOEXEC)
                    except (FileNotFoundError, ProcessLookupError):
                        continue
        except (FileNotFoundError, ProcessLookupError):
            pass  # it is gone

    def close(self) -> None:
        os.close(self._pidfd)
        os.close(self._stat)
        for descriptor in self._threads.values():
            os.close(descriptor)
        self._threads.clear()

    def state(self) -> str:
        """The state letter of proc(5), of the process's first thread; ``X`` once the process is gone."""
        try:
            line = os.pread(self._stat, 512, 0)
        except ProcessLookupError:
            return "X"
        return chr(line[line.rindex(b")") + 2]) if line else "X"

    def is_at_rest(self) -> bool:
        """Whether none of its threads runs: they stop one by one, and the first says nothing of the others.

        For the window: nothing is made of a reading but what is asked, and threads are looked for only when there are
        more than are held.
        """
        alive = self._count_resting_threads()
        if alive < 0:
            return False
        # After the threads: one that was made meanwhile is counted here, and was made by one that ran.
        try:
            line = os.pread(self._stat, 512, 0)
        except ProcessLookupError:
            return True
        if not line:
            return True
        state = line.rindex(b")") + 2
        if line[state] not in _AT_REST_BYTES:
            return False
        if (alive != 1 or line.find(self._alone, state) < 0) and int(line[state:].split(b" ", 18)[17]) > alive:
            self._hold_threads()
            return False  # not known: ask again
        return True

    def _count_resting_threads(self) -> int:
        """How many of the held threads are there, or -1 when one of them runs; one that is alone is not held."""
        if not self._threads:
            return 1
        alive = 0
        for descriptor in self._threads.values():
            try:
                line = os.pread(descriptor, 512, 0)
            except ProcessLookupError:
                continue
            if line:
                if line[line.rindex(b")") + 2] not in _AT_REST_BYTES:
                    return -1
                alive += 1
        return alive

    def send(self, number: signal.Signals) -> None:
        """Sends the signal; a process that has ended is fine. Raises ``PermissionError`` where it is not ours."""
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            pass

    def is_there(self) -> bool:
        """Whether the process, or the zombie of it, still has its number."""
        try:
            signal.pidfd_send_signal(self._pidfd, 0)
        except PermissionError:
            pass
        except ProcessLookupError:
            return False
        return True

    def may_signal(self) -> bool:
        """Whether the kernel would let us signal it."""
        try:
            signal.pidfd_send_signal(self._pidfd, 0)
        except PermissionError:
            return False
        except ProcessLookupError:
            pass
        return True


def _read_all(descriptor: int) -> bytes:
    """The file from its beginning: one read of a file below /proc gives a page of it at most."""
    content = os.pread(descriptor, _PAGE, 0)
    chunk = content
    while len(chunk) > _PAGE - _LONGEST_PID:  # otherwise the next number would have been in it
        chunk = os.pread(descriptor, _PAGE, len(content))
        content += chunk
    return content


_PAGE = os.sysconf("SC_PAGE_SIZE")
_LONGEST_PID = 12  # bytes of a pid and a blank, and some more


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
                pids.extend(map(int, _read_all(file.fileno()).split()))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pids


class Parent:
    """A process whose children are asked for again and again, by a descriptor that stays open. Close it."""

    __slots__ = ("_children", "_pid", "_seen", "process")

    def __init__(self, process: Process) -> None:
        self.process = process  # and whoever opened it closes it
        self._pid = process.identity.pid
        self._children = -1
        self._seen = b""
        if process.threads == 1:  # otherwise any of its threads may fork
            try:
                self._children = os.open(f"/proc/{self._pid}/task/{self._pid}/children", os.O_RDONLY | os.O_CLOEXEC)
            except (FileNotFoundError, ProcessLookupError):
                pass

    def close(self) -> None:
        if self._children >= 0:
            os.close(self._children)

    def changed_child_pids(self) -> list[int]:
        """The children now; none when they are those of the last time."""
        if self._children < 0 or self.process.threads > 1:
            return child_pids(self._pid)
        try:
            content = _read_all(self._children)
        except ProcessLookupError:
            return []
        if content == self._seen:
            return []
        self._seen = content
        return list(map(int, content.split()))


def open_named(pids: Iterable[int], names: Collection[str], known: Collection[int]) -> list[Process]:
    """Opens those of the processes that are called by one of ``names``.

    Those that are ``known`` are left out, and so are we ourselves.
    """
    found: list[Process] = []
    for pid in pids:
        if pid in known or pid == os.getpid():
            continue
        try:
            process = Process(pid)
        except ProcessLookupError:
            continue
        if process.name in map(kernel_name, names):
            found.append(process)
        else:
            process.close()
    return found


def descendants(pids: Iterable[int], names: Collection[str], known: Collection[int]) -> list[Process]:
    """Opens those below ``pids`` that are called by one of ``names`` and are not ``known``; never ourselves.

    A descendant under another name is not httpd's own: it may be a program that a page started, even swapd.
    """
    found: list[Process] = []
    seen = set(known)
    waiting = list(pids)
    while waiting:
        seen.update(waiting)
        new = open_named([child for pid in waiting for child in child_pids(pid)], names, seen)
        found += new
        waiting = [process.identity.pid for process in new]
    return found

"""Journal records that were lost and of which that is not said yet: one file for all of swapd's processes.

Whoever loses a record may end before the journal is back, by SIGKILL too: a worker ends with its last upload, a command
with its only one, and the daemon may be restarted. So each loss is written down at once, where it survives all of them,
and is reported by whoever gets a record through next.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from swapd.model.events import Loss

PATIENCE = (0.0, 0.001, 0.004, 0.016, 0.064, 0.1)  # seconds between attempts to get hold of the file
_TIME = struct.Struct("=Q")  # nanoseconds since the epoch: one for each record, in the order in which they were lost


class Losses:
    """Those in the file ``path``; and those that could not be written there, which are known to this process alone."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._mine: list[int] = []
        self._pid = os.getpid()

    def add(self) -> None:
        """One more. Neither blocks nor raises: the file is on a tmpfs."""
        self._forget_those_of_parent()
        present = time.time_ns()
        with self._opened() as descriptor:
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    os.write(descriptor, _TIME.pack(present))
                    return
        self._mine.append(present)

    @property
    def count(self) -> int:
        """How many there are, of all processes."""
        self._forget_those_of_parent()
        return len(self._mine) + self._size() // _TIME.size

    def _size(self) -> int:
        try:
            return os.stat(self._path, follow_symlinks=False).st_size if self._path is not None else 0
        except OSError:
            return 0

    @contextlib.contextmanager
    def taken(self) -> Iterator[list[Loss]]:
        """What is to be reported: one loss, or none. Whoever could not report it clears the list: then it is kept.

        Nobody else has the same meanwhile. Whoever is killed amid it leaves it to the next one.
        """
        with self._opened() if self._size() else contextlib.nullcontext() as descriptor:
            times = [*(_read(descriptor) if descriptor is not None else ()), *self._mine]
            taken = [_loss(times)] if times else []
            yield taken
            if taken:
                self._mine.clear()
                if descriptor is not None:
                    with contextlib.suppress(OSError):
                        os.ftruncate(descriptor, 0)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int | None]:
        """The file, which nobody else has meanwhile; None where that cannot be had at once.

        It is held for some microseconds; but whoever holds it may have been stopped, and then nobody waits for him.
        """
        try:
            if self._path is None:
                yield None
                return
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o600)  # whoever can read it can lock it
        except OSError:
            yield None
            return
        try:
            yield descriptor if _is_locked(descriptor) else None
        finally:
            os.close(descriptor)

    def _forget_those_of_parent(self) -> None:
        if self._pid != os.getpid():  # forked: it reports its own
            self._pid, self._mine = os.getpid(), []


def _read(descriptor: int) -> list[int]:
    try:
        data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    except OSError:
        return []
    return [at for (at,) in _TIME.iter_unpack(data[: len(data) // _TIME.size * _TIME.size])]


def _is_locked(descriptor: int) -> bool:
    for patience in PATIENCE:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(patience)
    return False


def _loss(times: list[int]) -> Loss:
    first, last = (datetime.fromtimestamp(at / 1e9, UTC) for at in (min(times), max(times)))
    return Loss(len(times), first, last)

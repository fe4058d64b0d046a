"""Whether the daemon runs: something that anybody may ask, without asking systemd, and below ``--root`` too.

The daemon holds a record lock on a file of ``/run/swapd``. fcntl(2)'s F_GETLK tells who holds it and takes nothing;
an flock could only be tried, which would keep out the daemon for that moment. It is not handed on to forked workers.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct

from swapd.host.files import closing_descriptor
from swapd.model.layout import Layout

_FLOCK = "hhqqi4x"  # struct flock of the 64-bit Linux: type, whence, start, length, pid


class Presence:
    """Of the daemon: from its making on, until the process ends. What cannot be done is tried again by ``renew``."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._descriptor: int | None = None
        self.renew()

    def renew(self) -> None:
        """Is seen again, should somebody have removed the file: nobody would find the lock that is held on it."""
        path = self._layout.daemon_lock
        with contextlib.suppress(OSError):
            if self._descriptor is not None:
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.stat(path), os.fstat(self._descriptor)):
                        return
                os.close(self._descriptor)
                self._descriptor = None
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def find_daemon(layout: Layout) -> int | None:
    """The pid of the daemon that runs, or None. Not to be asked by the daemon itself, whose lock it would end."""
    try:
        descriptor = os.open(layout.daemon_lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with closing_descriptor(descriptor):
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return pid if kind != fcntl.F_UNLCK else None

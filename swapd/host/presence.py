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


def appear(layout: Layout) -> int | None:
    """The daemon runs from now on, until this process ends. Its descriptor, to be kept open; None where that fails."""
    with contextlib.suppress(OSError):
        layout.run.mkdir(mode=0o755, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(layout.daemon_lock, flags, 0o644)
        with contextlib.suppress(OSError):  # another one below the same root
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    return None


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

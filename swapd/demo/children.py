"""Child processes that end when their parent does, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1  # linux/prctl.h

_libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int, number: signal.Signals) -> None:
    """Has the kernel send us the signal when ``parent``, who must be our parent, is gone; at once if it is already.

    It lasts over execve(2) but not over a change of user (prctl(2)), and is not inherited by fork(2).
    """
    if _libc.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it went before the kernel knew
        os.kill(os.getpid(), number)

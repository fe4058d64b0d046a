"""Whether the kernel takes the clock for right: adjtimex(2), as chronyd, ntpd and systemd-timesyncd tell it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

TIME_ERROR = 5
_TIMEX = 208  # bytes of struct timex on 64 bits, and less on 32
CONTAINER = Path("/run/systemd/container")

_libc = ctypes.CDLL(None, use_errno=True)


def adjtimex() -> int:
    """The state of the clock; ``TIME_ERROR`` where nobody keeps it right. Nothing is changed: the modes are zero."""
    state: int = _libc.adjtimex(ctypes.create_string_buffer(_TIMEX))
    if state == -1:
        raise OSError(ctypes.get_errno(), f"adjtimex: {os.strerror(ctypes.get_errno())}")
    return state


def is_ours(container: Path = CONTAINER) -> bool:
    """Whether the clock is this system's to keep right, and not that of the machine around a container."""
    return not container.exists()

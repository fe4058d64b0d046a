"""What the kernel's refusals mean for the administrator."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from swapd.model.errors import Failed
from swapd.model.units import format_size


def explain(error: OSError, directory: Path) -> Failed:
    """What a system call's refusal below ``directory`` means for the administrator."""
    safe = "The live release and the upload are untouched."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        room = os.statvfs(directory)
        return Failed(
            "disk-full",
            f"{directory}: {error.strerror}; {format_size(room.f_bavail * room.f_frsize)}"
            f" and {room.f_favail} inodes are free",
            f"{safe} Make room there, then touch the tarball to have it taken up again.",
        )
    if error.errno == errno.EROFS:
        return Failed(
            "read-only",
            f"{directory} is read-only for swapd",
            f"{safe} If it is writable for others, the unit's sandbox does not have it: run swapd init for this site "
            "again and restart swapd.",
        )
    return Failed(
        "cannot-write",
        f"{error.filename or directory}: {error.strerror}",
        f"{safe} Correct that, then touch the tarball to have it taken up again.",
    )

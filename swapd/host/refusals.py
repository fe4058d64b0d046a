"""What the kernel's refusals mean for the administrator."""

from __future__ import annotations

import errno
from pathlib import Path

from swapd.host.room import read_room
from swapd.model.errors import Failed
from swapd.model.room import UNTOUCHED, Room
from swapd.model.units import format_size

# What a host may be mended of, so that the same works later: a disk, its room, a mount, a file server.
PASSING = frozenset(
    {
        *(errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS),
        *(errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EREMOTEIO),
    }
)
AGAIN = "touch the tarball, or reload swapd, to have it taken up again."


def explain(error: OSError, directory: Path) -> Failed:
    """What a system call's refusal below ``directory`` means for the administrator."""
    safe = UNTOUCHED
    if error.errno == errno.ENOSPC:
        room = _find_room(directory)
        is_of_inodes = room is not None and room.free_inodes == 0
        left = _describe_free(room) + (" and no inode is" if is_of_inodes else "")
        return Failed(
            "no-inodes" if is_of_inodes else "no-space",
            f"{directory}: {error.strerror}; {left}",
            f"{safe} Make room there (or below it, where a pool or an image holds that disk), then {AGAIN}",
        )
    if error.errno == errno.EDQUOT:
        return Failed(
            "quota-exceeded",
            f"{directory}: {error.strerror}: what the user, group, project or subvolume may have there is used up, "
            f"whatever is free on the disk ({_describe_free(_find_room(directory))})",
            f"{safe} Raise that quota or remove old releases, then {AGAIN}",
        )
    if error.errno == errno.EIO:
        return Failed(
            "input-output-error",
            f"{error.filename or directory}: {error.strerror}: the disk below {directory} failed to read or write",
            f"{safe} See the kernel's log (journalctl -k) and the disk's health; then {AGAIN}",
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
        f"{safe} Correct that, then {AGAIN}",
    )


def _find_room(directory: Path) -> Room | None:
    """What is free there; None where that cannot be known any more: the directory went away, or the disk fails."""
    try:
        return read_room(directory)
    except OSError:
        return None


def _describe_free(room: Room | None) -> str:
    return "what is free cannot be known" if room is None else f"{format_size(room.free_bytes)} are free"

"""Files that are replaced again and again, and that may be lost in a power cut: metrics for a collector, totals.

Facts that this rests on:

- The node exporter's textfile collector reads every ``*.prom`` of its directory whenever it is asked, as a user of its
  own: so a file is replaced by a rename, its mode is 0644, and the temporary name ends otherwise.
- A fsync would have the daemon wait for the disk. Without one, a power cut may leave the file as it was before, or
  empty: the next start makes it anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from swapd.host.files import write_all
from swapd.host.linux import mounts

# Filesystems that may make whoever writes there wait for another machine, or for a program.
WAITING = ("nfs", "cifs", "smb", "fuse", "9p", "ceph", "afs", "gfs2", "ocfs2", "lustre", "virtiofs", "autofs")


def replace_file(path: Path, content: bytes) -> None:
    """The file has the old or the new content for whoever reads it. ``OSError`` names it, whichever step failed.

    There is one temporary name for all times, so that a crash leaves no more than one. Nobody else may write the file.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, content)
            os.fchmod(descriptor, 0o644)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except OSError as error:
        remove_file(temporary)
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error


def find_waiting(directory: Path) -> str:
    """The type of the directory's filesystem, if it is one on which nobody may wait; empty else.

    Goes by the path's name: to follow it might be to wait already.
    """
    within = [(place, kind) for place, kind in mounts() if directory.is_relative_to(place)]
    kind = max(reversed(within), key=lambda mount: len(mount[0]), default=("", ""))[1]
    return kind if kind.startswith(WAITING) else ""


def remove_file(path: Path) -> None:
    """For what would be read for ever otherwise; where it cannot be removed, it stays."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def describe_remedy(path: Path, number: int | None) -> str:
    """What to do about a file that cannot be written, as sentences."""
    if number in (errno.ENOENT, errno.ENOTDIR):
        return f"Install the exporter that reads {path.parent}, or make that directory; then: systemctl restart swapd."
    if number == errno.EROFS:
        return (
            f"The unit's sandbox does not open {path.parent}: systemctl restart swapd, if the directory is newer than "
            f"swapd's last start; else systemctl edit swapd, write ReadWritePaths=-{path.parent} below [Service], and "
            "restart it."
        )
    return f"Have {path.parent} on a local disk that swapd can write to."

"""Room on the disk: looked at before something is written, while it is, and when the disk said no.

Facts that this rests on:

- What is free on ext4, XFS and tmpfs counts what was written and is not on the disk yet. On btrfs it does not: after
  50 MiB were written statvfs said what it had said before, and after a syncfs 50 MiB less.
- Only where a file takes at least its own size can a size that is known beforehand refuse anything: btrfs, ZFS and
  others may compress, and a network filesystem's server may be one of those.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from swapd.host.linux import fstatfs_type, syncfs
from swapd.model.errors import Failed
from swapd.model.room import Room, find_lack, lack_of_bytes, lack_of_inodes, refuse_lack

# statfs(2): ext2 to ext4, XFS, tmpfs.
STORES_AS_IT_IS = (0xEF53, 0x58465342, 0x01021994)
# What may have been written between two looks, at the most: a MiB of content, and the last blocks of 256 files.
BETWEEN_LOOKS = 2 << 20


def read_room(directory: int | Path) -> Room:
    """What is free on the filesystem of a path or a descriptor. Raises ``OSError``."""
    found = os.statvfs(directory)
    # Filesystems that make inodes as they need them count none.
    free_inodes = found.f_favail if found.f_files else None
    return Room(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, free_inodes, found.f_files)


def stores_as_it_is(descriptor: int) -> bool:
    """Whether a file on this filesystem takes at least as much room as it has bytes."""
    return fstatfs_type(descriptor) in STORES_AS_IT_IS


class RoomKeeper:
    """Sees to it that what is being written below a directory leaves the reserve free.

    ``keep_room`` is a callable to hand on to whoever writes.
    """

    def __init__(self, directory: int, path: Path, what: str) -> None:
        """``directory``, or a file on its filesystem, is open for as long as this is used; the rest is for messages."""
        self._directory = directory
        self._path = str(path)
        self._what = what
        self._before = read_room(directory)
        self._counts_late = not stores_as_it_is(directory)
        self._looks = 0  # since what is free was known for certain

    def refuse_lack(self, least_bytes: int, least_inodes: int) -> None:
        """Before anything is written: ``NoRoom`` unless there is room for so much."""
        refuse_lack(self._before, self._what, self._path, least_bytes, least_inodes)

    def keep_room(self) -> None:
        """To be called for each MiB and every few hundred files: ``NoRoom`` while the disk is not full yet."""
        room = read_room(self._directory)
        self._looks += 1
        if self._counts_late and room.free_bytes - self._looks * BETWEEN_LOOKS < room.reserved_bytes:
            # Each time that half of what is left may be used up, and so a few times at most.
            syncfs(self._directory)
            self._looks = 0
            room = read_room(self._directory)
        lack = find_lack(self._before, room, self._what, self._path)
        if lack is not None:
            raise lack

    def explain(self, error: OSError) -> Failed | None:
        """What ENOSPC means, which comes where somebody else was quicker, or the reserve is very small; else None."""
        if error.errno != errno.ENOSPC:
            return None
        room = read_room(self._directory)
        if lack := find_lack(self._before, room, self._what, self._path):
            return lack
        is_of_inodes = room.free_inodes == 0 and self._before.free_inodes is not None
        return (lack_of_inodes if is_of_inodes else lack_of_bytes)(self._before, room, self._what, self._path)


@contextlib.contextmanager
def keeping_room(directory: int, path: Path, what: str) -> Iterator[Callable[[], None]]:
    """``keep_room`` for what is written within; an ENOSPC that comes all the same is ``NoRoom``, too."""
    keeper = RoomKeeper(directory, path, what)
    try:
        yield keeper.keep_room
    except OSError as error:
        lack = keeper.explain(error)
        if lack is None:
            raise
        raise lack from error

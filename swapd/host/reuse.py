"""A new tree shares the blocks of those of its files that the live tree has, too.

Facts that this rests on:

- FIDEDUPERANGE compares in the kernel, with both files locked, and shares only what is equal: neither a file that
  changes meanwhile nor a mistake here can give a release other content. The live file is only its source; the two stay
  two inodes, with owner, mode and time of their own, and a write to either is seen in none but that one.
- A hard link would be one inode, and so change what was live with the new tree's owner and times.
- It first writes each of the files through to the disk, one by one; all together before takes a fraction of the time.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from swapd.host.beside import find_live, walk_beside
from swapd.host.files import closing_descriptor, opened_directory
from swapd.host.linux import ficlone, fideduperange, syncfs

# btrfs shares no more in one call.
_AT_ONCE = 16 << 20
_CANNOT = (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EXDEV)


def reuse(tree: Path, live: Path, keep_going: Callable[[], None]) -> int:
    """Lets every file of ``tree`` that equals the one of its path below ``live`` share its blocks; how many bytes.

    Nothing but the place of blocks changes, in neither tree. Where the filesystem cannot do it, nothing is read. What
    goes wrong with one file leaves that file as it was. ``keep_going`` is called for each directory, and may raise;
    ``OSError`` when ``tree`` cannot be read or written through to the disk.
    """
    old = find_live(live)
    if old is None:
        return 0
    shared = 0
    with closing_descriptor(old), opened_directory(tree) as new:
        if not shares_blocks(new):
            return 0
        syncfs(new)
        for directory, beside, entries in walk_beside(new, old):
            keep_going()
            if beside is None:
                continue
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    try:
                        shared += _share(entry.name, directory, beside)
                    except OSError as error:
                        if error.errno in _CANNOT:
                            return shared
    return shared


def shares_blocks(directory: int) -> bool:
    """Whether files on this filesystem can share blocks; two without a name or content are made to see it."""
    flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
    try:
        with (
            closing_descriptor(os.open(".", flags, 0o600, dir_fd=directory)) as one,
            closing_descriptor(os.open(".", flags, 0o600, dir_fd=directory)) as other,
        ):
            return ficlone(one, other)
    except OSError:
        return False


def _share(name: str, directory: int, beside: int) -> int:
    """Bytes of the file that are shared from now on; none unless there is a regular file of its size beside it."""
    size = os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    status = os.stat(name, dir_fd=beside, follow_symlinks=False)
    if not size or status.st_size != size or not stat.S_ISREG(status.st_mode):
        return 0
    # Without O_NONBLOCK a lease, or a FIFO that took the file's place a moment ago, would keep us waiting.
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with (
        closing_descriptor(os.open(name, os.O_RDONLY | flags, dir_fd=beside)) as source,
        closing_descriptor(os.open(name, os.O_RDWR | flags, dir_fd=directory)) as destination,
    ):
        done = 0
        while done < size:
            step = fideduperange(source, destination, done, min(size - done, _AT_ONCE))
            if not step:
                break
            done += step
    return done

"""Copies a tree whose owner may change it meanwhile, and who must not gain anything by that.

The live tree may belong to the web application, and swapd is root: nothing is opened through a link or by a path that
the owner could turn elsewhere, and what was opened is what is looked at.
"""

from __future__ import annotations

import os
import stat

from swapd.host.files import closing_descriptor

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20


def copy_entry(source: int, name: str, destination: int, new_name: str) -> None:
    """Copies ``name`` in the directory ``source``, with all below it, to ``new_name``, which is not there yet.

    Owners, modes (without set-user-ID and set-group-ID) and times are kept, links are copied as links. A socket, FIFO
    or device is left out: the program that uses it makes it. Raises ``OSError``; then a part of the copy may be there.
    """
    mode = os.stat(name, dir_fd=source, follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        os.symlink(os.readlink(name, dir_fd=source), new_name, dir_fd=destination)
        os.chown(new_name, status.st_uid, status.st_gid, dir_fd=destination, follow_symlinks=False)
    elif stat.S_ISDIR(mode):
        _copy_directory(source, name, destination, new_name)
    elif stat.S_ISREG(mode):
        _copy_file(source, name, destination, new_name)


def _copy_directory(source: int, name: str, destination: int, new_name: str) -> None:
    os.mkdir(new_name, 0o700, dir_fd=destination)
    with (
        closing_descriptor(os.open(name, _DIRECTORY, dir_fd=source)) as old,
        closing_descriptor(os.open(new_name, _DIRECTORY, dir_fd=destination)) as new,
    ):
        for item in os.listdir(old):
            copy_entry(old, item, new, item)
        # Its owner last: until then, nobody but us can change the copy.
        _keep(os.fstat(old), new)


def _copy_file(source: int, name: str, destination: int, new_name: str) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with closing_descriptor(os.open(name, flags, dir_fd=source)) as old:
        status = os.fstat(old)
        if not stat.S_ISREG(status.st_mode):
            return  # it was one a moment ago
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with closing_descriptor(os.open(new_name, flags, 0o600, dir_fd=destination)) as new:
            while os.sendfile(new, old, None, _CHUNK):
                pass
            _keep(status, new)


def _keep(status: os.stat_result, descriptor: int) -> None:
    found = os.fstat(descriptor)
    if (found.st_uid, found.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & 0o1777)
    os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))

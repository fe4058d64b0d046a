"""Copies a tree whose owner may change it meanwhile, and who must not gain anything by that.

The live tree may belong to the web application, and swapd is root: nothing is opened through a link or by a path that
the owner could turn elsewhere, what was opened is what is looked at, and a tree that is made deep on purpose costs
neither recursion nor more descriptors than there are.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

from swapd.host.files import closing_descriptor
from swapd.host.room import RoomKeeper, stores_as_it_is
from swapd.model.errors import Failed
from swapd.model.release import printable
from swapd.model.room import UNTOUCHED

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
_ENTRIES_PER_STEP = 256
# PATH_MAX is 4096: no program reaches by its path what is deeper than this, even with names of one letter.
MAX_DEPTH = 2048
_CHANGED = (errno.ENOENT, errno.ELOOP, errno.EINVAL)  # gone, or a link, or no link any more, since it was looked at


class _Item(NamedTuple):
    """What stands in a directory; a directory comes twice: before all that is below it, and after."""

    parent: int
    name: str
    status: os.stat_result
    is_left: bool = False


def copy_entry(
    source: int, name: str, destination: int, new_name: str, step: Callable[[], None] = lambda: None
) -> None:
    """Copies ``name`` in the directory ``source``, with all below it, to ``new_name``, which is not there yet.

    Owners, modes (without set-user-ID and set-group-ID) and times are kept, links are copied as links. A socket, FIFO
    or device is left out: the program that uses it makes it; so is what goes away meanwhile. ``step`` is called for
    each MiB and each 256 entries, and may raise. Raises ``OSError``, and ``Failed`` (``too-deep``); then a part of the
    copy may be there.
    """
    pace = _paced(step)
    new = [destination]
    try:
        with contextlib.closing(_walk(source, name)) as items:
            for item in items:
                pace(0)
                target = new_name if len(new) == 1 else item.name
                if item.is_left:
                    # Its owner last: until then, nobody but us can change the copy.
                    _keep(item.status, new[-1])
                    os.close(new.pop())
                elif stat.S_ISDIR(item.status.st_mode):
                    os.mkdir(target, 0o700, dir_fd=new[-1])
                    new.append(os.open(target, _DIRECTORY, dir_fd=new[-1]))
                elif stat.S_ISLNK(item.status.st_mode):
                    _copy_link(item, new[-1], target)
                elif stat.S_ISREG(item.status.st_mode):
                    _copy_file(item, new[-1], target, pace)
    finally:
        for descriptor in new[1:]:
            os.close(descriptor)


def copy_within_room(
    source: int, name: str, destination: int, new_name: str, path: Path, what: str, keep_going: Callable[[], None]
) -> None:
    """``copy_entry``, which leaves the reserve free: ``NoRoom`` before its first byte where sizes tell, or amid it.

    ``path`` is where ``destination`` is, and ``what`` what is copied, for messages. ``keep_going`` may raise.
    """
    keeper = RoomKeeper(destination, path, what)
    if stores_as_it_is(destination):
        keeper.refuse_lack(*_measure(source, name, keep_going))

    def step() -> None:
        keep_going()
        keeper.keep_room()

    try:
        copy_entry(source, name, destination, new_name, step)
    except OSError as error:
        lack = keeper.explain(error)
        if lack is None:
            raise
        raise lack from error


def _measure(source: int, name: str, keep_going: Callable[[], None]) -> tuple[int, int]:
    """The bytes of all files there, and how many inodes a copy takes."""
    pace = _paced(keep_going)
    size = inodes = 0
    with contextlib.closing(_walk(source, name)) as items:
        for item in items:
            pace(0)
            inodes += not item.is_left
            if stat.S_ISREG(item.status.st_mode):
                size += item.status.st_size
    return size, inodes


def _paced(step: Callable[[], None]) -> Callable[[int], None]:
    """``step``, called for each MiB and each 256 entries: to be told the bytes of a part of a file, or of none."""
    size = entries = 0

    def count(written: int) -> None:
        nonlocal size, entries
        size += written
        entries += not written
        if size >= _CHUNK or entries >= _ENTRIES_PER_STEP:
            size = entries = 0
            step()

    return count


def _walk(source: int, name: str) -> Generator[_Item]:
    """The entry and all below it. To be closed. Below it, what goes away or changes its kind meanwhile is left out."""
    opened: list[tuple[int, str, list[str]]] = []
    try:
        parent, entry = source, name
        while True:
            try:
                yield from _look(parent, entry, opened)
            except (FileNotFoundError, NotADirectoryError):
                if not opened:
                    raise
            while opened and not opened[-1][2]:
                descriptor, left, _ = opened[-1]
                above = opened[-2][0] if len(opened) > 1 else source
                yield _Item(above, left, os.fstat(descriptor), is_left=True)
                os.close(opened.pop()[0])
            if not opened:
                return
            parent, entry = opened[-1][0], opened[-1][2].pop()
    finally:
        for descriptor, _, _ in opened:
            os.close(descriptor)


def _look(parent: int, name: str, opened: list[tuple[int, str, list[str]]]) -> Generator[_Item]:
    """One entry. A directory is opened, and what is in it noted."""
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        if len(opened) == MAX_DEPTH:
            raise Failed(
                "too-deep",
                f"{printable(opened[0][1])} has directories that are more than {MAX_DEPTH} deep",
                f"{UNTOUCHED} No program finds those by their path: see what made them, and remove them.",
            )
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        opened.append((descriptor, name, os.listdir(descriptor)))
        status = os.fstat(descriptor)
    yield _Item(parent, name, status)


def _copy_link(item: _Item, destination: int, new_name: str) -> None:
    try:
        target = os.readlink(item.name, dir_fd=item.parent)
    except OSError as error:
        if error.errno in _CHANGED:
            return
        raise
    os.symlink(target, new_name, dir_fd=destination)
    os.chown(new_name, item.status.st_uid, item.status.st_gid, dir_fd=destination, follow_symlinks=False)


def _copy_file(item: _Item, destination: int, new_name: str, pace: Callable[[int], None]) -> None:
    try:
        old = os.open(item.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=item.parent)
    except OSError as error:
        if error.errno in _CHANGED:
            return
        raise
    with closing_descriptor(old):
        status = os.fstat(old)
        if not stat.S_ISREG(status.st_mode):
            return  # it was one a moment ago
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with closing_descriptor(os.open(new_name, flags, 0o600, dir_fd=destination)) as new:
            while written := os.sendfile(new, old, None, _CHUNK):
                pace(written)
            _keep(status, new)


def _keep(status: os.stat_result, descriptor: int) -> None:
    found = os.fstat(descriptor)
    if (found.st_uid, found.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & 0o1777)
    os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))

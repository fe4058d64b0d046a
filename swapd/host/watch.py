"""Watching drop directories, with watchdog. An event only sets a flag: the truth is a look at the directory.

Facts that this rests on:

- A watched directory that is replaced, renamed, mounted over or unmounted goes deaf while watchdog's threads look
  alive: the device and inode of the path are compared with those that were watched.
- An exception in a handler ends the observer's thread; a directory that is missing at the start leaves it half
  started; an overflow of the kernel's queue is told to nobody. So liveness is checked, a crowd of events is news for
  every directory, and a rescan comes now and then.
- inotify(7) tells of what passes this kernel. On NFS, FUSE and their like a watch is granted, and says nothing of what
  another machine, or the program beneath, does.
- watchdog watches a symbolic link itself (IN_DONT_FOLLOW), to which nothing ever happens.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from swapd.host.files import opened_directory
from swapd.host.linux import mounted_filesystem
from swapd.model.release import MARKER_SUFFIXES, NEWS, OWN

# How long a watcher's threads are waited for at the end, seconds.
JOIN_PATIENCE = 2.0

# Filesystems that change by this kernel only. Any other may be changed elsewhere, and there events are not all.
LOCAL = frozenset(
    {
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "bcachefs", "f2fs", "jfs", "nilfs2", "reiserfs", "overlay"),
        *("tmpfs", "ramfs", "vfat", "exfat", "ntfs3", "hfsplus"),
    }
)

# After so many events every directory is looked at. The kernel's queue, which may be one for all of them, holds 16,384
# (fs.inotify.max_queued_events), and is full when it overflows: the last of a crowd is seen after whatever was lost.
CROWD = 1024


class _Flag(FileSystemEventHandler):
    """Says that something happened in a drop directory."""

    def __init__(self, directory: Path, raise_flag: Callable[[Path], None], count: Callable[[], None]) -> None:
        self._directory = directory
        self._raise = raise_flag
        self._count = count

    def dispatch(self, event: FileSystemEvent) -> None:
        # Reading a file, as swapd itself does, is no news; nor is each write of an upload that goes on. To say that the
        # directory has changed is watchdog's own, after each event that names an entry of it.
        if event.event_type in ("created", "moved", "closed", "deleted", "attrib") and not self._is_ours(event):
            self._raise(self._directory)
        if event.event_type not in ("opened", "closed_no_write"):  # which a look itself is the reason of
            self._count()

    def _is_ours(self, event: FileSystemEvent) -> bool:
        """Whether swapd has made or removed the entry itself: a look at each of its markers would find nothing new.

        Nor would one when it sets aside what is live: after each of a crowd it would see all the others once more.
        """
        paths = (event.src_path, getattr(event, "dest_path", ""))
        names = [os.path.basename(os.fsdecode(path)) for path in paths if path]
        own = [name.startswith(OWN) and name != NEWS for name in names]
        return any(own[-1:]) or all(
            is_own or name.endswith(MARKER_SUFFIXES) for name, is_own in zip(names, own, strict=True)
        )


class Watch:
    """Watches drop directories and calls ``raise_flag`` with one, from another thread, when something happens in it.

    ``missing`` says why some are not there. Of those that are there, ``unwatched`` says why some have no events (the
    kernel's number of watches and of watchers is limited, for all programs of a user together), and ``remote`` which
    filesystem others are on, where events are not all that happens.
    """

    def __init__(self, raise_flag: Callable[[Path], None]) -> None:
        self._raise_flag = raise_flag
        self._crowd = 0
        self._observer: BaseObserver | None = None
        self._watched: dict[Path, tuple[int, int]] = {}
        self.missing: dict[Path, str] = {}
        self.unwatched: dict[Path, str] = {}
        self.remote: dict[Path, str] = {}

    def watch(self, directories: Iterable[Path]) -> None:
        """Watches these directories from now on, and no others."""
        self.close()
        self._watched, self.missing, self.unwatched, self.remote = {}, {}, {}, {}
        for directory in directories:
            self._add(directory)

    def watch_unwatched(self) -> None:
        """Watches those that had no events, as far as that is possible now; the others' watches stay as they are."""
        for directory in list(self.unwatched):
            del self.unwatched[directory]
            self._add(directory)
            if directory in self._watched:
                self._raise_flag(directory)

    def _add(self, directory: Path) -> None:
        try:
            identity, filesystem = _examine(directory)
        except OSError as error:
            self.missing[directory] = error.strerror or str(error)
            return
        if filesystem not in LOCAL:
            self.remote[directory] = filesystem or "a filesystem that is unknown"
        try:
            self._schedule(directory)
        except OSError as error:
            hint = ", see sysctl fs.inotify" if error.errno in (errno.ENOSPC, errno.EMFILE) else ""
            self.unwatched[directory] = f"{error.strerror or error}{hint}"
            return
        self._watched[directory] = identity

    def _schedule(self, directory: Path) -> None:
        if self._observer is None:
            observer = Observer()
            observer.start()
            self._observer = observer
        flag = _Flag(directory, self._raise_flag, self._count)
        self._observer.schedule(flag, os.path.realpath(directory), recursive=False)

    def _count(self) -> None:
        """An event, from the observer's one thread."""
        self._crowd += 1
        if self._crowd >= CROWD:
            self._crowd = 0
            for directory in list(self._watched):
                self._raise_flag(directory)

    def find_trouble(self) -> str | None:
        """Why the watch must be set up anew, or None while it works."""
        if self._watched and (self._observer is None or not self._observer.is_alive()):
            return "its thread has ended"
        if self._observer is not None and any(not emitter.is_alive() for emitter in self._observer.emitters):
            return "the thread of one directory has ended"
        for directory, identity in self._watched.items():
            try:
                if _identity(directory) != identity:
                    return f"{directory} is another directory now"
            except OSError as error:
                return f"{directory}: {error.strerror}"
        for directory in self.missing:
            with contextlib.suppress(OSError):
                _examine(directory)
                return f"{directory} is there again"
        return None

    def close(self) -> None:
        """Ends the watch's threads."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(JOIN_PATIENCE)
            self._observer = None


def _examine(directory: Path) -> tuple[tuple[int, int], str]:
    """The directory's identity and filesystem. Raises ``OSError`` unless it is a directory that can be read."""
    with opened_directory(directory) as descriptor:
        status = os.fstat(descriptor)
        return (status.st_dev, status.st_ino), mounted_filesystem(descriptor)


def _identity(directory: Path) -> tuple[int, int]:
    status = os.stat(directory)
    return status.st_dev, status.st_ino

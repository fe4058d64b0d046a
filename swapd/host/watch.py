"""Watching drop directories, with watchdog. An event only sets a flag: the truth is a look at the directory.

Facts that this rests on:

- A watched directory that is replaced, renamed, mounted over or unmounted goes deaf while watchdog's threads look
  alive: the device and inode of the path are compared with those that were watched.
- An exception in a handler ends the observer's thread; a directory that is missing at the start leaves it half
  started; an overflow of the kernel's queue is silent. So liveness is checked, and a rescan comes now and then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from swapd.model.release import MARKER_SUFFIXES, NEWS, OWN

# How long a watcher's threads are waited for at the end, seconds.
JOIN_PATIENCE = 2.0


class _Flag(FileSystemEventHandler):
    """Says that something happened in a drop directory."""

    def __init__(self, directory: Path, raise_flag: Callable[[Path], None]) -> None:
        self._directory = directory
        self._raise = raise_flag

    def dispatch(self, event: FileSystemEvent) -> None:
        # Reading a file, as swapd itself does, is no news; nor is each write of an upload that goes on. To say that the
        # directory has changed is watchdog's own, after each event that names an entry of it.
        if event.event_type in ("created", "moved", "closed", "deleted", "attrib") and not self._is_ours(event):
            self._raise(self._directory)

    def _is_ours(self, event: FileSystemEvent) -> bool:
        """Whether swapd has made or removed the entry itself: a look at each of its markers would find nothing new."""
        paths = (event.src_path, getattr(event, "dest_path", ""))
        names = [os.path.basename(os.fsdecode(path)) for path in paths if path]
        return all((name.startswith(OWN) and name != NEWS) or name.endswith(MARKER_SUFFIXES) for name in names)


class Watch:
    """Watches drop directories and calls ``raise_flag`` with one, from another thread, when something happens in it."""

    def __init__(self, raise_flag: Callable[[Path], None]) -> None:
        self._raise_flag = raise_flag
        self._observer: BaseObserver | None = None
        self._watched: dict[Path, tuple[int, int]] = {}
        self.missing: dict[Path, str] = {}
        self.unwatched: dict[Path, str] = {}

    def watch(self, directories: Iterable[Path]) -> None:
        """Watches these directories from now on, and no others.

        ``missing`` says why some are not there, ``unwatched`` why some that are there have no events: the kernel's
        number of watches and of watchers is limited, for all programs of a user together.
        """
        self.close()
        self._watched, self.missing, self.unwatched = {}, {}, {}
        for directory in directories:
            try:
                identity = _identity(directory)
            except OSError as error:
                self.missing[directory] = error.strerror or str(error)
                continue
            try:
                self._schedule(directory)
            except OSError as error:
                self.unwatched[directory] = error.strerror or str(error)
                continue
            self._watched[directory] = identity

    def _schedule(self, directory: Path) -> None:
        if self._observer is None:
            observer = Observer()
            observer.start()
            self._observer = observer
        self._observer.schedule(_Flag(directory, self._raise_flag), str(directory), recursive=False)

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
            if directory.is_dir() and os.access(directory, os.R_OK | os.X_OK):
                return f"{directory} is there again"
        return None

    def close(self) -> None:
        """Ends the watch's threads."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(JOIN_PATIENCE)
            self._observer = None


def _identity(directory: Path) -> tuple[int, int]:
    status = os.stat(directory)
    if not directory.is_dir():
        raise NotADirectoryError(20, "not a directory", str(directory))
    return status.st_dev, status.st_ino

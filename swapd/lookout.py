"""The lookout: which drop directories are looked into, and when. Watched where there are events, polled elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path

from swapd.desk import SiteDesk
from swapd.host.watcher import Watcher
from swapd.model import events
from swapd.model.events import Event
from swapd.model.release import Upload
from swapd.stages.arrive import look

RESCAN = 30.0  # seconds after which every drop directory is looked at, whatever the events say
POLL = 2.0  # the same for a directory that the kernel gives no events of


class Lookout:
    """Over the drop directories of some desks, each of which knows when it is looked at next.

    When something happens in one of them, ``flags`` can be read, and ``take_flags`` is to be called.
    """

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._watch = Watcher()
        self._desks: Collection[SiteDesk] = ()
        self._polled: dict[Path, str] = {}
        self.flags = self._watch.flags

    def close(self) -> None:
        """Ends the watch."""
        self._watch.close()

    def set_up(self, desks: Collection[SiteDesk]) -> None:
        """Over these, from now on; all of them are due."""
        self._desks = desks
        self._watch.watch(desk.site.incoming for desk in desks)
        self._tell_polled()
        for desk in desks:
            why = self._watch.missing.get(desk.site.incoming) or ""
            if why:
                self._lose(desk, why)
            desk.look_at = 0.0

    def check(self) -> None:
        """Sets the watch up anew where it does not work any more."""
        trouble = self._watch.find_trouble()
        if trouble is not None:
            self._emit(events.watch_rebuilt(trouble))
            self.set_up(self._desks)

    def watch_unwatched(self) -> None:
        """Tries again what could not be watched."""
        is_new = self._watch.watch_unwatched()
        self._tell_polled()
        if is_new:
            for desk in self._desks:
                desk.look_at = 0.0

    def take_flags(self) -> None:
        """What something happened in is due."""
        flagged = set(self._watch.take_flags())
        for desk in self._desks:
            if desk.site.incoming in flagged:
                desk.look_at = 0.0

    def find_silent(self, present: float) -> set[Path]:
        """Those that are due and do not answer, which nobody may look into."""
        due = [desk.site.incoming for desk in self._desks if present >= desk.looks_at]
        return self._watch.find_silent([path for path in due if self._watch.must_poll(path)])

    def look(self, desk: SiteDesk, silent: Collection[Path]) -> None:
        """The desk's queue is what is ready now; and when it is looked at next."""
        incoming, present = desk.site.incoming, time.monotonic()
        desk.look_at = present + RESCAN
        if incoming in self._watch.missing:
            return
        if incoming in silent:
            self._lose(desk, "it does not answer")
            return
        known = {upload.file_name for upload in (*desk.queue, *([desk.current] if desk.current else []))}
        is_polled = self._watch.must_poll(incoming)
        try:
            ready, again, gone = look(desk.arrivals, desk.site, known, is_remote=is_polled)
        except OSError as error:
            self._lose(desk, error.strerror or str(error))
            return
        desk.lost = ""
        longest = POLL if is_polled else RESCAN
        desk.look_at = present + min(longest, again if again is not None else longest)
        desk.queue = deque(_refreshed(desk, ready))
        desk.queue.extend(upload for upload in ready if upload.file_name not in known)
        desk.weigh_arrivals()
        desk.notices.gather(desk.arrivals, gone)
        desk.forget_failure(gone)
        desk.read_live()  # which a command may have changed

    def _tell_polled(self) -> None:
        """Says once which drop directories are polled, and why."""
        polled = {**self._watch.remote, **self._watch.unwatched}
        for desk in self._desks:
            directory = desk.site.incoming
            why = polled.get(directory)
            if why is not None and self._polled.get(directory) != why:
                describe = events.unwatched if directory in self._watch.unwatched else events.polled
                self._emit(describe(desk.site.name, str(directory), why, POLL))
        self._polled = polled

    def _lose(self, desk: SiteDesk, why: str) -> None:
        """The drop directory cannot be looked at, which is said when it becomes so."""
        if not desk.lost:
            self._emit(events.drop_directory_lost(desk.site.name, str(desk.site.incoming), why))
        desk.lost = f"its drop directory is lost: {why} ({desk.site.incoming})"


def _refreshed(desk: SiteDesk, ready: list[Upload]) -> list[Upload]:
    """The queue with each upload as it was seen last; what is not ready any more leaves it."""
    latest = {upload.file_name: upload for upload in ready}
    return [latest[upload.file_name] for upload in desk.queue if upload.file_name in latest]

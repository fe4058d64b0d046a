"""Metrics as the daemon writes them: which file, when, and what becomes of it when that cannot be done."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection
from pathlib import Path

from swapd import __version__
from swapd.desk import SiteDesk
from swapd.host.tally import Tally
from swapd.host.textfile import describe_remedy, find_waiting, remove_file, replace_file
from swapd.model import events
from swapd.model.errors import Failed
from swapd.model.events import Event
from swapd.model.layout import Layout
from swapd.model.metrics import HEARTBEAT, DaemonMetrics, SiteMetrics, format_metrics
from swapd.model.release import SiteName

log = logging.getLogger(__name__)

REST = 1.0  # seconds between two writings: a collector looks every fifteen, and deployments may come in hundreds
BUDGET = 0.05  # seconds for counting in one turn of the daemon: no deployment waits for it


class Metrics:
    """For the collector that reads a file; nothing is done, nor kept, where no file is asked for.

    No fault here changes what becomes of a deployment: it is said once, and is in ``trouble`` as long as it lasts.
    """

    def __init__(self, layout: Layout, emit: Callable[[Event], None]) -> None:
        self.trouble = ""
        self._layout = layout
        self._emit = emit
        self._file: Path | None = None
        self._started = self._loaded = time.time()
        self._tallies: dict[SiteName, Tally] = {}
        self._is_counting = False  # and has not come to the end
        self._unwritten = ""  # why the file cannot be written
        self._uncounted: dict[SiteName, str] = {}  # why a site's deployments cannot be counted
        self._lost = self._unheard = 0  # journal records: since we started, and those of them that it was not told of
        self._said: tuple[DaemonMetrics, list[SiteMetrics]] | None = None
        self._beat_at = self._recount_at = self._rests_until = 0.0  # of time.monotonic()

    def configure(self, file: Path | None) -> None:
        """A configuration was read: from now on it is this file, or none. Another one before it goes away."""
        if self._file is not None and file != self._file and not find_waiting(self._file.parent):
            remove_file(self._file)
        self._file, self._loaded, self._said = file, time.time(), None
        self.trouble = self._unwritten = ""  # whoever has not mended it is told again
        self._beat_at = self._recount_at = self._rests_until = 0.0

    @property
    def wakes_at(self) -> float:
        """When it is to be told again how things stand though nothing happens, of time.monotonic()."""
        if self._file is None:
            return math.inf
        if self._is_counting:
            return 0.0
        return self._rests_until if self._rests_until > time.monotonic() else self._beat_at

    def tell(
        self, desks: Collection[SiteDesk], *, is_configuration_valid: bool, unheard: int, is_up: bool = True
    ) -> None:
        """How things stand: written, where that is news and the last time was not just now. Raises nothing.

        ``unheard`` are the records that the journal has lost, and has not been told of.
        """
        self._lost += max(0, unheard - self._unheard)
        self._unheard = unheard
        present = time.monotonic()
        if self._file is not None and (self._is_counting or present >= self._rests_until or not is_up):
            daemon = DaemonMetrics(__version__, is_up, self._started, is_configuration_valid, self._loaded, self._lost)
            try:
                self._write(self._file, daemon, desks, present)
            except Exception:  # a fault of ours must not end what serves the sites
                log.exception("an unexpected error: no metrics are written any more")
                self._file, self.trouble = None, "no metrics: an unexpected error, see journalctl -u swapd"

    def _write(self, file: Path, daemon: DaemonMetrics, desks: Collection[SiteDesk], present: float) -> None:
        self._is_counting = self._count(desks, present)
        if self._is_counting and daemon.is_up:
            return
        news = daemon, [self._describe(desk) for desk in desks]
        if news != self._said or present >= self._beat_at:
            self._said, self._rests_until, self._beat_at = news, present + REST, present + HEARTBEAT
            said, remedy = self._unwritten, describe_remedy(file, None)
            try:
                if kind := find_waiting(file.parent):  # an answer may take for ever, and sites would not be served
                    self._unwritten = f"no metrics: {file.parent} is on {kind}"
                else:
                    replace_file(file, format_metrics(*news, time.time()).encode())
                    self._unwritten = ""
            except OSError as error:
                self._unwritten = f"no metrics: {error.filename}: {error.strerror}"
                remedy = describe_remedy(file, error.errno)
            self._say(said, self._unwritten, remedy)
        uncounted = [f"{site}: {why}" for site, why in self._uncounted.items()]
        self.trouble = "; ".join(filter(None, (self._unwritten, *uncounted)))

    def _say(self, said: str, trouble: str, remedy: str, site: SiteName | None = None) -> None:
        """What is wrong, when it becomes so."""
        if trouble not in ("", said):
            message = f"{trouble}. {remedy} Deployments go on as ever, and it is tried again each minute."
            self._emit(events.degraded(message, site))

    def _count(self, desks: Collection[SiteDesk], present: float) -> bool:
        """Brings the totals up to date, for a while; whether there is more to do."""
        self._tallies = {
            desk.site.name: self._tallies.get(desk.site.name) or Tally(self._layout, desk.site.name) for desk in desks
        }
        self._uncounted = {site: why for site, why in self._uncounted.items() if site in self._tallies}
        if present >= self._recount_at:
            self._recount_at = present + HEARTBEAT
            for tally in self._tallies.values():
                tally.expect()
        for site, tally in self._tallies.items():
            while tally.is_due():
                if time.monotonic() > present + BUDGET:
                    return True
                if self._count_some(site, tally):
                    break
        return False

    def _count_some(self, site: SiteName, tally: Tally) -> bool:
        """Some of a site's deployments; whether there is nothing more that could be counted now."""
        try:
            is_all = tally.count_some()
        except (Failed, OSError) as error:
            why = error.message if isinstance(error, Failed) else f"{error.filename}: {error.strerror}"
            said, self._uncounted[site] = self._uncounted.get(site, ""), f"deployments cannot be counted: {why}"
            self._say(said, self._uncounted[site], "Make it readable and writable for swapd.", site)
            return True
        if is_all:
            self._uncounted.pop(site, None)
        return is_all

    def _describe(self, desk: SiteDesk) -> SiteMetrics:
        status = desk.status()
        current = desk.current.file_name if desk.current else None
        return SiteMetrics(
            site=status.site,
            totals=self._tallies[status.site].totals,
            live=status.live,
            is_deploying=desk.current is not None,
            waiting=status.waiting,
            oldest=desk.arrivals.find_oldest(current),
            is_lost=bool(desk.lost),
            has_trouble=bool(status.trouble or status.failure),
        )

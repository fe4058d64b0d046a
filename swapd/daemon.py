"""The daemon: hands what arrives to one worker for each site, hears how it goes, and tells systemd. No policy."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import selectors
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from swapd import __version__, lookout
from swapd.context import Context
from swapd.desk import SiteDesk
from swapd.host.configuration import read_metrics_file, read_sites
from swapd.host.eventlog import EventLog
from swapd.host.notify import Notifier
from swapd.host.presence import Presence
from swapd.host.resume import resume_for_stopped
from swapd.lookout import Lookout
from swapd.metrics import Metrics
from swapd.model import events
from swapd.model.config import Site
from swapd.model.errors import ConfigurationError, Failed
from swapd.model.layout import Layout
from swapd.model.record import UNRECORDED, now
from swapd.model.release import Fingerprint, Outcome, SiteName, Upload
from swapd.model.status import status_line
from swapd.recover import resume

log = logging.getLogger(__name__)

RESTART_DELAY = 2.0  # seconds before a worker that died is started again
LOSSES_AGAIN = 2.0  # seconds between two attempts to tell a journal that takes nothing how much it has missed
STOP_PATIENCE = 45.0  # seconds that a worker may take to end its deployment when we stop; the unit allows 60


class Daemon:
    """``run`` is all of its life."""

    def __init__(self, layout: Layout) -> None:
        """Reads the configuration; ``ConfigurationError`` when there is no good one to start with."""
        self._layout = layout
        self._log = EventLog(layout)
        self._context = Context(layout, self._log.emit, lambda *_: None)
        self._rescan_at = self._check_at = 0.0
        self._notifier = Notifier()
        self._selector = selectors.DefaultSelector()
        self._trouble = ""
        self._not_resumed = ""
        self._presence = Presence(layout)
        self._is_stopping = False
        self._desks: dict[SiteName, SiteDesk] = {}
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._lookout = Lookout(self._log.emit)
        self._metrics = Metrics(layout, self._log.emit)
        self._set_sites(read_sites(layout))
        self._metrics.configure(read_metrics_file(layout))

    def _set_sites(self, sites: dict[SiteName, Site]) -> None:
        desks = {}
        for name, site in sites.items():
            old = self._desks.get(name)
            if old is not None and (old.site == site or old.worker is not None):
                desks[name] = old
                if old.site != site:
                    old.site = site  # the deployment under way ends as it began; the next worker has the new one
                    old.retire_worker()
                continue
            desks[name] = SiteDesk(site, self._layout)
        for name, desk in self._desks.items():
            if name not in sites:
                desk.queue.clear()
                desk.retire_worker()
        self._desks = desks
        self._lookout.set_up(desks.values())

    def run(self) -> None:
        """Until SIGTERM or SIGINT; ends when every worker has."""
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)  # the byte in the wake-up pipe is what is handled
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._selector.register(self._lookout.flags, selectors.EVENT_READ)
        self._resume()
        gc.freeze()  # what workers share with us stays shared: a collection would touch, and so copy, all of it
        self._log.emit(events.started(list(self._desks), __version__))
        self._notifier.ready()
        try:
            while not self._is_stopping:
                self._turn()
            self._stop()
            self._tell_metrics(is_up=False)
        finally:
            signal.set_wakeup_fd(-1)
            self._lookout.close()

    def _turn(self) -> None:
        """Once round the loop: look, hand over, tell, wait."""
        present = time.monotonic()
        silent = self._lookout.find_silent(present)
        for desk in self._desks.values():
            with self._keeping(desk):
                if present >= desk.looks_at:
                    with desk.looking.earned():
                        self._lookout.look(desk, silent)
                self._tend(desk, present)
                if desk.notices.are_due:  # once the worker has something to do
                    self._write_notices(desk)
        if present >= self._rescan_at:
            self._rescan_at = present + lookout.RESCAN
            self._look_after()
        if present >= self._check_at:
            self._check(present)
        self._tell()
        self._wait(self._patience())

    @contextlib.contextmanager
    def _keeping(self, desk: SiteDesk) -> Iterator[None]:
        """What goes wrong with one site, through a fault of ours too, must not end the daemon of the others."""
        try:
            yield
        except Exception:  # the daemon's one broad except: see above
            again = lookout.RESCAN
            log.exception("%s: an unexpected error; the site is looked at again in %g s", desk.site.name, again)
            desk.trouble = "an unexpected error, see journalctl -u swapd"
            desk.look_at = desk.not_before = time.monotonic() + again

    def _resume(self) -> None:
        """Resumes what a crash left stopped; that it is not known what, is said once and keeps no site waiting."""
        said, self._not_resumed = self._not_resumed, ""
        try:
            resume(self._context)
        except Failed as error:
            self._not_resumed = f"{error.message}. {error.hint}"
            if self._not_resumed != said:
                self._log.emit(events.degraded(self._not_resumed))

    def _resume_for_stopped(self) -> None:
        """A worker that somebody stopped amid a pause resumes nothing, and its guardian may have been stopped, too."""
        for desk in self._desks.values():
            if desk.worker is not None:
                try:
                    count = resume_for_stopped(self._layout, desk.worker.pid)
                except Failed as error:
                    self._log.emit(events.degraded(f"{error.message}. {error.hint}", desk.site.name))
                    continue
                if count:
                    self._log.emit(events.resumed_leftover(count, desk.worker.pid))

    def _look_after(self) -> None:
        """Puts right what a killed command left, and tries again what could not be watched."""
        self._resume()
        self._lookout.watch_unwatched()
        for desk in self._desks.values():
            with self._keeping(desk):
                if desk.worker is None:
                    desk.find_crashed()
                    desk.find_leftovers()
                if desk.retry_where_mended() or desk.retry_where_room_is():
                    desk.look_at = 0.0

    def _write_notices(self, desk: SiteDesk) -> None:
        """A pending marker for some of those that have to wait and have none, and none for what went away."""
        current = desk.current.file_name if desk.current else None
        try:
            desk.notices.write_some(desk.site, desk.arrivals, current)
            desk.unmarked = ""
        except OSError as error:
            said, desk.unmarked = desk.unmarked, f"a marker in {desk.site.incoming}: {error.strerror}"
            if desk.unmarked != said:
                self._log.emit(events.degraded(desk.unmarked, desk.site.name))

    def _tend(self, desk: SiteDesk, present: float) -> None:
        """Starts a worker where there is work for one, and keeps it busy."""
        wanted = bool(desk.queue) or desk.must_recover
        if desk.worker is None and wanted and present >= desk.not_before:
            try:
                desk.start_worker()
            except OSError as error:
                desk.not_before = present + RESTART_DELAY
                self._log.emit(events.degraded(f"no worker can be started: {error.strerror}", desk.site.name))
            if desk.worker is not None:
                self._selector.register(desk.worker.stdout, selectors.EVENT_READ, desk)
        desk.hand_over()

    def _patience(self) -> float:
        if any(desk.notices.are_due for desk in self._desks.values()):
            return 0.0
        present = time.monotonic()
        waits = [self._metrics.wakes_at - present, *(desk.looks_at - present for desk in self._desks.values())]
        waits += [
            d.not_before - present for d in self._desks.values() if d.worker is None and (d.queue or d.must_recover)
        ]
        return max(0.0, min(self._check_at - present, *waits, lookout.RESCAN))

    def _check(self, present: float) -> None:
        """The watchdog's ping, once the watch is known to work."""
        self._check_at = present + (self._notifier.watchdog_interval() or lookout.RESCAN)
        self._lookout.check()
        self._log.report_losses()  # which may be a worker's, or a command's
        self._presence.renew()
        self._notifier.ping()

    def _tell(self) -> None:
        lost = self._log.lost
        if lost:
            self._check_at = min(self._check_at, time.monotonic() + LOSSES_AGAIN)
        unheard = f"the journal takes no records ({lost} lost), swapd history has them" if lost else ""
        self._tell_metrics()
        trouble = "; ".join(filter(None, (self._trouble, self._not_resumed, unheard, self._metrics.trouble)))
        self._notifier.status(status_line([desk.status() for desk in self._desks.values()], now(), trouble))

    def _tell_metrics(self, *, is_up: bool = True) -> None:
        is_valid, lost = not self._trouble, self._log.lost
        self._metrics.tell(self._desks.values(), is_configuration_valid=is_valid, unheard=lost, is_up=is_up)

    def _wait(self, patience: float) -> None:
        for key, _ in self._selector.select(patience):
            if key.fileobj == self._wake:
                self._handle(os.read(self._wake, 65536))
            elif key.fileobj == self._lookout.flags:
                self._lookout.take_flags()
            else:
                with self._keeping(key.data):
                    self._hear(key.data)

    def _handle(self, bytes_: bytes) -> None:
        """The wake-up pipe's bytes: signal numbers."""
        if signal.SIGTERM in bytes_ or signal.SIGINT in bytes_:
            self._is_stopping = True
        if signal.SIGHUP in bytes_:
            self._reload()
        if signal.SIGCHLD in bytes_:
            self._resume_for_stopped()
            self._check_at = 0.0  # it may have been the watch's process

    def _reload(self) -> None:
        self._notifier.reloading()
        try:
            self._set_sites(read_sites(self._layout))
            self._metrics.configure(read_metrics_file(self._layout))
        except ConfigurationError as error:
            first, more = error.issues[0], len(error.issues) - 1
            others = f", and {more} more" if more else ""
            where = f"{first.file}:{first.line}" if first.line else first.file
            said = "the one before stays in force, see swapd check"
            self._trouble = f"bad configuration kept out: {where}{others} ({said})"
            self._log.emit(events.configuration_refused(error.issues))
        else:
            self._trouble = ""
            for desk in self._desks.values():
                desk.retry_failed()
            self._log.emit(events.reloaded(list(self._desks)))
        self._notifier.ready()

    def _hear(self, desk: SiteDesk) -> None:
        """A worker's reports, or its end."""
        if desk.worker is None:
            return
        chunk = desk.worker.stdout.read()
        if chunk:
            *lines, desk.buffer = (desk.buffer + chunk).split(b"\n")
            for line in lines:
                self._take_report(desk, json.loads(line))
        elif chunk is not None:
            self._bury(desk)

    def _take_report(self, desk: SiteDesk, report: dict[str, Any]) -> None:
        upload = desk.current
        if "swept" in report:
            desk.hear_swept()
            return
        desk.is_sweeping = report.get("sweeps", desk.is_sweeping)
        if "ready" in report:
            desk.hear_ready()
        elif "stage" in report:
            desk.stage = f"{report['stage']} {report['release']}".strip()
            desk.fraction = report["fraction"]
            desk.show_progress(report["stage"], report["release"])
        elif upload is not None:
            desk.rest()
            if "waits" in report:
                desk.passed = ()
                desk.arrivals.put_back(upload, report["reason"], time.monotonic())
            else:
                self._take_outcome(desk, upload, report)
            desk.read_live()
            # As long as others wait, there is nothing to see but that this one is gone, and a look after each of them
            # would take the longer the more they are. What else happens meanwhile is an event.
            if not desk.queue or "waits" in report or report["is_retried"]:
                desk.look_at = 0.0

    @staticmethod
    def _take_outcome(desk: SiteDesk, upload: Upload, report: dict[str, Any]) -> None:
        desk.hear_outcome(upload, Outcome(report["outcome"]), report["release"], report["reason"])
        if not report["is_retried"]:
            # Also what went live: should its file not be removable, it is not deployed for ever. And as it was claimed,
            # which may be later than it was seen.
            claimed = Fingerprint(*report["fingerprint"]) if report["fingerprint"] else upload.fingerprint
            desk.arrivals.answer(replace(upload, fingerprint=claimed))
            desk.note_needed(upload, report["needed"])
            desk.is_unrecorded |= report["problem"] == UNRECORDED
            # Its worker has said more; and should an upload of this name come again, it is said anew that it waits.
            with contextlib.suppress(OSError):
                desk.notices.write(desk.site, desk.arrivals, upload.file_name)
        desk.trouble = ""

    def _bury(self, desk: SiteDesk) -> None:
        """The worker has ended: in order, or by a crash that its successor recovers from."""
        if desk.worker is None:
            return
        self._selector.unregister(desk.worker.stdout)
        desk.worker.close()
        status = desk.worker.wait()
        if desk.current is not None or not desk.is_ready or status != 0:
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            self._resume()
            if not self._is_stopping:
                self._log.emit(events.degraded(f"the worker ended by {how}; its successor recovers", desk.site.name))
            desk.must_recover = True
            desk.not_before = time.monotonic() + RESTART_DELAY
        desk.worker = None
        desk.rest()
        desk.look_at = 0.0

    def _stop(self) -> None:
        """Interrupts what is under way, at its next step, and waits for it: what was begun gets its outcome."""
        # Of removed sites, too.
        busy = [key.data for key in self._selector.get_map().values() if isinstance(key.data, SiteDesk)]
        self._notifier.stopping()
        self._log.emit(events.stopping([desk.site.name for desk in busy if desk.current]))
        for desk in busy:
            if desk.worker is not None:
                desk.worker.terminate()
                desk.retire_worker()
        deadline = time.monotonic() + STOP_PATIENCE
        while any(desk.worker for desk in busy) and time.monotonic() < deadline:
            self._notifier.ping()
            self._wait(0.5)

"""One site as the daemon sees it: what arrived, what waits in line, and the worker that deploys."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swapd import worker
from swapd.host import records
from swapd.host.coprocess import Coprocess
from swapd.host.room import read_room
from swapd.ledger import is_retried
from swapd.model.config import Site
from swapd.model.errors import Failed
from swapd.model.layout import Layout
from swapd.model.record import Deployment, LiveRelease
from swapd.model.release import Outcome, SiteName, Upload, recorded_name
from swapd.model.room import RoomNeeded
from swapd.model.status import SiteStatus
from swapd.stages.arrive import Answer, Arrivals
from swapd.stages.prune import has_leftovers

LEISURE = 9.0  # between two looks at a drop directory, for one that a look takes


class SiteDesk:
    """What the daemon keeps for one site."""

    def __init__(self, site: Site, layout: Layout) -> None:
        self.site = site
        self._layout = layout
        self._needed: dict[str, RoomNeeded] = {}  # by the recorded name of an upload that failed for want of room
        self.arrivals = self._new_arrivals()
        self.queue: deque[Upload] = deque()
        self.current: Upload | None = None
        self.worker: Coprocess | None = None
        self.is_ready = False
        self.must_recover = False
        self.is_recovering = False
        self._deployments_mtime = 0
        self.find_crashed()
        self.must_recover = self.must_recover or has_leftovers(site)
        self.not_before = 0.0
        self.stage = ""
        self.fraction: float | None = None
        self.trouble = ""  # what went wrong with the last upload
        self.lost = ""  # what is wrong with the drop directory
        self.live: LiveRelease | None = None
        self._live_written = -1
        self.look_at = 0.0  # of time.monotonic(): when to look at the drop directory, as soon as that may be
        self._rests_until = 0.0
        self.buffer = b""
        self.gone: list[str] = []  # names of answered uploads that their owners removed
        self.marked: dict[str, str] = {}  # why each upload that has a pending marker of ours waits
        self.read_live()

    @property
    def looks_at(self) -> float:
        """When its drop directory is looked at next, of time.monotonic()."""
        return max(self.look_at, self._rests_until)

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """A look: the next one comes after nine times as long, so that a crowd of uploads is not stared at."""
        begin = time.monotonic()
        try:
            yield
        finally:
            end = time.monotonic()
            self._rests_until = end + LEISURE * (end - begin)

    def find_crashed(self) -> None:
        """Sees whether somebody, perhaps a command, left a deployment without outcome; cheap where nothing changed."""
        try:
            mtime = self._layout.deployments(self.site.name).stat().st_mtime_ns
        except FileNotFoundError:
            return
        if mtime != self._deployments_mtime and self.current is None:
            self._deployments_mtime = mtime
            self.must_recover = bool(records.find_unfinished(self._layout, self.site.name))

    def hear_ready(self) -> None:
        """The worker has recovered, and takes uploads from now on."""
        self.is_ready = True
        if self.is_recovering:  # which may have ended the last attempt at an upload that crashes its worker
            self.is_recovering = False
            self.arrivals = self._new_arrivals()
            self.queue.clear()
            self.look_at = 0.0
        self.read_live()

    def _new_arrivals(self) -> Arrivals:
        """What the site's records answered already."""
        answered: dict[str, Answer] = {}
        self._needed.clear()
        for deployment in _answered(self._layout, self.site.name):
            answered[deployment.file_name] = (deployment.fingerprint, deployment.sidecars)
            if deployment.needed is not None:
                self._needed[deployment.file_name] = deployment.needed
        return Arrivals(answered)

    def note_needed(self, upload: Upload, needed: dict[str, Any] | None) -> None:
        """What the upload that was just answered waits for: it is retried once that much is free."""
        self._needed.pop(recorded_name(upload.file_name), None)
        if needed is not None:
            self._needed[recorded_name(upload.file_name)] = RoomNeeded(**needed)

    def retry_where_room_is(self) -> bool:
        """Has what failed for want of room taken up again where there is room now; whether there was any."""
        there = []
        for name, needed in self._needed.items():
            with contextlib.suppress(OSError):
                if needed.is_there(read_room(Path(needed.directory))):
                    there.append(name)
        for name in there:
            del self._needed[name]
            self.arrivals.retry(name)
        return bool(there)

    def read_live(self) -> None:
        """What the site's record says is live; cheap where nothing changed."""
        path = self._layout.site_record(self.site.name)
        try:
            written = path.stat().st_mtime_ns if path.exists() else 0
            if written != self._live_written:
                self.live = records.read_state(self._layout, self.site.name).live
                self._live_written = written
        except (Failed, OSError) as error:
            self.trouble = str(error)

    def retire_worker(self) -> None:
        """No further upload for the worker that runs: it ends after the one it has."""
        if self.worker is not None:
            self.worker.stdin.close()

    def start_worker(self) -> None:
        """Starts the site's worker, which recovers first. ``OSError`` when there can be no further process."""
        site, layout = self.site, self._layout
        self.worker = Coprocess(site.name, lambda: worker.work(site, layout))
        os.set_blocking(self.worker.stdout.fileno(), False)
        self.is_ready, self.buffer = False, b""
        self.is_recovering, self.must_recover = self.must_recover, False

    def hand_over(self) -> None:
        """Gives the worker its next upload, or ends it when there is none."""
        if self.worker is None or not self.is_ready or self.current is not None:
            return
        if self.worker.stdin.closed:
            return  # it is on its way out; its successor goes on
        if self.queue:
            self.current = self.queue.popleft()
            with contextlib.suppress(BrokenPipeError):  # it died: its end of output says so
                self.worker.stdin.write(json.dumps(worker.upload_document(self.current)).encode() + b"\n")
        else:
            self.retire_worker()

    def status(self) -> SiteStatus:
        waiting = len(self.arrivals.waiting()) - (self.current is not None)
        trouble = ", ".join(filter(None, (self.lost, self.trouble)))
        return SiteStatus(self.site.name, self.live, self.stage, self.fraction, max(waiting, 0), trouble)


def _answered(layout: Layout, site: SiteName) -> Iterator[Deployment]:
    """The deployments of uploads that were rejected or failed as they are, by the newest record of each name."""
    seen: set[str] = set()
    for deployment in records.read_deployments(layout, site):
        if not deployment.is_dropped or deployment.file_name in seen:
            continue
        seen.add(deployment.file_name)
        if deployment.outcome in (Outcome.REJECTED, Outcome.FAILED) and not is_retried(deployment):
            yield deployment

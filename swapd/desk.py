"""One site as the daemon sees it: what arrived, what waits in line, and the worker that deploys."""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from swapd import worker
from swapd.answer import find_answered
from swapd.host import records
from swapd.host.coprocess import Coprocess
from swapd.host.files import is_writable
from swapd.host.leisure import Leisure
from swapd.host.progress import ProgressFile
from swapd.host.room import read_room
from swapd.host.routes import is_route_lost
from swapd.model.config import Queue, Site
from swapd.model.errors import Failed
from swapd.model.layout import Layout
from swapd.model.record import UNRECORDED, Deployment, Kind, LiveRelease, now
from swapd.model.release import DeploymentId, Outcome, ReleaseId, SiteName, Stage, Upload, recorded_name
from swapd.model.room import RoomNeeded
from swapd.model.status import Failure, SiteStatus, Waiting
from swapd.model.turns import Superseded, choose_turn, find_passed
from swapd.notices import Notices
from swapd.rebuild import has_traces
from swapd.stages.arrive import Answer, Arrivals
from swapd.stages.prune import ASIDE, find_leftovers


class SiteDesk:
    """What the daemon keeps for one site."""

    def __init__(self, site: Site, layout: Layout) -> None:
        self.site = site
        self._layout = layout
        self._needed: dict[str, RoomNeeded] = {}  # by the recorded name of an upload that failed for want of room
        self._void: set[DeploymentId] = set()  # failures that are no answer any more
        self.arrivals = self._new_arrivals()
        self.retry_failed()
        self.queue: deque[Upload] = deque()
        self.current: Upload | None = None
        self.passed: tuple[Upload, ...] = ()  # over for the current one
        self.superseded = Superseded()
        self.worker: Coprocess | None = None
        self.is_ready = False
        self.is_sweeping = False
        self.must_recover = False
        self.is_recovering = False
        self._deployments_mtime = 0
        self.is_unrecorded = False  # some upload failed because its deployment could not be written down
        self._is_unfinished = False  # some deployment, when its record was looked for last
        self._unread = ""  # why the records cannot be read
        self.find_crashed()
        self._left: list[str] = []  # by whoever removed old releases last, and could not remove these
        self.must_recover = self.must_recover or bool(find_leftovers(site)) or self._is_route_lost()
        self.not_before = 0.0
        self.stage = ""
        self.fraction: float | None = None
        self._progress = ProgressFile(layout, site.name)
        self.trouble = ""  # what cannot be known, or went wrong in the daemon
        self.failure = self._find_failure()  # what went wrong with the last upload
        self.lost = ""  # what is wrong with the drop directory
        self.live: LiveRelease | None = None
        self._live_written = -1
        self._untold = ""  # why it is not known what is live
        self.look_at = 0.0  # of time.monotonic(): when to look at the drop directory, as soon as that may be
        self.looking = Leisure()
        self.buffer = b""
        self.notices = Notices()
        self.unmarked = ""  # why not all of them could be written
        self.read_live()
        self._live_upload = self._find_live_upload()

    def _find_failure(self) -> Failure | None:
        """What the last deployment before a start came to, where that is nothing good."""
        for item in _read_deployments(self._layout, self.site.name):
            if item.ended is not None:
                is_bad = item.outcome in (Outcome.REJECTED, Outcome.FAILED) and item.is_dropped
                return Failure.of(item.file_name, item.outcome, item.reason, item.ended) if is_bad else None
        return None

    def forget_failure(self, gone: Iterable[str]) -> None:
        """Of an upload whose owner has removed it: there is nothing more to do about it."""
        if self.failure is not None and self.failure.file_name in set(gone):
            self.failure = None

    def _is_route_lost(self) -> bool:
        try:
            return is_route_lost(self.site)
        except OSError:
            return True  # whoever recovers says what is wrong

    def _find_live_upload(self) -> tuple[ReleaseId, Upload] | None:
        """The upload of the release that is live, as it was; None where that is none that was dropped."""
        if self.live is None or self.site.queue is Queue.ALL:
            return None
        for item in _read_deployments(self._layout, self.site.name, self.live.deployment):
            if item.id == self.live.deployment and item.is_dropped and item.kind is Kind.DEPLOYMENT:
                upload = Upload(self.site.incoming, item.file_name, True, fingerprint=item.fingerprint)
                return self.live.release, upload
        return None

    @property
    def looks_at(self) -> float:
        """When its drop directory is looked at next, of time.monotonic()."""
        return max(self.look_at, self.looking.until)  # a crowd of uploads is not stared at

    def find_crashed(self) -> None:
        """Sees whether somebody, perhaps a command, left a deployment without outcome; cheap where nothing changed."""
        try:
            mtime = self._layout.deployments(self.site.name).stat().st_mtime_ns
            if mtime != self._deployments_mtime and self.current is None:
                self._is_unfinished = bool(records.find_unfinished(self._layout, self.site.name))
                self.must_recover = self._is_unfinished or self._is_damaged()
                self._deployments_mtime = mtime
            self._unread = ""
        except FileNotFoundError:
            return
        except (Failed, OSError) as error:
            # Once: the worker that recovers says it in the journal.
            self.must_recover |= not self._unread
            self._unread = _explain(error)

    def _is_damaged(self) -> bool:
        """Whether a record is to be rebuilt; one that a newer version wrote is for the next deployment to refuse."""
        try:
            return bool(records.find_damaged(self._layout, self.site.name))
        except Failed:
            return False

    def retry_where_mended(self) -> bool:
        """Has done what could not be written when its deployment ended, once it can be; whether so.

        That are records, and markers. A deployment that failed because it could not be written down is made again,
        whoever has written it down since.
        """
        kept = []
        with contextlib.suppress(Failed):
            kept = records.read_kept_deployments(self._layout, self.site.name)
        is_owed = bool(kept) or self._is_unfinished
        place = self._layout.deployments(self.site.name) if kept or self.is_unrecorded else self.site.incoming
        if not (is_owed or self.is_unrecorded) or self.worker is not None or not is_writable(place):
            return False
        self._retry(item for item in _answered(self._layout, self.site.name) if item.problem == UNRECORDED)
        self.is_unrecorded = False
        self.must_recover |= is_owed
        return True

    def find_leftovers(self) -> None:
        """Sees whether old releases are on their way out and nobody removes them; those that cannot be, count once."""
        if (left := find_leftovers(self.site, ASIDE)) and left != self._left:
            self._left = left
            self.must_recover = True

    def hear_swept(self) -> None:
        """The worker has removed what it could."""
        self.is_sweeping = False
        self._left = find_leftovers(self.site, ASIDE)

    def hear_ready(self) -> None:
        """The worker has recovered, and takes uploads from now on."""
        self.is_ready = True
        if self.is_recovering:  # which may have ended the last attempt at an upload that crashes its worker
            self.is_recovering = False
            self.arrivals = self._new_arrivals()
            self.notices.postpone()
            self.queue.clear()
            self.look_at = 0.0
            self.read_live()
            self._live_upload = self._find_live_upload()
        self.read_live()

    def _new_arrivals(self) -> Arrivals:
        """What the site's records answered already."""
        answered: dict[str, Answer] = {}
        self._needed.clear()
        for deployment in _answered(self._layout, self.site.name):
            if deployment.id in self._void:
                continue
            answered[deployment.file_name] = (deployment.fingerprint, deployment.sidecars)
            if deployment.needed is not None:
                self._needed[deployment.file_name] = deployment.needed
        return Arrivals(answered)

    def note_needed(self, upload: Upload, needed: dict[str, Any] | None) -> None:
        """What the upload that was just answered waits for: it is retried once that much is free."""
        self._needed.pop(recorded_name(upload.file_name), None)
        if needed is not None:
            self._needed[recorded_name(upload.file_name)] = RoomNeeded(**needed)

    def retry_failed(self) -> None:
        """Has what failed taken up again, once: who starts or reloads the daemon may well have mended this host.

        Not what was rejected, nor what waits for room, which is known; nor what ended its workers: it might end more.
        """
        self._retry(_answered(self._layout, self.site.name))

    def _retry(self, deployments: Iterable[Deployment]) -> None:
        for deployment in deployments:
            is_failed = deployment.outcome is Outcome.FAILED and deployment.problem != "crashed"
            if is_failed and deployment.needed is None and deployment.id not in self._void:
                self._void.add(deployment.id)
                self.arrivals.retry(deployment.file_name)

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
            written = _find_mtime(path)
            if written != self._live_written:
                self._live_written = written  # also of one that cannot be read: it is rebuilt, or not, once
                self.live = records.read_state(self._layout, self.site.name).live
                self.trouble = self.trouble if self.trouble != self._untold else ""
                # Perhaps a site before its first deployment; perhaps one whose records are lost.
                self.must_recover |= not written and has_traces(self.site, self._layout)
        except (Failed, OSError) as error:
            self.trouble = self._untold = _explain(error)
            if isinstance(error, Failed) and error.problem == "bad-record":
                self.must_recover = True
            else:
                self._live_written = -1

    def retire_worker(self) -> None:
        """No further upload for the worker that runs: it ends after the one it has."""
        if self.worker is not None:
            self.worker.stdin.close()

    def start_worker(self) -> None:
        """Starts the site's worker, which recovers first. ``OSError`` when there can be no further process."""
        site, layout = self.site, self._layout
        self.worker = Coprocess(site.name, lambda: worker.work(site, layout))
        os.set_blocking(self.worker.stdout.fileno(), False)
        self.is_ready, self.is_sweeping, self.buffer = False, False, b""
        self.is_recovering, self.must_recover = self.must_recover, False

    def hand_over(self) -> None:
        """Gives the worker its next upload, or ends it when there is none."""
        if self.worker is None or not self.is_ready or self.current is not None:
            return
        if self.worker.stdin.closed:
            return  # it is on its way out; its successor goes on
        if (passed := self.superseded.find(self.queue)) is not None and self.superseded.release:
            self._give(passed, superseded_by=self.superseded.release)
        elif self.queue:
            turn = choose_turn(self.queue, self.site.queue)
            self.passed = turn.passed
            self._give(turn.upload)
        elif not self.is_sweeping:
            self.retire_worker()

    def _give(self, upload: Upload, **order: str) -> None:
        with contextlib.suppress(OSError):  # the worker says it when it cannot write its own either
            self.notices.write(self.site, self.arrivals, upload.file_name)
        self.queue.remove(upload)
        self.current = upload
        self._progress.begin()
        if self.worker is not None:
            with contextlib.suppress(BrokenPipeError):  # it died: its end of output says so
                self.worker.stdin.write(json.dumps({**worker.upload_document(upload), **order}).encode() + b"\n")

    def show_progress(self, stage: str, release: str) -> None:
        """Lets everybody see how far the current one is; of one that is over, only systemd is told."""
        if self.current is not None:
            self._progress.show(recorded_name(self.current.file_name), Stage(stage), self.fraction, release)

    def rest(self) -> None:
        """The current one is over, or its worker is."""
        self.stage, self.fraction, self.current = "", None, None
        self._progress.remove()

    def hear_outcome(self, upload: Upload, outcome: Outcome, release: ReleaseId | None, reason: str) -> None:
        """What became of the upload whose turn it was: those that were passed over for it have their turn, or not."""
        is_bad = outcome in (Outcome.REJECTED, Outcome.FAILED)
        self.failure = Failure.of(recorded_name(upload.file_name), outcome, reason, now()) if is_bad else None
        if self.passed and outcome in (Outcome.LIVE, Outcome.UNCHANGED):
            self.superseded = Superseded(release, self.passed)
        self.passed = ()

    def weigh_arrivals(self) -> None:
        """At the first look after a start: what was passed over before it."""
        live, self._live_upload = self._live_upload, None
        if live is not None and self.site.queue is Queue.LATEST:
            release, upload = live
            self.superseded = Superseded(release, find_passed(self.queue, upload))

    def status(self) -> SiteStatus:
        waiting = self.arrivals.count - (self.current is not None)
        held = self.arrivals.find_longest(self.current.file_name if self.current else None)
        return SiteStatus(
            self.site.name,
            self.live,
            self.stage,
            self.fraction,
            max(waiting, 0),
            Waiting(held[0], held[1], datetime.fromtimestamp(held[2] / 1e9, UTC)) if held else None,
            ", ".join(filter(None, (self.lost, self._unread, self.trouble, self.unmarked))),
            self.failure,
        )


def _explain(error: Failed | OSError) -> str:
    return error.message if isinstance(error, Failed) else f"{error.filename}: {error.strerror}"


def _find_mtime(path: Path) -> int:
    """When the file was written, in nanoseconds; 0 where there is none. Raises ``OSError``."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _read_deployments(layout: Layout, site: SiteName, containing: str = "") -> list[Deployment]:
    try:
        return records.read_deployments(layout, site, containing)
    except Failed:
        return []


def _answered(layout: Layout, site: SiteName) -> Iterator[Deployment]:
    """What the site's records answered already.

    Nothing where they cannot be read: then each upload waits until they can, and is looked at again.
    """
    return find_answered(_read_deployments(layout, site))

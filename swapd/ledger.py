"""What is written when a deployment begins, goes on and ends: its record, the marker, the journal, the site's state."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import replace

from swapd.answer import MAX_ATTEMPTS, Answer
from swapd.context import Context
from swapd.host import records
from swapd.host.files import identify
from swapd.model import events
from swapd.model.config import Mtime, Site
from swapd.model.control import RollbackRequest
from swapd.model.errors import Failed, NotComplete, Rejected, SwapdError
from swapd.model.events import Event
from swapd.model.record import (
    SUPERSEDED,
    UNRECORDED,
    Deployment,
    Kind,
    LiveRelease,
    LiveTree,
    SiteState,
    StageTime,
    SwapIntent,
    now,
)
from swapd.model.release import (
    DeploymentId,
    Outcome,
    PauseCost,
    Release,
    ReleaseId,
    Stage,
    Tarball,
    Upload,
    recorded_name,
)
from swapd.model.room import NoRoom
from swapd.model.succession import succeed
from swapd.model.text import LONGEST, printable


class Ledger:
    """One deployment's entries. ``deployment`` is the record as last written."""

    def __init__(self, site: Site, context: Context, deployment: Deployment, file_name: str | None = None) -> None:
        """Goes on with a recorded deployment; ``file_name`` is given for one that has not begun."""
        self.site = site
        self.deployment = deployment
        # Whatever is said from here on is found among the deployment's records.
        self.context = replace(context, emit=lambda event: context.emit(self._about(event)))
        # A record has the name in printable form; only a name that is the same in both forms can have begun.
        self._answer = Answer(site, self.context, deployment.file_name if file_name is None else file_name)
        self._is_begun = file_name is None
        self._unpaused = events.describe_pause(None)
        self._stage: Stage | None = None
        self._entered = time.monotonic()
        self._is_kept = False  # the record, because it could not be written
        self._is_done = True  # what is left to do for the uploader, once there is an outcome

    def _about(self, event: Event) -> Event:
        """The event as one of the deployment's, once that has begun."""
        if not self.deployment.starts:
            return event
        return replace(event, fields={"SWAPD_DEPLOYMENT": self.deployment.id, **event.fields})

    @classmethod
    def open(cls, site: Site, context: Context, upload: Upload, kind: Kind = Kind.DEPLOYMENT) -> Ledger:
        """A deployment of the upload, or what it asks for; nothing is written yet."""
        deployment = Deployment(
            id=DeploymentId(str(uuid.uuid4())),
            site=site.name,
            outcome=Outcome.PENDING,
            started=now(),
            kind=kind,
            file_name=recorded_name(upload.file_name),
            is_dropped=upload.is_dropped,
            operator=context.operator,
            fingerprint=upload.fingerprint,
            sidecars=upload.sidecars,
        )
        return cls(site, context, deployment, upload.file_name)

    def know(self, tarball: Tarball) -> None:
        """What the claim found; not written before ``begin``."""
        self.deployment = replace(
            self.deployment,
            release=tarball.release,
            digest=tarball.digest,
            uploader=tarball.uploader,
            fingerprint=tarball.fingerprint,
        )

    def know_signer(self, signer: str) -> None:
        """Whose signature holds, or nobody's where none is asked for; not written before ``begin``."""
        self.deployment = replace(self.deployment, signer=printable(signer))

    def know_request(self, request: RollbackRequest) -> None:
        """What the control file says, and who may say it; not written before ``begin``."""
        self.deployment = replace(
            self.deployment,
            uploader=request.uploader,
            signer=printable(request.signer),
            signed=request.signed,
            fingerprint=request.fingerprint,
            sidecars=request.sidecars,
        )

    def know_target(self, release: ReleaseId, state: SiteState) -> None:
        """Which kept release shall be live again; not written before ``begin``."""
        # The newest of its deployments knows its digest: the same tarball is then `unchanged`. As long as it is there.
        known = (item for item in records.read_deployments(self.context.layout, self.site.name, release))
        origin = next((item for item in known if item.release == release and item.digest), None)
        self.deployment = replace(
            self.deployment,
            release=release,
            digest=origin.digest if origin else None,
            newest=origin.newest if origin else None,
            previous=state.live.release if state.live else None,
            # To go back to what was rolled back from undoes that: what was live meanwhile is none the worse for it.
            is_previous_bad=release not in state.bad,
        )

    def begin(self) -> None:
        """The deployment has begun: from here on it gets exactly one outcome, after a crash too.

        Raises ``Failed`` (``cannot-record``) when it cannot be written down.
        """
        crashed = self._find_crashed()
        if crashed is not None:
            self.deployment = replace(self.deployment, attempt=crashed.attempt % MAX_ATTEMPTS + 1)
        self._is_begun = True
        self.deployment = replace(self.deployment, reason="under way")
        try:
            self._write()
        finally:
            self.tell_start()
        self._answer.mark(self.deployment)

    def _find_crashed(self) -> Deployment | None:
        """The last attempt at the same upload that ended without a word."""
        try:
            crashed = records.read_deployments(self.context.layout, self.site.name, "crashed")
        except Failed:  # whoever writes the record says what is wrong
            return None
        mine = self.deployment
        return next((item for item in crashed if (item.file_name, item.digest) == (mine.file_name, mine.digest)), None)

    def tell_start(self) -> None:
        """The start record, once: after a crash between record and journal, recovery tells it.

        That it is told is noted at once, in place, because the moment between the two must be as short as it can be.
        """
        if not self.deployment.starts:
            started = events.deployment_started(self.deployment)
            try:
                with records.noting_start(self.context.layout, self.deployment):
                    self.deployment = replace(self.deployment, starts=1)
                    self.context.emit(started)
            except OSError as error:
                if not self.deployment.starts:
                    self.deployment = replace(self.deployment, starts=1)
                    self.context.emit(started)
                self._degrade("the record", error)

    def know_told(self, ids: Collection[str]) -> None:
        """Which events the journal has of the deployment: the crash may have come between an event and its note."""
        is_ended = self.deployment.outcome is not Outcome.PENDING
        self.deployment = replace(
            self.deployment,
            starts=int(events.deployment_started(self.deployment).id.value in ids),
            is_told=is_ended and events.deployment_ended(self.deployment).id.value in ids,
        )

    def intend(self, swaps: tuple[SwapIntent, ...]) -> None:
        """After this a crash during the swap can be told from one before it. Raises as ``begin``."""
        self.deployment = replace(self.deployment, swaps=swaps)
        self._write()

    def know_strategy(self, strategy: str, reason: str) -> None:
        """How the release is going to be swapped, and why so; not written before ``intend``."""
        self.deployment = replace(self.deployment, strategy=strategy, strategy_reason=reason)

    def know_newest(self, newest: int | None) -> None:
        """The time of the release's newest file, if it has one that tells; not written before ``intend``.

        Also where nobody asks for it: `newer_only` may be switched on later, and compares what follows with this.
        """
        self.deployment = replace(self.deployment, newest=newest)

    def know_pause(self, cost: PauseCost) -> None:
        """What the pause cost, for the outcome; also when nothing was swapped in it."""
        self.deployment = replace(self.deployment, pause=cost)

    def know_unpaused(self, why: str) -> None:
        """Why nothing was paused, for the outcome."""
        self._unpaused = f"{events.describe_pause(None)}: {why}"

    def _write(self) -> None:
        """Writes the record, durably. ``Failed`` (``cannot-record``) when that is impossible."""
        try:
            records.write_deployment(self.context.layout, self.deployment)
        except OSError as error:
            raise Failed(
                UNRECORDED,
                f"{self.context.layout.deployments(self.site.name)}: {error.strerror}",
                "Nothing is swapped that is not written down first: make that directory writable and make room; what "
                "was dropped is then taken up again by itself. The live release and the upload are untouched.",
            ) from error

    def enter(self, stage: Stage) -> None:
        """Notes the stage for the outcome and the status; costs no write."""
        self._end_stage()
        self._stage = stage
        self.deployment = replace(self.deployment, stage=stage.value)
        self.context.progress(stage, None, self.deployment.release or "")

    def _end_stage(self) -> None:
        """The stage that was entered last is over: its time is for the record."""
        entered, self._entered = self._entered, time.monotonic()
        if self._stage is None:
            return
        times = {item.stage: item.usec for item in self.deployment.stages}
        times[self._stage] = times.get(self._stage, 0) + round((self._entered - entered) * 1e6)
        self._stage = None
        stages = tuple(StageTime(stage, usec) for stage, usec in times.items())
        self.deployment = replace(self.deployment, stages=stages)

    def fail(self, error: SwapdError) -> Deployment:
        """The outcome of a deployment that did not make its release live."""
        if isinstance(error, NoRoom):
            self.deployment = replace(self.deployment, needed=error.needed)
        outcome = Outcome.REJECTED if isinstance(error, Rejected) else Outcome.FAILED
        return self._end(outcome, error.message, error.hint, error.problem)

    def end_unchanged(self) -> Deployment:
        """The outcome of a deployment of what is live already."""
        return self._end(Outcome.UNCHANGED, "this release is live already", "", "")

    def end_superseded(self, by: ReleaseId) -> Deployment:
        """The outcome of an upload whose turn was another's, which came later and is live."""
        hint = "It was not read, and stays here: touch it to have it deployed all the same, or remove it."
        reason = f"superseded by {by}, which came later and is live"
        return self._end(Outcome.UNCHANGED, reason, hint, SUPERSEDED)

    def end_live(self, release: Release, reason: str = "") -> Deployment:
        """The outcome of a deployment whose release is live: the site's state, and all the rest.

        ``reason`` is what is to be said of it; by default what the pause cost.

        Raises ``NotComplete`` when the state cannot be written: the deployment stays without an outcome, and recovery
        gives it one as soon as that is possible.
        """
        self.deployment = replace(self.deployment, previous=release.outgoing[0] if release.outgoing else None)
        pause = self.deployment.pause
        reason = reason or (self._unpaused if pause is None else events.describe_pause(pause))
        if self.deployment.kind is Kind.ROLLBACK:
            was = f"rolled back from {self.deployment.previous}" if self.deployment.previous else "nothing was live"
            reason = f"{was}; {reason}"
        try:
            self._write_state(release)
        except (OSError, Failed) as error:
            why = error.message if isinstance(error, Failed) else error.strerror
            message = f"{release.release} is live, and that cannot be written down yet: {why}"
            self.context.emit(events.degraded(message, self.site.name))
            raise NotComplete("cannot-record-live", message) from error
        return self._end(Outcome.LIVE, reason, "", "")

    def _write_state(self, release: Release) -> None:
        layout, name = self.context.layout, self.site.name
        live = LiveRelease(
            release=release.release,
            digest=self.deployment.digest,
            deployment=self.deployment.id,
            since=now(),
            tree=identify(self.site.live),
            pause=self.deployment.pause,
            newest=self.deployment.newest,
            others=tuple(LiveTree(str(path.live), identify(path.live)) for path in self.site.paths),
            live=str(self.site.live),
        )
        are_bad = self.deployment.kind is Kind.ROLLBACK and self.deployment.is_previous_bad
        state = succeed(records.read_state(layout, name), live, release.outgoing, are_bad=are_bad)
        records.write_state(layout, name, state)

    def _end(self, outcome: Outcome, reason: str, hint: str, problem: str) -> Deployment:
        if not self._is_begun:
            try:
                self.begin()
            except Failed as error:
                if not problem:
                    outcome, reason, hint, problem = Outcome.FAILED, error.message, error.hint, error.problem
        self._end_stage()
        is_live_again = outcome is Outcome.LIVE and self.deployment.kind is Kind.ROLLBACK
        self.deployment = replace(
            self.deployment,
            outcome=outcome,
            reason=printable(reason, LONGEST),
            hint=printable(hint, LONGEST),
            problem=problem,
            ended=now(),
            must_refresh=is_live_again and self.site.mtime is Mtime.RELEASE,
        )
        self._write_or_keep()
        return self.tell()

    def _write_or_keep(self, *, through: bool = True) -> None:
        """Writes the record of an outcome. What cannot be written where it belongs is kept until it can be.

        So that an outcome that was told is not told otherwise by whoever finds the record as it was before.
        """
        layout = self.context.layout
        try:
            records.write_deployment(layout, self.deployment, through=through)
        except OSError as error:
            if not self._is_kept:
                self._degrade("the record", error)
            self._is_kept = True
            self._degrading("keeping the record", lambda: records.keep_deployment(layout, self.deployment))

    def tell(self, *, is_latest: bool = True) -> Deployment:
        """Tells the recorded outcome to journal and uploader, removes what is live, and closes the deployment.

        A rollback whose files are still to get new times is left for ``close``. Recovery goes on with it wherever a
        crash cut it short, or a fault of the host: what cannot be written now leaves the deployment open. Where it is
        not the ``is_latest`` of its upload's name, the marker there tells of another. There is one journal record: that
        it is sent is noted right before, and not through to the disk, because the moment between the two must be as
        short as it can be.
        """
        if not self.deployment.is_told:
            self.deployment = replace(self.deployment, is_told=True)
            self._write_or_keep(through=False)
            self.context.emit(events.deployment_ended(self.deployment))
        is_marked = not is_latest or self._answer.mark(self.deployment)
        self._is_done = self._answer.take_away(self.deployment) and is_marked
        if not self.deployment.must_refresh:
            self.close()
        return self.deployment

    def close(self) -> None:
        """Nothing is left to do for the deployment, also after a crash; unless its outcome could not be told."""
        layout = self.context.layout
        self._end_stage()
        if not self._is_done:
            return
        self.deployment = replace(self.deployment, is_closed=True, must_refresh=False)
        self._degrading("the record", lambda: records.write_deployment(layout, self.deployment))
        self._degrading("old records", lambda: records.forget_old_deployments(layout, self.site.name))

    def _degrading(self, what: str, write: Callable[[], object]) -> bool:
        return self.context.degrading(self.site.name, what, write)

    def _degrade(self, what: str, error: OSError) -> None:
        self.context.degrade(self.site.name, what, error)

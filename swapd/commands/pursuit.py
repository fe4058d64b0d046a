"""Which deployment of a site is followed, and how it stands from one look to the next.

scp returns when the last byte is written, and swapd may be quicker than whoever then asks: so what is followed may be
over already. What is asked for by its file, or its deployment, is that one. Else it is what came last of what lies in
the drop directory without an answer; else what is under way by a command; else what ended just now; else what comes.

Each look is first at the drop directory, then at the records: an outcome is recorded before its upload is removed, so
an upload that is not there any more has its record.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from swapd.answer import is_retried
from swapd.commands.waiting import Dropped, Waiting, compare, explain
from swapd.host.leisure import Leisure
from swapd.host.progress import read_progress
from swapd.host.records import DeploymentsReader
from swapd.model.config import Site
from swapd.model.errors import UsageError
from swapd.model.layout import Layout
from swapd.model.progress import Progress
from swapd.model.record import Deployment, now
from swapd.model.release import DeploymentId, printable, recorded_name
from swapd.stages.arrive import Seen, scan

MISSES = 3  # looks in a row without a trace of it after which there is none
RECENT = 60.0  # seconds after its end for which a deployment is the answer to who names none


@dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing is there to follow yet."""


@dataclass(frozen=True, slots=True)
class Waits:
    """It waits; ``behind`` is what is under way meanwhile."""

    upload: Waiting
    reason: str
    behind: Progress | None


@dataclass(frozen=True, slots=True)
class Goes:
    """It is under way; how far, is not known of one that a crash cut short, and nobody has put right yet."""

    file_name: str
    record: Deployment | None  # None before it has begun
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class Again:
    """This attempt has ended, and the same upload is taken up again."""

    record: Deployment


@dataclass(frozen=True, slots=True)
class Ended:
    """Its outcome."""

    record: Deployment


@dataclass(frozen=True, slots=True)
class Gone:
    """It was removed before it was taken up."""

    file_name: str


State = Nothing | Waits | Goes | Again | Ended | Gone


@dataclass(frozen=True, slots=True)
class _Look:
    """What there is to be seen at one moment; ``dropped`` is None when we may not look."""

    records: list[Deployment]
    progress: Progress | None
    dropped: Dropped | None

    def find_waiting(self, name: str) -> Waiting | None:
        waiting = self.dropped.waiting if self.dropped else ()
        return next((item for item in waiting if item.file_name == name), None)

    def find_pending(self) -> Deployment | None:
        return next((item for item in self.records if item.ended is None), None)


@dataclass(slots=True)
class Pursuit:
    """Follows one deployment of the site: with its attempts, where a crash cuts one short."""

    layout: Layout
    site: Site
    file_name: str = ""  # of what is followed, as records have it; empty until that is known
    deployment: str = ""  # the id, or its beginning, of one that is asked for
    is_blind: bool = False  # whether we may not look into the drop directory
    _old: frozenset[DeploymentId] | None = None  # what ended before, and is no answer; None before the first look
    _was_there: bool = False
    _missed: int = 0  # looks in a row at which nothing of it was seen
    _reader: DeploymentsReader = field(init=False)
    _looking: Leisure = field(default_factory=Leisure)
    _found: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = DeploymentsReader(self.layout, self.site.name)
        self.file_name = recorded_name(self.file_name)

    def look(self) -> State:
        """How it stands now. Raises ``UsageError`` (``unknown-deployment``) and ``Failed`` (``cannot-read``)."""
        look = self._look()
        if self._old is None:
            self._old = self._begin(look)
        if not self.file_name:
            self._choose(look)
        return self._judge(look) if self.file_name else Nothing()

    def _look(self) -> _Look:
        if self._looking.is_over:  # a crowd is not stared at
            try:
                with self._looking.earned():
                    self._found, self.is_blind = scan(self.site.incoming), False
            except OSError:
                self._found, self.is_blind = [], True
        progress = read_progress(self.layout, self.site.name)
        records = self._reader.read()
        if progress is not None and any(progress.is_of(item) and item.ended for item in records):
            progress = None
        return _Look(records, progress, None if self.is_blind else compare(self._found, records))

    def _begin(self, look: _Look) -> frozenset[DeploymentId]:
        """What has ended by now and is not what is asked for."""
        if self.deployment:
            chosen = self._find_asked(look)
            self.file_name = chosen.file_name
            return frozenset(item.id for item in look.records if item.started < chosen.started)
        if self.file_name:
            is_going = look.progress is not None and look.progress.file_name == self.file_name
            is_answer = look.find_waiting(self.file_name) is None and not is_going and not self.is_blind
            return frozenset() if is_answer else self._find_ended(look)
        return self._find_ended(look)

    def _find_asked(self, look: _Look) -> Deployment:
        found = [item for item in look.records if item.id.startswith(self.deployment)]
        if len(found) != 1:
            what = "several deployments have ids that begin" if found else "no deployment is recorded whose id begins"
            raise UsageError(
                "unknown-deployment",
                f"{self.site.name}: {what} with {printable(self.deployment)}",
                f"Those that are recorded, with their ids: swapd history {self.site.name} --json",
            )
        return found[0]

    def _find_ended(self, look: _Look) -> frozenset[DeploymentId]:
        """All that have, but for one of just now where there is nothing else that may be meant."""
        ended = [item for item in look.records if item.ended is not None and not is_retried(item)]
        names = {item.file_name for item in look.dropped.waiting} if look.dropped else set()
        is_idle = not names and look.progress is None and look.find_pending() is None
        meant = (item for item in ended if not item.is_superseded and self.file_name in ("", item.file_name))
        last = next(meant, None) if is_idle or self.is_blind else None
        is_answer = last is not None and (now() - (last.ended or last.started)).total_seconds() < RECENT
        return frozenset(item.id for item in ended if not (is_answer and item is last))

    def _choose(self, look: _Look) -> None:
        """What is followed from now on, as soon as there is anything."""
        waiting = look.dropped.waiting if look.dropped else ()
        if waiting:
            self.file_name = max(waiting, key=lambda item: item.since).file_name
        elif look.progress is not None:
            self.file_name = look.progress.file_name
        elif (pending := look.find_pending()) is not None:
            self.file_name = pending.file_name
        else:
            fresh = (item for item in look.records if item.id not in (self._old or ()))
            self.file_name = next((item.file_name for item in fresh), "")

    def _judge(self, look: _Look) -> State:
        upload = look.find_waiting(self.file_name)
        record = self._find_record(look)
        progress = look.progress if look.progress and look.progress.file_name == self.file_name else None
        self._was_there = self._was_there or upload is not None
        if record is not None and record.ended is not None and not is_retried(record):
            if upload is None or self.deployment:
                return Ended(record)
            record = None  # the answer to what had this name before: another upload of it waits
        if progress is not None or (record is not None and record.ended is None):
            self._missed = 0
            return Goes(self.file_name, record if record and record.ended is None else None, progress)
        if upload is not None:
            self._missed = 0
            return Again(record) if record is not None else Waits(upload, explain(self.site, upload), look.progress)
        return self._miss(record)

    def _find_record(self, look: _Look) -> Deployment | None:
        """The newest of this upload; of the one that is asked for, that one, and what is made of it by a retry."""
        mine = [item for item in look.records if item.file_name == self.file_name and item.id not in (self._old or ())]
        if self.deployment:
            for item in reversed(mine):
                if not is_retried(item):
                    return item
        return mine[0] if mine else None

    def _miss(self, record: Deployment | None) -> State:
        """Nothing of it is to be seen; between two looks, that may be so of one that goes on."""
        self._missed += 1
        if record is not None:  # who may not look into the drop directory cannot see that it is there still
            return Ended(record) if self._missed > MISSES and not self.is_blind else Again(record)
        return Gone(self.file_name) if self._was_there and self._missed > MISSES else Nothing()

"""Totals: what all deployments of a site add up to, also those whose records are forgotten. They only ever grow.

Each deployment is counted once: what is added up and which of the records at hand are in it is one value, written as
one file. So whatever a crash or a power cut brings back, the records tell what is missing in it, and nothing is counted
a second time. The records outlive their count by far: a site remembers 200 of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass, replace

from swapd.model.record import Deployment, Kind, Recorded
from swapd.model.release import DeploymentId, Outcome, PauseCost, Stage

# Upper bounds in microseconds. A pause takes some milliseconds; `max` lets it take ten seconds at the most.
PAUSE_BUCKETS = (500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 10_000_000)
# A rollback takes a fraction of a second, gigabytes on a slow disk take minutes.
DURATION_BUCKETS = tuple(round(seconds * 1e6) for seconds in (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800))


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """How many deployments of a kind ended so."""

    kind: Kind
    outcome: Outcome
    count: int


@dataclass(frozen=True, slots=True)
class StageSum:
    """How many deployments have been in a stage, and for how long altogether."""

    stage: Stage
    count: int
    usec: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many durations there were in each bucket, the last of which has no bound; and their sum."""

    counts: tuple[int, ...]
    usec: int = 0

    @classmethod
    def over(cls, bounds: tuple[int, ...]) -> Histogram:
        """Without a duration."""
        return cls((0,) * (len(bounds) + 1))

    def add(self, usec: int, bounds: tuple[int, ...]) -> Histogram:
        """With one more; a bound belongs to its bucket."""
        place = bisect_left(bounds, usec)
        counts = (*self.counts[:place], self.counts[place] + 1, *self.counts[place + 1 :])
        return Histogram(counts, self.usec + usec)


NO_PAUSES = Histogram.over(PAUSE_BUCKETS)
NO_DURATIONS = Histogram.over(DURATION_BUCKETS)


@dataclass(frozen=True, slots=True)
class PauseSums:
    """What all pauses cost."""

    durations: Histogram = NO_PAUSES
    processes: int = 0
    queued: int = 0
    overflowed: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class LastPause:
    """What the last one cost; ``ended`` is its deployment's, as below."""

    ended: int
    usec: int
    processes: int
    dropped: int


@dataclass(frozen=True, slots=True)
class LastDeployment:
    """How the deployment that ended last ended; ``ended`` in microseconds since the epoch."""

    kind: Kind
    outcome: Outcome
    problem: str
    ended: int


@dataclass(frozen=True, slots=True)
class LiveStrategy:
    """By which strategy the last deployment that went live was swapped."""

    ended: int
    deployment: DeploymentId
    strategy: str


@dataclass(frozen=True, slots=True)
class Counted:
    """A deployment that is in the totals, with so many of its stages; a rollback's last one comes after its outcome."""

    id: DeploymentId
    stages: int
    is_closed: bool


@dataclass(frozen=True, slots=True)
class Totals(Recorded):
    """Of one site. ``counted`` are those whose records are still there."""

    outcomes: tuple[OutcomeCount, ...] = ()
    stages: tuple[StageSum, ...] = ()
    deployments: Histogram = NO_DURATIONS  # from begin to end, of those that went live
    rollbacks: Histogram = NO_DURATIONS
    pauses: PauseSums = PauseSums()
    last: LastDeployment | None = None
    last_pause: LastPause | None = None
    succeeded: int | None = None  # when the last one that did what it should ended, as in LastDeployment
    live: LiveStrategy | None = None
    counted: tuple[Counted, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether it has the buckets that this version counts in."""
        found = (self.deployments, self.rollbacks, self.pauses.durations)
        expected = (NO_DURATIONS, NO_DURATIONS, NO_PAUSES)
        return [len(item.counts) for item in found] == [len(item.counts) for item in expected]

    @property
    def complete(self) -> set[DeploymentId]:
        """Those of which nothing is to be counted any more."""
        return {item.id for item in self.counted if item.is_closed}

    def count_of(self, kind: Kind, outcome: Outcome) -> int:
        return sum(item.count for item in self.outcomes if (item.kind, item.outcome) == (kind, outcome))


def forget(totals: Totals, there: Collection[DeploymentId]) -> Totals:
    """Without remembering those whose records are not ``there`` any more; what they count for stays."""
    counted = tuple(item for item in totals.counted if item.id in there)
    return totals if len(counted) == len(totals.counted) else replace(totals, counted=counted)


def count(totals: Totals, deployment: Deployment) -> Totals:
    """With the deployment, or what of it is not in the totals yet; one that has not ended counts for nothing."""
    if deployment.ended is None or deployment.outcome is Outcome.PENDING:
        return totals
    before = next((item for item in totals.counted if item.id == deployment.id), None)
    if before is None:
        totals = _count_end(totals, deployment)
    for item in deployment.stages[before.stages if before else 0 :]:
        totals = _count_stage(totals, item.stage, item.usec)
    counted = Counted(deployment.id, len(deployment.stages), deployment.is_closed)
    if counted == before:
        return totals
    return replace(totals, counted=(*(item for item in totals.counted if item is not before), counted))


def disregard(totals: Totals, deployment: Deployment) -> Totals:
    """As if the deployment had been counted: for those that are in totals which are lost."""
    counted = Counted(deployment.id, len(deployment.stages), deployment.is_closed)
    return totals if deployment.ended is None else replace(totals, counted=(*totals.counted, counted))


def _count_end(totals: Totals, deployment: Deployment) -> Totals:
    """Its outcome, how long it took, and its pause. Records may come in any order."""
    kind, outcome = deployment.kind, deployment.outcome
    number = totals.count_of(kind, outcome) + 1
    others = (item for item in totals.outcomes if (item.kind, item.outcome) != (kind, outcome))
    totals = replace(totals, outcomes=(*others, OutcomeCount(kind, outcome, number)))
    ended = round(deployment.ended.timestamp() * 1e6) if deployment.ended else 0
    if totals.last is None or ended >= totals.last.ended:
        totals = replace(totals, last=LastDeployment(kind, outcome, deployment.problem, ended))
    if outcome is Outcome.LIVE or (outcome is Outcome.UNCHANGED and not deployment.is_superseded):
        totals = replace(totals, succeeded=max(ended, totals.succeeded or 0))
    if outcome is Outcome.LIVE:
        totals = _count_live(totals, deployment, ended)
    if deployment.pause is not None and deployment.pause.processes:
        totals = _count_pause(totals, deployment.pause, ended)
    return totals


def _count_live(totals: Totals, deployment: Deployment, ended: int) -> Totals:
    if totals.live is None or ended >= totals.live.ended:
        totals = replace(totals, live=LiveStrategy(ended, deployment.id, deployment.strategy))
    # A clock that was set back must not take anything away.
    took = max(0, deployment.duration_usec)
    if deployment.kind is Kind.ROLLBACK:
        return replace(totals, rollbacks=totals.rollbacks.add(took, DURATION_BUCKETS))
    return replace(totals, deployments=totals.deployments.add(took, DURATION_BUCKETS))


def _count_pause(totals: Totals, pause: PauseCost, ended: int) -> Totals:
    if totals.last_pause is None or ended >= totals.last_pause.ended:
        totals = replace(totals, last_pause=LastPause(ended, pause.duration_usec, pause.processes, pause.dropped))
    sums = totals.pauses
    sums = PauseSums(
        sums.durations.add(max(0, pause.duration_usec), PAUSE_BUCKETS),
        sums.processes + pause.processes,
        sums.queued + pause.queued,
        sums.overflowed + pause.overflowed,
        sums.dropped + pause.dropped,
    )
    return replace(totals, pauses=sums)


def _count_stage(totals: Totals, stage: Stage, usec: int) -> Totals:
    before = next((item for item in totals.stages if item.stage is stage), StageSum(stage, 0, 0))
    others = (item for item in totals.stages if item.stage is not stage)
    return replace(totals, stages=(*others, StageSum(stage, before.count + 1, before.usec + max(0, usec))))

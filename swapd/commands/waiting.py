"""What lies in a drop directory, as commands see it: what waits, why and since when, and what was answered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from swapd.answer import find_answered, is_retried
from swapd.model.config import Site
from swapd.model.record import Deployment
from swapd.model.release import Outcome, printable, recorded_name
from swapd.stages.arrive import Seen, scan
from swapd.stages.mark import find_reason


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file that asks for an answer; ``file_name`` as records have it."""

    file_name: str
    since: datetime  # when it, or a sidecar of it, last changed
    seen: Seen


@dataclass(frozen=True, slots=True)
class Dropped:
    """All that lies in a drop directory but markers and sidecars, oldest first."""

    waiting: tuple[Waiting, ...]
    answered: tuple[Deployment, ...]  # of files that lie there still, as they were

    def without(self, *names: str) -> Dropped:
        """What is under way does not wait."""
        return replace(self, waiting=tuple(item for item in self.waiting if item.file_name not in names))


def look_into(site: Site, deployments: Iterable[Deployment]) -> Dropped:
    """Looks at the drop directory and compares it with the site's records, newest first. Raises ``OSError``."""
    return compare(scan(site.incoming), deployments)


def compare(found: Iterable[Seen], deployments: Iterable[Deployment]) -> Dropped:
    """What of the files that were found there the records answer."""
    if not (files := list(found)):
        return Dropped((), ())
    records = list(deployments)
    answered = {item.file_name: item for item in find_answered(records)}
    live = _find_live(records)
    waiting, left = [], []
    for seen in files:
        name = recorded_name(seen.name)
        if (known := answered.get(name)) is not None and (known.fingerprint, known.sidecars) == seen.answer:
            left.append(known)
        elif live.get(name) != seen.fingerprint:  # else it is about to be removed
            waiting.append(Waiting(name, _since(seen), seen))
    return Dropped(tuple(waiting), tuple(left))


def _find_live(deployments: Iterable[Deployment]) -> dict[str, object]:
    """Which state of a file of each name went live last."""
    newest: dict[str, Deployment] = {}
    for item in deployments:
        newest.setdefault(item.file_name, item)
    ended = (Outcome.LIVE, Outcome.UNCHANGED)
    return {
        name: item.fingerprint
        for name, item in newest.items()
        if item.is_dropped and item.outcome in ended and not is_retried(item)
    }


def _since(seen: Seen) -> datetime:
    states = (seen.fingerprint, *(sidecar.fingerprint for sidecar in seen.sidecars))
    return datetime.fromtimestamp(max(state.ctime_ns for state in states) / 1e9, UTC)


def explain(site: Site, waiting: Waiting) -> str:
    """Why it waits: what it lacks, or what the daemon says in its marker, which takes a look at the disk."""
    seen = waiting.seen
    lack = seen.find_lack(site.verify.require) if seen.is_regular else ""
    reason = lack or find_reason(site.incoming, seen.name) or "waits to be taken up"
    return printable(reason, 1000)

"""The one line that systemd and ``swapd status`` show of every site.

systemd takes a notification of at most 4095 bytes (PIPE_BUF) and ignores the whole of a longer one. ``systemctl
status`` shows the line as it is, and its pager only what fits into the terminal's width: what needs attention comes
first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from swapd.model.record import LiveRelease
from swapd.model.release import Outcome, SiteName, printable
from swapd.model.units import format_duration

LONGEST = 1600  # bytes of the line: so much is read, and far from what systemd takes
EACH = 160  # characters of what is wrong with one site, or with all of it
SUMMARY = 120  # bytes that are kept for what is summed up
SOON = timedelta(minutes=1)  # a sidecar that comes later than that may not come at all


@dataclass(frozen=True, slots=True)
class Waiting:
    """An upload that waits for something that may never come."""

    file_name: str
    reason: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Failure:
    """What the last upload came to, as long as it is there."""

    file_name: str  # as recorded
    what: str
    at: datetime

    @classmethod
    def of(cls, file_name: str, outcome: Outcome, reason: str, at: datetime) -> Failure:
        return cls(file_name, f"{printable(file_name)} {outcome.value}: {reason}", at)


@dataclass(frozen=True, slots=True)
class SiteStatus:
    """How a site stands: what is live, what is under way, what waits, what is wrong."""

    site: SiteName
    live: LiveRelease | None
    stage: str = ""
    fraction: float | None = None
    waiting: int = 0
    longest: Waiting | None = None  # of those that wait for something, the one that does so for the longest time
    trouble: str = ""
    failure: Failure | None = None

    def urgency(self, now: datetime) -> int:
        """The less, the sooner somebody should see it: something is wrong, under way, waits; or all is quiet."""
        is_late = self.longest is not None and now - self.longest.since > SOON
        if self.trouble or self.failure or is_late:
            return 0
        return 1 if self.stage else 2 if self.waiting else QUIET


QUIET = 3


def describe_site(status: SiteStatus, now: datetime) -> str:
    """One site's part of the line, what is wrong first."""
    parts = [printable(status.trouble, EACH)] if status.trouble else []
    if status.failure is not None:
        parts.append(f"{printable(status.failure.what, EACH)} ({describe_time(status.failure.at, now)})")
    if status.stage:
        percentage = "" if status.fraction is None else f" {status.fraction:.0%}"
        parts.append(f"{status.stage}{percentage}")
    if status.waiting:
        parts.append(f"{status.waiting} waiting{_describe_waiting(status.longest, now)}")
    if status.live is not None:
        parts.append(f"{status.live.release} live since {describe_time(status.live.since, now)}")
        if (pause := status.live.pause) is not None:
            parts.append(f"paused {format_duration(pause.duration_usec / 1e6)}")
            if pause.dropped:
                parts.append(f"{pause.dropped} connections dropped")
    else:
        parts.append("no release yet")
    return f"{status.site}: {', '.join(parts)}"


def _describe_waiting(longest: Waiting | None, now: datetime) -> str:
    if longest is None:
        return ""
    name, reason = printable(longest.file_name), longest.reason
    what = reason if reason.startswith(name) else f"{name} {reason}"
    return f" ({printable(what, EACH)} since {describe_time(longest.since, now)})"


def describe_time(instant: datetime, now: datetime) -> str:
    """Local time, with the date unless it is today."""
    local = instant.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == now.astimezone().date() else f"{local:%Y-%m-%d %H:%M:%S}"


def status_line(sites: Iterable[SiteStatus], now: datetime, trouble: str = "") -> str:
    """All sites, what needs attention first. Where they are too many for the line, the quiet ones are summed up."""
    ordered = sorted(sites, key=lambda status: status.urgency(now))
    parts = [printable(trouble, EACH)] if trouble else []
    parts += [describe_site(status, now) for status in ordered] or ["no site configured"]
    line = "; ".join(parts)
    if len(line.encode()) <= LONGEST:
        return line
    busy = [status for status in ordered if status.urgency(now) < QUIET]
    parts = parts[: len(parts) - len(ordered) + len(busy)]
    kept = _fitting(parts, LONGEST - SUMMARY)
    if hidden := len(parts) - kept:
        which = "need attention or are busy" if hidden > 1 else "needs attention or is busy"
        parts[kept:] = [f"{hidden} more {which}: swapd status"]
    if quiet := ordered[len(busy) :]:
        live = sum(status.live is not None for status in quiet)
        other = "other " if busy else ""
        parts += [f"{live} {other}{'site' if live == 1 else 'sites'} live"] if live else []
        parts += [f"{len(quiet) - live} without a release yet"] if live < len(quiet) else []
    return "; ".join(parts)


def _fitting(parts: Sequence[str], room: int) -> int:
    """How many of the parts, from the first on, have room for them in so many bytes."""
    for number, part in enumerate(parts):
        room -= len(part.encode()) + len("; ")
        if room < 0:
            return number
    return len(parts)

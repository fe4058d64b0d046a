"""The one line that systemd and ``swapd status`` show of every site."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from swapd.model.record import LiveRelease
from swapd.model.release import SiteName
from swapd.model.units import format_duration


@dataclass(frozen=True, slots=True)
class SiteStatus:
    """How a site stands: what is live, what is under way, what waits, what is wrong."""

    site: SiteName
    live: LiveRelease | None
    stage: str = ""
    fraction: float | None = None
    waiting: int = 0
    trouble: str = ""


def describe_site(status: SiteStatus, now: datetime) -> str:
    """One site's part of the line."""
    parts = []
    if status.stage:
        percentage = "" if status.fraction is None else f" {status.fraction:.0%}"
        parts.append(f"{status.stage}{percentage}")
    if status.live is not None:
        parts.append(f"{status.live.release} live since {describe_time(status.live.since, now)}")
        if (pause := status.live.pause) is not None:
            parts.append(f"paused {format_duration(pause.duration_usec / 1e6)}")
            if pause.dropped:
                parts.append(f"{pause.dropped} connections dropped")
    else:
        parts.append("no release yet")
    if status.waiting:
        parts.append(f"{status.waiting} waiting")
    if status.trouble:
        parts.append(status.trouble)
    return f"{status.site}: {', '.join(parts)}"


def describe_time(instant: datetime, now: datetime) -> str:
    """Local time, with the date unless it is today."""
    local = instant.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == now.astimezone().date() else f"{local:%Y-%m-%d %H:%M:%S}"


def status_line(sites: Iterable[SiteStatus], now: datetime, trouble: str = "") -> str:
    """All sites, what needs attention first."""
    line = "; ".join(describe_site(status, now) for status in sites) or "no site configured"
    return f"{trouble}; {line}" if trouble else line

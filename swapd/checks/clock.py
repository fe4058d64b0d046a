"""Whether the clock is right, as far as anybody can tell from here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from swapd.host import clock, records
from swapd.model.config import Require, Site
from swapd.model.errors import Failed
from swapd.model.findings import Finding, Severity
from swapd.model.layout import Layout
from swapd.model.record import now

TOLERANCE = timedelta(minutes=1)  # which a clock may be set back by, and nobody minds
SYNCHRONISE = ("timedatectl set-ntp true",)


def find_synchronisation(sites: Sequence[Site], layout: Layout) -> Iterator[Finding]:
    """Whether somebody keeps the clock right: it matters where deployments go by it."""
    if layout.is_host and clock.is_ours():
        yield from judge(clock.adjtimex(), sites)


def judge(state: int, sites: Sequence[Site]) -> Iterator[Finding]:
    """What the kernel's word for the clock means for these sites."""
    if state != clock.TIME_ERROR:
        return
    counting = [site.name for site in sites if site.verify.newer_only or site.verify.require is Require.SIGNATURE]
    what = "the clock may be wrong"
    if counting:
        what += f": {', '.join(counting)} goes by it, for the age of releases and the validity of keys"
    yield Finding(
        None,
        Severity.WARNING if counting else Severity.INFO,
        "clock-not-synchronised",
        what,
        "the kernel says that nobody keeps it right (adjtimex)",
        "Have it kept right, by systemd-timesyncd or chronyd:",
        commands=SYNCHRONISE,
    )


def find_times_to_come(site: Site, layout: Layout) -> Iterator[Finding]:
    """Times that swapd wrote down itself, and that are still to come: the clock was wrong then, or is now."""
    try:
        live = records.read_state(layout, site.name).live
    except Failed:
        return  # which has been said
    if live is not None and live.since > now() + TOLERANCE:
        yield Finding(
            site.name,
            Severity.WARNING,
            "clock-behind",
            "the clock is behind: files of the next release may seem older to caches than those of this one",
            f"{live.release} is live since {live.since:%Y-%m-%d %H:%M:%S}, and now it is {now():%Y-%m-%d %H:%M:%S}",
            "Set the clock, and have it kept right:",
            commands=SYNCHRONISE,
        )

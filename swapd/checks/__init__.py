"""What ``swapd check`` looks at on this host: one function for each kind of finding, which changes nothing.

A check yields what it finds, good or bad, and raises nothing that it knows of: what it may not look at is a finding,
too. One that breaks off all the same is a finding itself, and takes no other one with it.

To add one: write the function, and put it into ``CHECKS`` (of one site) or ``HOST_CHECKS`` (of the host as a whole).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence

from swapd.checks.clock import find_synchronisation, find_times_to_come
from swapd.checks.labelling import find_labels
from swapd.checks.metrics import find_metrics
from swapd.checks.places import find_exposed, find_exposed_host, find_incoming, find_owners
from swapd.checks.programs import find_decompressors
from swapd.checks.room import find_room, find_room_for_uploads
from swapd.checks.routing import find_route
from swapd.checks.sandbox import find_sandbox
from swapd.checks.signing import find_signers
from swapd.checks.standing import find_changes, find_held
from swapd.checks.swapping import find_strategies, find_volatile
from swapd.checks.unit import find_edited, find_unit, find_users_socket
from swapd.checks.web import BEGINNINGS, WEB_CHECKS, WEB_HOST_CHECKS
from swapd.model.config import Site
from swapd.model.errors import SwapdError
from swapd.model.findings import AS_ROOT, Finding, Severity, worst_first
from swapd.model.layout import Layout

Check = Callable[[Site, Layout], Iterable[Finding]]
HostCheck = Callable[[Sequence[Site], Layout], Iterable[Finding]]  # of the sites that were asked for

CHECKS: tuple[Check, ...] = (
    find_strategies,
    find_route,
    find_volatile,
    find_changes,
    find_held,
    find_incoming,
    find_owners,
    find_exposed,
    find_room,
    find_signers,
    find_times_to_come,
    find_labels,
    *WEB_CHECKS,
)
HOST_CHECKS: tuple[HostCheck, ...] = (
    *BEGINNINGS,
    find_unit,
    find_users_socket,
    find_edited,
    find_sandbox,
    find_exposed_host,
    find_room_for_uploads,
    find_decompressors,
    find_synchronisation,
    *WEB_HOST_CHECKS,
    find_metrics,
)


def find(sites: Sequence[Site], layout: Layout) -> list[Finding]:
    """Everything that is found about the host and these sites, the worst first."""
    found = [finding for check in HOST_CHECKS for finding in _whole(check.__name__, None, check(sites, layout))]
    for site in sites:
        for look in CHECKS:
            found += _whole(look.__name__, site, look(site, layout))
    return worst_first(found)


def _whole(name: str, site: Site | None, findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings of one check, and that it broke off where it did."""
    try:
        yield from findings
    except (OSError, SwapdError, subprocess.SubprocessError) as error:
        yield _broken_off(name, site, error)


def _broken_off(name: str, site: Site | None, error: Exception) -> Finding:
    place = getattr(error, "filename", None)
    said = f"{place}: {error.strerror}" if isinstance(error, OSError) and place else str(error)
    if complaint := getattr(error, "stderr", None):  # of a program that was asked
        said += f" {str(complaint).strip()}"
    is_forbidden = isinstance(error, PermissionError) and os.geteuid() != 0
    return Finding(
        site.name if site else None,
        Severity.UNKNOWN if is_forbidden else Severity.WARNING,
        "not-looked-at" if is_forbidden else "check-broken-off",
        f"a part of this check ({name}) broke off: what it would have found is not known",
        said,
        AS_ROOT if is_forbidden else "Mend what it says there; deployments may meet it, too.",
        commands=(f"sudo swapd check{f' {site.name}' if site else ''}",) if is_forbidden else (),
    )

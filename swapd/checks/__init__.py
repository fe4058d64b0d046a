"""What ``swapd check`` looks at on this host: one function for each kind of finding, which changes nothing.

A check yields what it finds about one site, good or bad, and raises nothing: what it may not look at is a finding, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from swapd.checks.routing import find_route
from swapd.checks.standing import find_changes, find_held
from swapd.checks.swapping import find_strategies, find_volatile
from swapd.model.config import Site
from swapd.model.findings import Finding
from swapd.model.layout import Layout

Check = Callable[[Site, Layout], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (find_strategies, find_route, find_volatile, find_changes, find_held)


def find(site: Site, layout: Layout) -> Iterator[Finding]:
    """Everything that is found about the site."""
    for check in CHECKS:
        yield from check(site, layout)

"""Choose: how a site is swapped on this host, before anything is extracted for it, and what stands in the way.

Facts that this stage rests on:

- A mount below the live path would move away with the old tree.
- Nothing can be renamed from one filesystem to another.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from swapd.host.apache import Force, look_at_route
from swapd.host.linux import mount_points
from swapd.host.refusals import explain
from swapd.model.config import Site, Strategy
from swapd.model.errors import Failed, Issue
from swapd.strategies import WAYS
from swapd.strategies.way import describe_live

SAFE = "The live release and the upload are untouched."


@dataclass(frozen=True, slots=True)
class Choice:
    """How this site is swapped on this host now, and why."""

    strategy: Strategy
    reason: str
    doubt: str = ""  # what could not be found out: whether visitors come by the route


def choose(site: Site) -> Choice:
    """The strategy for the site as its paths are now; ``Failed`` says what on this host stands in the way of it.

    After this, the releases directory is there. Nothing else has changed.
    """
    _check_paths(site)
    try:
        site.releases.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise explain(error, site.releases.parent) from error
    _check_filesystem(site)
    if site.strategy is not Strategy.AUTO:
        if (issue := WAYS[site.strategy].find_obstacle(site)) is not None:
            raise Failed(issue.problem, issue.message, f"{SAFE} {issue.hint}")
        doubt = _check_route(site) if site.strategy is Strategy.PINNED else ""
        return Choice(site.strategy, "the configuration says so", doubt)
    return _choose_by_itself(site)


def _check_route(site: Site) -> str:
    """``Failed`` where visitors would not get what the route leads to; what cannot be known is returned."""
    sight = look_at_route(site)
    if sight.issue is None:
        return ""
    if sight.force is Force.NOT:
        raise Failed(sight.issue.problem, sight.issue.message, f"{SAFE} {sight.issue.hint}")
    return sight.issue.message


def _choose_by_itself(site: Site) -> Choice:
    """What auto picks: the first that can be had, and why. A route only where it is known to be in force."""
    if site.route.apache.exists() and WAYS[Strategy.PINNED].find_obstacle(site) is None:
        sight = look_at_route(site)
        if sight.force is Force.YES:
            return Choice(Strategy.PINNED, sight.words)
    is_link_or_nothing = site.live.is_symlink() or not os.path.lexists(site.live)
    first = Strategy.SYMLINK if is_link_or_nothing else Strategy.EXCHANGE
    issue: Issue | None = WAYS[first].find_obstacle(site)
    if issue is not None:
        return Choice(Strategy.RENAME, issue.message)
    can = "" if is_link_or_nothing else " and its filesystem can exchange"
    return Choice(first, f"{describe_live(site)}{can}")


def _check_paths(site: Site) -> None:
    if not site.live.parent.is_dir():
        raise Failed("no-parent", f"there is no directory {site.live.parent}", f"{SAFE} Make it, or correct live.")
    if os.path.lexists(site.live) and not site.live.is_symlink() and not site.live.is_dir():
        raise Failed("live-is-a-file", f"{site.live} is a file", f"{SAFE} Move it away, or correct live.")
    # By real paths, as the kernel has its mounts; a link may lead to a mount, but not to what one below would cover.
    real = Path(os.path.realpath(site.live.parent)) / site.live.name
    target = Path(os.path.realpath(site.live))
    for point in map(Path, mount_points()):
        if point == real or real in point.parents or target in point.parents:
            raise Failed(
                "live-is-mounted",
                f"{point} is a mount point: a swap cannot take it along",
                f"{SAFE} Mount it elsewhere, above {site.live}, or list it in shared.",
            )


def _check_filesystem(site: Site) -> None:
    live = site.live if site.live.is_dir() and not site.live.is_symlink() else site.live.parent
    if site.releases.stat().st_dev != live.stat().st_dev:
        raise Failed(
            "releases-on-another-filesystem",
            f"{site.releases} is not on the filesystem of {site.live}: nothing can be renamed between them",
            f"{SAFE} Set releases in the site's configuration to a directory on that filesystem, such as "
            f"{site.live}.releases.",
        )

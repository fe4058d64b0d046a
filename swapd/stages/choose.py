"""Choose: how a site is swapped on this host, before anything is extracted for it, and what stands in the way.

Facts that this stage rests on:

- What a filesystem cannot rename or exchange is found beforehand (``swapd.host.trials``), because it must not turn up
  while httpd is stopped: every strategy renames something from the releases directory to beside the live path.
- A mount below the live path would move away with the old tree.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from swapd.host.apache import Force, look_at_route
from swapd.host.linux import mount_points
from swapd.host.refusals import explain
from swapd.host.trials import find_rename_obstacle, is_in_lower_layer
from swapd.model.config import Site, Strategy
from swapd.model.errors import Failed, Issue
from swapd.strategies import WAYS
from swapd.strategies.exchanging import find_place, probe_prefix
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
    try:
        return look(site)
    except OSError as error:
        raise explain(error, Path(error.filename or site.releases)) from error


def look(site: Site) -> Choice:
    """As ``choose``, and nothing at all has changed; ``OSError`` where trials cannot be made, perhaps not by us."""
    _check_paths(site)
    _check_places(site, find_place(site))
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


def _check_places(site: Site, releases: Path) -> None:
    """Everything is renamed between these two; and a live directory is itself."""
    # A live directory that differs from its parent is a subvolume of btrfs, which can be renamed there.
    if releases.stat().st_dev != site.live.parent.stat().st_dev:
        raise Failed(
            "releases-on-another-filesystem",
            f"{site.releases} is not on the filesystem of {site.live}: nothing can be renamed between them",
            f"{SAFE} Set releases in the site's configuration to a directory on that filesystem, such as "
            f"{site.live}.releases.",
        )
    obstacle = find_rename_obstacle(releases, site.live.parent, probe_prefix(site))
    if obstacle is not None:
        raise Failed(
            "cannot-rename",
            f"nothing can be renamed from {releases} to {site.live.parent}: {obstacle}",
            f"{SAFE} Let both be on one mount: mount the directory that is above both (or name it, once, in the unit's "
            f"ReadWritePaths=), or set releases in the site's configuration to {site.live}.releases.",
        )
    is_directory = site.live.is_dir() and not site.live.is_symlink()
    if is_directory and is_in_lower_layer(site.live, probe_prefix(site)):
        raise Failed(
            "live-in-lower-layer",
            f"{site.live} is in a lower layer of an overlay filesystem, which refuses to rename it",
            f"{SAFE} Make it anew in the upper layer, once: cp -a {site.live} {site.live}.new; mv {site.live} "
            f"{site.live}.old (which copies, and takes a while); mv {site.live}.new {site.live}. Or have "
            f"{site.live.parent} on a volume of its own, or mount the overlay with redirect_dir=on.",
        )

"""pinned: the web server looks up for each request which release it serves, and stays with it to the request's end.

A map file names the tree; its replacement by rename is the swap. The live path is a symbolic link that follows right
after, for everybody who does not come through the web server: cron jobs, shells, nginx.

Precondition: one live path, names that a map can have, and a server that follows the route (``choose`` asks it); a
directory at the live path is exchanged with the link, once. Window: none, and no pause, because no request ever sees
two releases. Undo: where the link cannot follow, the map before is renamed back. After a crash between the two nothing
is undone: visitors have the new release, and the link follows.
"""

from __future__ import annotations

from dataclasses import replace

from swapd.model.config import Site
from swapd.model.errors import Issue
from swapd.model.record import RouteSwap
from swapd.model.route import find_unroutable, route_base, route_to
from swapd.strategies import symlink
from swapd.strategies.way import Place, Renames

IS_PAUSED_FOR = False


def find_obstacle(site: Site) -> Issue | None:
    """Why no route can lead to the site's releases. Whether visitors come by it is another question."""
    if site.is_one_of_several:
        return Issue(
            "pinned-several-paths",
            f"a route leads to one tree, and the site {site.name} has several live paths",
            'Take the [[path]] tables out, or write strategy = "exchange".',
        )
    if character := find_unroutable(site):
        return Issue(
            "cannot-route",
            f"{site.live} or {site.releases} has {character!r} in its name, which a route cannot have",
            'Rename it, or write strategy = "symlink".',
        )
    return symlink.find_obstacle(site)


def plan(place: Place) -> Renames:
    """The rename of the map, then that of the link."""
    renames = symlink.plan(place)
    site = place.site
    route = RouteSwap(
        map=str(site.route.map),
        new=str(site.route.map.with_name(f".{site.route.map.name}.new-{place.deployment}")),
        old=str(site.route.map.with_name(f".{site.route.map.name}.old-{place.deployment}")),
        base=str(route_base(site)),
        tree=route_to(site, site.releases / place.release),
    )
    return Renames(replace(renames.swap, route=route), renames.staged_path)

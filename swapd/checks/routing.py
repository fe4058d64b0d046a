"""Whether visitors come by a site's route, and whether what the web server includes for it is what it should be."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from swapd.host.apache import Force, look_at_route
from swapd.host.routes import is_astray, read_route
from swapd.host.snippets import find_left_out, gather_surroundings
from swapd.model.config import Site, Strategy
from swapd.model.findings import Finding, Severity
from swapd.model.layout import Layout
from swapd.model.snippets import find_document_root, find_token, format_apache, is_unchanged

Found = Iterator[Finding]


def find_route(site: Site, _: Layout) -> Found:
    """For a site that is pinned, or that auto pins once its route is in force."""
    if not site.route.apache.exists():
        return  # where the site asks for it, its deployments fail, and that has been said
    try:
        yield from _find_force(site)
        yield from _find_unreadable(site)
        yield from _find_astray(site)
        yield from _find_outdated(site)
        yield from _find_left_out(site)
    except OSError as error:
        what = "whether the route is right is not known"
        yield _finding(site, Severity.WARNING, "route-unknown", what, f"{error.filename}: {error.strerror}", "See why.")


def _finding(
    site: Site, severity: Severity, problem: str, what: str, why: str, remedy: str = "", *commands: str
) -> Finding:
    return Finding(site.name, severity, problem, what, why, remedy, {"route": str(site.route.map)}, commands)


def _find_force(site: Site) -> Found:
    sight = look_at_route(site)
    if sight.issue is None:
        yield _finding(site, Severity.INFO, "route-in-force", "visitors come by the route", sight.words)
    elif sight.force is Force.UNKNOWN or site.strategy is Strategy.AUTO:
        what = f"visitors may not come by the route of {site.live}"
        yield _finding(site, Severity.WARNING, sight.issue.problem, what, sight.issue.message, sight.issue.hint)


def _find_unreadable(site: Site) -> Found:
    """httpd's children run as a user of their own, and read the map for each request."""
    for path in (site.route.map, *site.route.map.parents):
        if path in site.route.root.parents or not path.exists():
            continue
        wanted = stat.S_IROTH if path == site.route.map else stat.S_IXOTH
        if not path.stat().st_mode & wanted:
            yield _finding(
                site,
                Severity.WARNING,
                "route-unreadable",
                "the web server's processes may not be able to read the route",
                f"{path} has mode {stat.S_IMODE(path.stat().st_mode):04o}",
                "Let them:",
                f"chmod o+{'r' if path == site.route.map else 'x'} {shlex.quote(str(path))}",
            )


def _find_astray(site: Site) -> Found:
    if is_astray(site):
        routed = read_route(site.route.map)
        yield _finding(
            site,
            Severity.WARNING,
            "route-astray",
            f"visitors get {Path(routed).name}, and the live path is another tree",
            f"{site.route.map} names {routed}, and {site.live} leads to {os.path.realpath(site.live)}",
            "Deploy, or roll back, to have both the same again.",
        )


def _find_outdated(site: Site) -> Found:
    text = site.route.apache.read_text("utf-8", "replace")
    again = f"swapd init {site.name} --live {site.live}"
    around = gather_surroundings(site, find_document_root(text))
    if not is_unchanged(text):
        what = f"{site.route.apache} is as somebody has changed it, and stays so"
        yield _finding(site, Severity.INFO, "route-changed", what, "its digest is another one")
    elif text != format_apache(site, around, find_token(text)):
        yield _finding(
            site,
            Severity.WARNING,
            "route-outdated",
            "releases are not served as the web server's configuration has it for the live path",
            f"an Alias, or <Directory> of {site.live}, has changed since {site.route.apache} was written",
            f"Have it written anew, and reload the web server: {again}; systemctl reload apache2 (or httpd)",
        )


def _find_left_out(site: Site) -> Found:
    for text in find_left_out(site):
        yield _finding(
            site,
            Severity.WARNING,
            "route-left-out",
            f"what the web server has for {site.live} does not hold for the releases that the route leads to",
            text,
            f"Write it for {site.releases}/* as well. A <Directory> or an Alias instead of a pattern is taken over by "
            "itself, and PHP that is reached by SetHandler instead of ProxyPassMatch comes by the route.",
        )

"""Whether visitors come by the live path: what Apache and nginx have as their roots, and where those are.

httpd's EnableMMAP, which is on by itself, matters on filesystems of other machines only. A site whose live path is
named nowhere may well be some other program's, behind a proxy: where there is one, that is only good to know (INFO).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from swapd.checks import seen
from swapd.host.files import opened_directory
from swapd.host.httpd_configuration import Directive
from swapd.host.httpd_scopes import find_roots, find_serving_hosts, find_value, is_by
from swapd.host.linux import NETWORK_FILESYSTEMS, fstatfs_type
from swapd.host.nginx import Place, find_fault, find_places
from swapd.model.config import Site, Strategy
from swapd.model.findings import AS_ROOT, Finding, Severity
from swapd.model.layout import Layout

Found = Iterator[Finding]
ROUTED = "%{env:SWAPD_TREE}"
_PLACEHOLDERS = ("$", "%")  # of macros, of httpd's and of nginx's variables
# What serves directories that are named nowhere.
_PATTERNS = {"userdir", "virtualdocumentroot", "virtualdocumentrootip", "aliasmatch", "scriptaliasmatch", "use"}


def find_broken(sites: Sequence[Site], layout: Layout) -> Found:
    """Whether the web servers could read their configuration again; nothing else is known of them then."""
    if not sites or not layout.is_host:
        return
    if os.geteuid() != 0:
        if seen.is_nginx_silent() or seen.pools():
            yield Finding(
                None,
                Severity.UNKNOWN,
                "servers-not-asked",
                "what nginx and php-fpm do with a live path is not known to you",
                "they tell only root of their configuration",
                AS_ROOT,
                commands=("sudo swapd check",),
            )
        return
    server = seen.apache(layout)
    if server is not None and server.issue is not None:
        yield _broken(server.issue.message, server.issue.hint)
    if seen.is_nginx_running() and not seen.nginx(layout) and (fault := find_fault()):
        why = f"nginx's configuration has a mistake: {fault}"
        yield _broken(why, "Correct that until nginx -t finds nothing wrong.")


def _broken(why: str, remedy: str) -> Finding:
    what = "a web server cannot be reloaded, and would not come back after a restart"
    return Finding(None, Severity.WARNING, "server-configuration-broken", what, why, remedy)


def find_serving(site: Site, layout: Layout) -> Found:
    """Whether what the web servers of this host serve is the live path, and not a release or something else."""
    if not layout.is_host:
        return
    directives, places = seen.directives(layout), list(find_places(seen.nginx(layout)))
    # A route of ours says nothing of other sites, and of its own more than this: checks/routing.py.
    roots = [(root, "the web server's configuration") for _, root in find_roots(directives) if ROUTED not in root]
    roots += [(place.directory, _where(place)) for place in places if place.directory]
    if not roots:
        return
    fixed = list(_find_fixed(site, dict(roots)))
    yield from fixed
    texts = [argument for item in directives for argument in item.arguments]
    is_unknown = (
        any(mark in root for root, _ in roots for mark in _PLACEHOLDERS)
        or any(item.name in _PATTERNS for item in directives)
        or seen.is_nginx_silent()
    )
    is_named = any(_names(text, site.live) for text in (*texts, *(place.directory for place in places)))
    is_served = any(is_by(root, site.live) or site.live.is_relative_to(root) for root, _ in roots)
    if not (fixed or is_unknown or is_named or is_served) and Strategy.PINNED not in seen.strategies(site):
        yield _not_served(site, directives, places)


def _names(text: str, live: Path) -> bool:
    """Whether the path, or one in it, stands in the text."""
    at = text.find(str(live))
    return at >= 0 and not (
        text[at + len(str(live)) :][:1].isalnum() or text[at + len(str(live)) :][:1] in ("-", "_", ".")
    )


def _not_served(site: Site, directives: Sequence[Directive], places: Sequence[Place]) -> Finding:
    is_proxy = any(item.name in ("proxypass", "proxypassmatch") for item in directives) or any(
        place.value(name) for place in places for name in ("proxy_pass", "uwsgi_pass", "scgi_pass", "grpc_pass")
    )
    return Finding(
        site.name,
        Severity.INFO if is_proxy else Severity.WARNING,
        "live-not-served",
        "visitors may not see what is deployed",
        f"no web server of this host has {site.live}, or a directory in it or above it, as a root",
        f"Let the DocumentRoot (or root, in nginx) be {site.live}, or a directory in it; or correct live.",
        {"live": str(site.live)},
    )


def _find_fixed(site: Site, roots: dict[str, str]) -> Found:
    """A root that leads into a release stays there, whatever is swapped."""
    for part in site.parts:
        releases = os.path.realpath(part.releases)
        for root, where in roots.items():
            real = os.path.realpath(root)
            if real.startswith(f"{releases}/") and not is_by(root, part.live):
                yield Finding(
                    site.name,
                    Severity.WARNING,
                    "root-is-a-release",
                    "visitors do not see what is deployed: a web server serves one release, whatever is live",
                    f"{where} has {root}{f', which leads to {real}' if root != real else ''} and not by {part.live}",
                    f"Let it be {part.live}, or a directory in it, and reload the web server.",
                    {"root": root, "live": str(part.live)},
                )


def _where(place: Place) -> str:
    item = place.settings.get("alias") or place.settings.get("root")
    return f"{item.file}:{item.line}" if item is not None else f"{place.server.file}:{place.server.line}"


def find_mapping(site: Site, layout: Layout) -> Found:
    """Whether httpd maps files of another machine's, which go away under it when a release is removed."""
    if not layout.is_host:
        return
    directives = seen.directives(layout)
    for part in site.parts:
        hosts = find_serving_hosts(directives, part.live)
        if not hosts or not _is_on_network(part):
            continue
        on = [
            name
            for name, usual in (("EnableMMAP", "on"), ("EnableSendfile", "off"))
            if any(find_value(directives, host, name.lower(), usual).lower() == "on" for host in hosts)
        ]
        if on:
            yield Finding(
                site.name,
                Severity.WARNING,
                "mapped-over-network",
                "visitors may get broken files, and httpd's processes may end, when an old release is removed",
                f"{part.live} is on a network filesystem, and {' and '.join(on)} {'is' if len(on) == 1 else 'are'} on: "
                "what httpd has mapped, or sends, is gone when another machine removes it",
                f"Write {' and '.join(f'{name} Off' for name in on)} into <Directory {part.live}>, and reload httpd.",
                {"live": str(part.live)},
                (seen.apache_reload(layout),),
            )


def _is_on_network(site: Site) -> bool:
    place = site.live if site.live.is_dir() else site.live.parent
    try:
        with opened_directory(place) as descriptor:
            return fstatfs_type(descriptor) in NETWORK_FILESYSTEMS
    except OSError:
        return False  # what is wrong there is said elsewhere

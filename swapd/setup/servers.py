"""The web servers of this host, and the directories that they serve."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from swapd.host.asking import find_program
from swapd.host.masters import find_masters
from swapd.host.nginx import Place, find_places, read_nginx
from swapd.host.vhosts import WebServer, read_apache
from swapd.model.errors import Issue
from swapd.model.layout import Layout
from swapd.model.release import printable
from swapd.model.vhosts import ServedDirectory

NGINX = "nginx"


def read_servers(layout: Layout) -> list[WebServer]:
    """Those that are installed, the ones that run first; below a scratch root, what its files say of Apache."""
    found = [read_apache(layout.root), _read_nginx() if layout.is_host else None]
    return sorted((server for server in found if server is not None), key=lambda server: not server.is_running)


def _read_nginx() -> WebServer | None:
    if find_program([NGINX]) is None:
        return None
    server = WebServer(NGINX, is_running=bool(find_masters([NGINX])))
    configuration = read_nginx()
    if configuration is None:
        what = "nginx does not say what it serves: its configuration has a mistake, or you are not root"
        hint = "Correct what nginx -t finds, and run this again."
        return replace(server, issue=Issue("server-configuration-broken", what, hint))
    found: dict[tuple[str, int], ServedDirectory] = {}
    for place in find_places(configuration):
        served = _describe(place) if place.location in ("", "/") else None
        if served is not None:
            found.setdefault((served.file, served.line), served)  # what the server itself has comes first
    return replace(server, served=tuple(found.values()))


def _describe(place: Place) -> ServedDirectory | None:
    """The directory of a server block; None where it serves none, or one that each request chooses."""
    root = place.directory
    at_top = [item for item in place.server.find("location") if item.arguments == ("/",)]
    answered = place.server.find("return") or [item for top in at_top for item in top.find("proxy_pass")]
    if not root.startswith("/") or "$" in root or answered:
        return None
    names = tuple(printable(name).lower() for name in place.names if name not in ("_", "") and not name.startswith("~"))
    is_default = any({"default_server", "default"} & set(item.arguments) for item in place.server.find("listen"))
    return ServedDirectory(names, Path(root), NGINX, place.listens, place.server.file, place.server.line, is_default)


def describe_silence(servers: Sequence[WebServer]) -> Issue:
    """Why there is nothing that could be a site, and how to go on."""
    if issue := next((server.issue for server in servers if server.issue is not None), None):
        return issue
    if not servers:
        what = "there is no Apache and no nginx on this host"
        return Issue("no-web-server", what, "Install one.")
    names = " or ".join(server.name for server in servers)
    return Issue("nothing-served", f"no virtual host of {names} serves a directory that could become a site", "")


def find_serving(servers: Iterable[WebServer], live: Path) -> list[ServedDirectory]:
    """What is served from the live path, or from a directory in it."""
    found = (item for server in servers for item in server.served)
    return [item for item in found if item.root == live or live in item.root.parents]


def describe_service(servers: Sequence[WebServer], live: Path) -> str:
    """By whom the live path is served, for people."""
    if found := find_serving(servers, live):
        names = dict.fromkeys((*item.names, "(any other name)")[0] for item in found)
        places = dict.fromkeys(f"{item.server} ({printable(item.place)})" for item in found)
        return f"served as {', '.join(names)} by {', '.join(places)}"
    if issue := next((server.issue for server in servers if server.issue is not None), None):
        return f"whether it is served is not known: {issue.message}"
    return f"no virtual host serves {live}, or a directory in it, yet"


def describe_state(servers: Iterable[WebServer]) -> Iterator[str]:
    """What is to be known of the servers before what they serve is believed."""
    for server in servers:
        if server.issue is not None:
            yield f"{server.name} is left out: {server.issue.message}"
        elif not server.is_running:
            yield f"{server.name} does not run: this is what its configuration says"

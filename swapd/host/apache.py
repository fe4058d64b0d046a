"""Whether the web server that runs follows a site's route: what its configuration includes, and what it answers.

The configuration says what the server will do after its next reload; only the server itself says what it does now. So
it is asked, over the loopback device, for an address that nobody else can guess: the answer names the tree it serves.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import unquote

from swapd.host.httpd_configuration import VirtualHost, find_including, read_directives
from swapd.host.routes import read_route
from swapd.model.config import Site, Strategy
from swapd.model.errors import Issue
from swapd.model.route import route_to
from swapd.model.snippets import find_token, nginx_include, probe_path

PATIENCE = 5.0  # seconds for an answer: another site's pause may be under way
LONGEST_HEAD = 16384  # bytes of an answer that are read
_LOCATION = re.compile(rb"^location:\s*http://route\.swapd\.invalid/(\S*)", re.IGNORECASE | re.MULTILINE)


class Force(Enum):
    """Whether visitors are served by the route."""

    YES = "yes"
    NOT = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of a site's route: ``issue`` says what is missing."""

    force: Force
    issue: Issue | None = None
    words: str = ""  # how it is known that it is in force


def look_at_route(site: Site) -> Sight:
    """Whether the site's route is in force in the web server of this host."""
    init = f"swapd init {site.name} --live {site.live} --strategy pinned"
    if not site.route.apache.exists():
        message = f"there is no {site.route.apache}, by which the web server would follow the route"
        return Sight(Force.NOT, Issue("no-route-file", message, f"Write it with: {init}"))
    directives = read_directives(site.route.root)
    hosts = find_including(directives, site.route.apache) if directives is not None else []
    if not hosts:
        return _look_at_nginx(site, has_apache=directives is not None)
    answers = {host: _ask(host, site) for host in hosts}
    # It may be replaced while the server is asked.
    wanted = {read_route(site.route.map) or route_to(site, site.live) for _ in range(2)}
    for host, answer in answers.items():
        if isinstance(answer, str) and answer not in wanted:
            said = f"serves {answer}" if answer else "knows nothing of the route"
            message = f"the web server that answers at {host.url} {said}, and should serve {wanted.pop()}"
            hint = "Reload it: systemctl reload apache2 (or httpd). Rules of its own go below that line."
            return Sight(Force.NOT, Issue("route-not-in-force", message, hint))
    silent = {host: answer for host, answer in answers.items() if isinstance(answer, OSError)}
    if len(silent) == len(hosts):
        return Sight(Force.UNKNOWN, _describe_silence(site, silent))
    asked = ", ".join(host.url for host in hosts if host not in silent)
    return Sight(Force.YES, words=f"the web server follows the route at {asked}")


def _describe_silence(site: Site, silent: Mapping[VirtualHost, OSError]) -> Issue:
    why = "; ".join(f"{host.url}: {error.strerror or error}" for host, error in silent.items())
    if any(error.errno == errno.EAFNOSUPPORT for error in silent.values()):
        hint = f"swapd's sandbox keeps it from asking: swapd init {site.name} --live {site.live} opens it."
    else:
        hint = "Start the web server; then swapd check says whether the route is in force."
    return Issue(
        "route-unknown", f"whether visitors come by the route is not known: no web server answers ({why})", hint
    )


def _look_at_nginx(site: Site, *, has_apache: bool) -> Sight:
    line = nginx_include(site)
    for path in (site.route.root / "etc/nginx").rglob("*"):
        try:
            if path.is_file() and line in path.read_text("utf-8", "replace"):
                return Sight(Force.YES, words=f"{path} includes {site.route.nginx}")
        except OSError:
            continue
    if not has_apache:
        message = "there is no configuration of Apache on this host that could include the route"
        return Sight(
            Force.UNKNOWN, Issue("route-unknown", message, f"Where it is: IncludeOptional {site.route.apache}")
        )
    message = f"no virtual host of Apache includes {site.route.apache}: visitors do not come by the route"
    way_out = "remove that file" if site.strategy is Strategy.AUTO else 'write strategy = "auto"'
    hint = (
        f"Write into the <VirtualHost> of the site, above rules of its own:  IncludeOptional {site.route.apache}  "
        f"and reload the server; or {way_out}."
    )
    return Sight(Force.NOT, Issue("route-not-included", message, hint))


def _ask(host: VirtualHost, site: Site) -> str | OSError:
    """Which tree the virtual host serves, empty when it does not say so; or why it does not answer."""
    token = find_token(_read(site.route.apache))
    name = host.name or host.address
    request = f"GET {probe_path(token)} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: swapd\r\nConnection: close\r\n\r\n"
    try:
        head = _exchange(host, request.encode())
    except OSError as error:
        return error
    found = _LOCATION.search(head)
    return unquote(found[1].decode("ascii", "replace")) if found else ""


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _connect(host: VirtualHost) -> socket.socket:
    plain = socket.create_connection((host.address, host.port), timeout=PATIENCE)
    if not host.is_encrypted:
        return plain
    import ssl  # takes its time, and many sites are without

    # Whom we talk to is this machine; which certificate it shows its visitors is not our business.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with plain:
        return context.wrap_socket(plain, server_hostname=host.name or None)


def _exchange(host: VirtualHost, request: bytes) -> bytes:
    with _connect(host) as connection:
        connection.sendall(request)
        head = b""
        while b"\r\n\r\n" not in head and len(head) < LONGEST_HEAD and (more := connection.recv(4096)):
            head += more
        return head

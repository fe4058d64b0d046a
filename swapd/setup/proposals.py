"""What could be a site on this host: the directories that its web servers serve, and how each would be swapped."""

from __future__ import annotations

import os
import pwd
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swapd.host.owners import group_name
from swapd.host.users import user_name
from swapd.host.vhosts import APACHE, WebServer
from swapd.model.config import Site, Strategy
from swapd.model.config_parser import parse_document
from swapd.model.errors import ConfigurationError, Failed, Issue
from swapd.model.layout import Layout
from swapd.model.release import SiteName, printable
from swapd.model.site_names import suggest_site_name
from swapd.model.vhosts import ServedDirectory
from swapd.stages.choose import Choice, look
from swapd.strategies import WAYS

# Directories of a release that its visitors get, where it has others that they must not get.
PUBLIC = ("public", "web", "webroot", "pub")
# Where Capistrano, Deployer and their kin keep what their link leads to.
RELEASES = ("releases", "versions")
# Directories that many things are in.
_SHARED = {Path(path) for path in ("/", "/var", "/var/www", "/srv", "/srv/www", "/home", "/opt", "/usr/local/www")}
# Whose directories are a package's, which the next update writes to.
_PACKAGED = tuple(map(Path, ("/usr/share", "/usr/lib", "/etc", "/var/lib")))
MOST_SHOWN = 4  # names, or places, of one site
PINNED_SINCE = (2, 4, 58)
PINNED_NEEDS = frozenset({"rewrite_module", "setenvif_module", "alias_module"})


@dataclass(frozen=True, slots=True)
class Owner:
    """Who would own the releases."""

    name: str  # USER:GROUP
    reason: str
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A site that could be made."""

    site: SiteName
    live: Path
    served: tuple[ServedDirectory, ...]
    owner: Owner
    strategy: Strategy | None  # what auto takes now; None where it is not known
    reason: str
    obstacle: Issue | None = None  # for which nothing could be swapped there as it is
    route: str = ""  # why pinned can be had; empty where it cannot
    route_hint: str = ""  # what is missing for it

    @property
    def names(self) -> tuple[str, ...]:
        """What visitors know the site by."""
        return tuple(dict.fromkeys(name for served in self.served for name in served.names))


def find_live(root: Path, crowded: Collection[Path] = ()) -> Path:
    """The path that releases should take the place of, for a document root; ``crowded`` are directories of several.

    The link that leads to the current release, where there is one; the directory above, where the document root is the
    public part of what is deployed; else the document root itself.
    """
    for path in (*reversed(root.parents), root):
        if _is_release_link(path):
            return path
    above = root.parent
    is_part = root.name in PUBLIC and above not in _SHARED and above not in crowded
    return above if is_part and above not in _homes() else root


def _is_release_link(path: Path) -> bool:
    if os.path.islink(path):
        parent = Path(os.readlink(path)).parent.name
        return path.name == "current" or parent in RELEASES or parent == f"{path.name}.releases"
    return path.name == "current" and not os.path.exists(path)  # before the first deployment


def _homes() -> set[Path]:
    return {Path(user.pw_dir) for user in pwd.getpwall()}


def select(servers: Sequence[WebServer]) -> list[WebServer]:
    """Those that run; all of them where none does."""
    return [server for server in servers if server.is_running] or list(servers)


def propose(layout: Layout, servers: Sequence[WebServer], sites: Iterable[Site]) -> tuple[list[Proposal], list[str]]:
    """The sites that could be made, those with a name of their own first; and what is none, in words."""
    chosen = select(servers)
    places, crowded = _group([item for server in chosen for item in server.served])
    left_out = [words for server in chosen for words in server.left_out]
    left_out += [f"{printable(str(live))} has other sites in it" for live in crowded]
    configured = list(sites)
    taken = {str(site.name) for site in configured}
    found = []
    for live, items in sorted(places.items(), key=lambda place: not any(item.names for item in place[1])):
        items.sort(key=lambda item: (item.server, item.file, item.line))
        if why := _find_exclusion(live, configured):
            left_out.append(f"{printable(str(live))} {why}")
            continue
        names = [name for item in items for name in item.names]
        name = suggest_site_name(names, live, taken, os.uname().nodename)
        try:
            found.append(assess(layout, name, live, items, servers))
        except ConfigurationError as error:
            left_out.append(f"{printable(str(live))} cannot be a live path: {error.issues[0].message}")
            continue
        taken.add(name)
    return found, left_out


def _group(served: Sequence[ServedDirectory]) -> tuple[dict[Path, list[ServedDirectory]], list[Path]]:
    """What is served, by the live paths that it belongs to; and those that are none, with other sites in them."""
    crowded = _find_crowded({item.root for item in served})
    places: dict[Path, list[ServedDirectory]] = {}
    for item in served:
        places.setdefault(find_live(item.root, crowded), []).append(item)
    grouped: dict[Path, list[ServedDirectory]] = {}
    left_out = []
    around = _find_crowded(places)
    for live, items in sorted(places.items(), key=lambda place: len(place[0].parts)):
        if live in around and (live in _SHARED or not any(item.names for item in items)):
            left_out.append(live)
        else:
            # What is served from within another one's directory, a release of that has to have.
            whole = next((parent for parent in reversed(live.parents) if parent in grouped), live)
            grouped.setdefault(whole, []).extend(items)
    return grouped, left_out


def _find_crowded(paths: Collection[Path]) -> set[Path]:
    """The directories that are several of the paths, or have several of them in them; a host may have thousands."""
    counted = Counter(place for path in paths for place in (path, *path.parents))
    return {place for place, count in counted.items() if count > 1}


def _find_exclusion(live: Path, sites: Iterable[Site]) -> str:
    for site in sites:
        for part in site.parts:
            if live in (part.live, part.releases) or part.live in live.parents or part.releases in live.parents:
                return f"is the site {site.name} already"
            if live in part.live.parents:
                return f"has the site {site.name} in it"
    return "is a package's" if any(packaged in live.parents for packaged in _PACKAGED) else ""


def assess(
    layout: Layout, name: SiteName, live: Path, served: Sequence[ServedDirectory], servers: Sequence[WebServer]
) -> Proposal:
    """How a site would be swapped whose live path is this; nothing is made. ``ConfigurationError`` when none can be."""
    site = parse_document(name, {"live": str(live)}, layout)
    owner = find_owner(live, {server.user for server in servers if server.user})
    proposal = Proposal(name, live, tuple(served), owner, None, "")
    if not os.path.exists(live.parent):  # it is made with the site
        proposal = replace(proposal, strategy=Strategy.SYMLINK, reason=f"{live} is not there yet")
    else:
        match _try_look(site):
            case Choice(strategy, reason):
                proposal = replace(proposal, strategy=strategy, reason=reason)
            case Failed() as error:
                issue = Issue(error.problem, error.message, error.hint)
                return replace(proposal, reason=error.message, obstacle=issue)
            case why:
                proposal = replace(proposal, reason=f"not tried: {why}")
    if proposal.strategy is None:
        return proposal
    apache = next((server for server in servers if server.name == APACHE), None)
    if apache is None or (served and not any(item.server == APACHE for item in served)):
        return proposal
    why, hint = find_route_obstacle(apache)
    if why or WAYS[Strategy.PINNED].find_obstacle(site) is not None:
        return replace(proposal, route_hint=hint)
    return replace(proposal, route=f"Apache {'.'.join(map(str, apache.version or ()))} and mod_rewrite")


def _try_look(site: Site) -> Choice | Failed | str:
    try:
        return look(site)
    except Failed as error:
        return error
    except OSError as error:
        return error.strerror or str(error)


def find_route_obstacle(apache: WebServer) -> tuple[str, str]:
    """Why this Apache cannot look a release up for each request, and what could be done about it; or empty texts."""
    if apache.version is None:
        return "its version is not known", ""
    if apache.version < PINNED_SINCE:
        return f"it is older than {'.'.join(map(str, PINNED_SINCE))}", ""
    missing = sorted(name.removesuffix("_module") for name in PINNED_NEEDS - apache.modules)
    if missing:
        return f"it lacks mod_{missing[0]}", f"a2enmod {' '.join(missing)} && systemctl restart apache2"
    return "", ""


def find_owner(live: Path, server_users: Collection[str]) -> Owner:
    """Who owns what is there, and so the releases; with a warning where the web server may change its own code."""
    place, reason = live, "as what is there"
    while not os.path.exists(place):
        place, reason = place.parent, f"as {place.parent}"
    status = place.stat()
    user = user_name(status.st_uid)
    warning = ""
    if user in server_users and status.st_uid != 0:
        warning = (
            f"the web server runs as {user} and could change its own code: whoever gets in through the site can, too. "
            f"Better is --owner root:{group_name(status.st_gid)}, with what it has to write to in shared."
        )
    return Owner(f"{user}:{group_name(status.st_gid)}", reason, warning)


def describe(proposal: Proposal) -> Iterator[str]:
    """Who gets what, and where that is configured: lines for people."""
    names = [*proposal.names[:MOST_SHOWN], *(["…"] if len(proposal.names) > MOST_SHOWN else [])]
    yield " ".join(names) or "(whoever asks for any other name)"
    places: dict[tuple[Path, str], list[str]] = {}
    for served in proposal.served:
        places.setdefault((served.root, served.server), []).append(printable(served.place))
    for (root, server), found in places.items():
        more = [f"{len(found) - MOST_SHOWN} more"] if len(found) > MOST_SHOWN else []
        where = ", ".join(filter(None, [*found[:MOST_SHOWN], *more]))
        yield f"{printable(str(root))}, by {server}" + (f": {where}" if where else "")


def describe_strategy(proposal: Proposal) -> str:
    """What auto takes there, and why."""
    if proposal.obstacle is not None:
        return f"cannot be swapped: {proposal.obstacle.message}"
    if proposal.strategy is None:
        return proposal.reason
    return f"{proposal.strategy.value}, because {proposal.reason}"

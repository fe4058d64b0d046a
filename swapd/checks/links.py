"""Whether httpd follows the live link, and the links that are in a release.

Debian's own configuration has no finding here: ``Options FollowSymLinks`` for everything. A link that nobody can visit,
because a name on its way begins with a dot, is none either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swapd.checks import seen
from swapd.host.httpd_configuration import Directive, Section
from swapd.host.httpd_scopes import Links, find_links_rule, find_serving_hosts
from swapd.host.users import user_name
from swapd.model.config import Site, Strategy
from swapd.model.findings import Finding, Severity
from swapd.model.layout import Layout

Found = Iterator[Finding]
MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class _Web:
    """What of Apache's configuration serves a live path."""

    directives: Sequence[Directive]
    hosts: dict[Section | None, str]  # virtual hosts, and by which directory each has the live path
    reload: str

    def rules(self, directory: str) -> set[Links]:
        """What the hosts do about links in the directory."""
        return {find_links_rule(self.directives, host, directory) for host in self.hosts}


def find_links(site: Site, layout: Layout) -> Found:
    """Whether visitors get what is behind the live link, and behind links in the live tree."""
    if not layout.is_host:
        return
    directives = seen.directives(layout)
    for part, strategy in zip(site.parts, seen.strategies(site), strict=True):
        hosts = {
            host: root
            for host, root in find_serving_hosts(directives, part.live).items()
            # Who comes by another path has other sections, and says nothing of this one.
            if Path(root).is_relative_to(part.live) or part.live.is_relative_to(root)
        }
        web = _Web(directives, hosts, seen.apache_reload(layout))
        if strategy is Strategy.SYMLINK:
            yield from _find_live_link(part, web)
        yield from _find_inner_links(part, web)


def _find_live_link(site: Site, web: _Web) -> Found:
    above = str(site.live.parent)
    rules = web.rules(above)
    if Links.REFUSED in rules:
        why = f"{site.live} is swapped as a link, and Options of {above} let httpd follow none"
        yield _refused(site, why, above, web.reload)
    if Links.OWNERS in rules and site.live.is_symlink() and not _has_owner_of_target(site.live):
        yield _differs(site, [site.live])


def _find_inner_links(site: Site, web: _Web) -> Found:
    """Links in the live tree as far as they are in a root; before the first deployment, those that will be shared."""
    # Which links there are matters only where not all of them are followed.
    if all(web.rules(root) == {Links.FOLLOWED} for root in {str(site.live), *web.hosts.values()}):
        return
    shared = [] if site.live.exists() else [site.live / path for path in site.shared]
    refused, differing = [], []
    for link in (*seen.tree(site.live).links, *shared):
        is_served = any(link.is_relative_to(root) or Path(root).is_relative_to(link) for root in web.hosts.values())
        if not is_served or any(part.startswith(".") for part in link.relative_to(site.live).parts):
            continue
        rules = web.rules(str(link.parent))
        if Links.REFUSED in rules:
            refused.append(link)
        elif Links.OWNERS in rules and link.exists() and not _has_owner_of_target(link):
            differing.append(link)
    if refused:
        directory = str(refused[0].parent)
        is_or_are = "is a link" if len(refused) == 1 else "are links"
        why = f"{_join(refused)} {is_or_are}, and Options of {directory} let httpd follow none"
        yield _refused(site, why, directory, web.reload)
    if differing:
        yield _differs(site, differing)


def _join(links: Sequence[Path]) -> str:
    more = f" and {len(links) - MOST_NAMED} more" if len(links) > MOST_NAMED else ""
    return ", ".join(map(str, links[:MOST_NAMED])) + more


def _has_owner_of_target(link: Path) -> bool:
    try:
        return link.lstat().st_uid == link.stat().st_uid
    except OSError:
        return True


def _refused(site: Site, why: str, directory: str, reload: str) -> Finding:
    exchange = ', or deploy with strategy = "exchange"' if directory == str(site.live.parent) else ""
    return Finding(
        site.name,
        Severity.WARNING,
        "links-refused",
        "visitors get 403 (forbidden) for what is behind a link",
        why,
        f"Write Options +FollowSymLinks into <Directory {directory}>, and reload the web server{exchange}.",
        {"directory": directory},
        (reload,),
    )


def _differs(site: Site, links: Sequence[Path]) -> Finding:
    first = links[0]
    owner, wanted = user_name(first.lstat().st_uid), user_name(first.stat().st_uid)
    # What swapd made itself it makes right with the next deployment; a shared directory stays as somebody has it.
    remedy = (
        "A deployment gives the live link its tree's owner; to have that now:"
        if first == site.live
        else "Give the target the release's owner, or write Options +FollowSymLinks -SymLinksIfOwnerMatch there."
    )
    return Finding(
        site.name,
        Severity.WARNING,
        "link-owner-differs",
        "visitors get 403 (forbidden) for what is behind a link of another user's",
        f"{_join(links)} {'belongs' if len(links) == 1 else 'belong'} to {owner}, what is behind to {wanted}, and "
        "Options has SymLinksIfOwnerMatch",
        remedy,
        {"links": " ".join(map(str, links[:MOST_NAMED]))},
        (f"chown -h {wanted} {first}",) if first == site.live else (),
    )

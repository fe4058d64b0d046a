"""What nginx goes on serving after a swap, what it tells PHP, and which links it does not follow.

Debian's nginx has no finding for a live path that is exchanged. Where it is a link, ``$document_root`` in its
fastcgi.conf is one, though it is everybody's default: a page may be of two releases, and two lines mend it for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from swapd.checks import seen
from swapd.host.httpd_scopes import is_by
from swapd.host.nginx import Place, find_places
from swapd.model.config import Site, Strategy
from swapd.model.findings import Finding, Severity
from swapd.model.layout import Layout

Found = Iterator[Finding]
RELOAD = "systemctl reload nginx"


def find_nginx(site: Site, layout: Layout) -> Found:
    """What nginx goes on serving after a swap, and what it does not follow."""
    places = list(find_places(seen.nginx(layout)))
    for part, strategy in zip(site.parts, seen.strategies(site), strict=True):
        own = [place for place in places if place.directory and is_by(place.directory, part.live)]
        yield from _find_open_files(part, own)
        if strategy in (Strategy.SYMLINK, Strategy.PINNED):
            yield from _find_unresolved(part, own)
            yield from _find_disabled_links(part, own)


def _find_open_files(site: Site, places: Sequence[Place]) -> Found:
    cached = {
        f"{item.file}:{item.line}": (place.settings.get("open_file_cache_valid"))
        for place in places
        if (item := place.settings.get("open_file_cache")) is not None and item.arguments[:1] != ("off",)
    }
    if cached:
        times = sorted({item.arguments[0] if item is not None else "60s" for item in cached.values()})
        yield Finding(
            site.name,
            Severity.WARNING,
            "open-file-cache",
            f"visitors get files of the release before for up to {' or '.join(times)} after a swap",
            f"nginx keeps files open, and looks at their paths again only then: open_file_cache in {', '.join(cached)}",
            "Write open_file_cache off; into the server { } that serves the site, and reload nginx.",
            {"live": str(site.live)},
            (RELOAD,),
        )


def _find_unresolved(site: Site, places: Sequence[Place]) -> Found:
    """PHP is told the link's path, so that its caches know the new release by the old one's name."""
    told = [
        (f"{item.file}:{item.line}", place, value)
        for place in places
        if place.value("fastcgi_pass")
        for name, unwanted in (("SCRIPT_FILENAME", "$"), ("DOCUMENT_ROOT", "$document_root"))
        if (item := place.parameters.get(name)) is not None
        and unwanted in (value := " ".join(item.arguments[1:]))
        and "$realpath_root" not in value
    ]
    if told:
        where = ", ".join(dict.fromkeys(file for file, _, _ in told))
        values = " and ".join(dict.fromkeys(value for _, _, value in told))
        inside = " and ".join(dict.fromkeys(_describe(place) for _, place, _ in told))
        yield Finding(
            site.name,
            Severity.WARNING,
            "document-root-not-resolved",
            "visitors may get pages of the release before, or of both, after a swap: PHP is told the link's path",
            f"{site.live} is swapped as a link, which {values} names as it is written ({where})",
            f"Write below what {inside} includes, and reload nginx:  fastcgi_param SCRIPT_FILENAME "
            "$realpath_root$fastcgi_script_name;  fastcgi_param DOCUMENT_ROOT $realpath_root;",
            {"live": str(site.live)},
            (RELOAD,),
        )


def _describe(place: Place) -> str:
    return f"{f'location {place.location}' if place.location else 'the server'} of {place.server.file}"


def _find_disabled_links(site: Site, places: Sequence[Place]) -> Found:
    found = {
        f"{item.file}:{item.line}"
        for place in places
        if (item := place.settings.get("disable_symlinks")) is not None and item.arguments == ("on",)
    }
    if found:
        yield Finding(
            site.name,
            Severity.WARNING,
            "links-refused",
            "visitors get 403 (forbidden) for what is behind a link",
            f"{site.live} is swapped as a link, and nginx follows none: disable_symlinks in {', '.join(sorted(found))}",
            "Write disable_symlinks off; into the server { } that serves the site, and reload nginx.",
            {"directory": str(site.live.parent)},
            (RELOAD,),
        )

"""What a site could be called, after the names that visitors know it by and the directory that it lives in."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from swapd.model.release import SITE_NAME, SiteName

# Directories whose names say what they are for, and not whose they are.
_NOT_TELLING = {
    *("html", "htdocs", "httpdocs", "public", "public_html", "web", "webroot", "docroot", "pub", "www", "current"),
    *("live", "default", "site", "app", "src", "dist", "build", "var", "srv", "home", "root", "opt", "usr", "share"),
    *("local", "data", "vhosts", "sites", "clients", "tmp", "lib", "mnt"),
}


def suggest_site_name(names: Sequence[str], live: Path, taken: Collection[str] = (), host: str = "") -> SiteName:
    """The shortest name that tells: shop for shop.example.org; one that is not among ``taken``.

    ``host`` is the machine's own name, for a site that has no other.
    """
    for text in _candidates(names, live, host):
        candidate = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:63]
        if SITE_NAME.fullmatch(candidate) and candidate not in taken:
            return SiteName(candidate)
    number = next(number for number in range(1, len(taken) + 2) if f"site{number}" not in taken)
    return SiteName(f"site{number}")


def _candidates(names: Sequence[str], live: Path, host: str) -> Iterator[str]:
    telling = [part for part in reversed(live.parts[1:]) if part.lower() not in _NOT_TELLING]
    # A directory may be called after the site's domain.
    for name in (*filter(_is_telling, names), *telling, *filter(_is_telling, [host])):
        labels = name.lower().removeprefix("www.").split(".")
        yield labels[0]
        if len(labels) > 2:
            yield f"{labels[0]}-{labels[1]}"
        yield "-".join(labels)


def _is_telling(name: str) -> bool:
    """Whether a server's name is one: not a pattern, an address, or the machine's own."""
    is_address = ":" in name or re.fullmatch(r"[\d.]+", name)
    return bool(name) and "*" not in name and not is_address and not name.startswith("localhost")

"""The route of a pinned site: which tree the web server serves, as its map file has it. Values, no I/O.

The map names the tree relative to the directory that holds the live path and the releases, because the server's
configuration has that directory in plain letters: whatever a map says, nothing outside of it is served.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from swapd.model.config import Site

KEY = "live"  # of the one entry in a map
# mod_rewrite ends a value at the first blank; the others mean something in the server's configuration. Everything else
# that a path may have, it may have here.
_UNROUTABLE = re.compile(r"""[\s"'%$\\*?\[\]{}<>#|^`]""")
_MAP = """\
# Which tree the web server serves for the site {site}; swapd(8) replaces this file as a whole.
{entry}"""


def route_base(site: Site) -> Path:
    """The directory below which everything is that the site's route may name."""
    return Path(os.path.commonpath([site.live, site.releases]))


def route_to(site: Site, tree: Path) -> str:
    """A tree as the map names it."""
    return str(tree.relative_to(route_base(site)))


def find_unroutable(site: Site) -> str:
    """The first character of the site's paths that no route can have; empty when there is none."""
    found = _UNROUTABLE.search(f"{site.live}{site.releases}")
    return found[0] if found else ""


def format_map(site: str, tree: str) -> str:
    """The map's text; without a tree it names none, and the live path itself is served."""
    return _MAP.format(site=site, entry=f"{KEY} {tree}\n" if tree else "")


def parse_map(text: str) -> str:
    """The tree that a map's text names, as the server reads it; empty when it names none."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == KEY and value.split():
            return value.split()[0]
    return ""

"""A new site: its configuration, unless it has one, and its directories."""

from __future__ import annotations

import grp
import os
from collections.abc import Mapping
from typing import Any

import tomli_w

from swapd.host import records
from swapd.host.configuration import read_sites
from swapd.host.files import write_durably
from swapd.host.owners import read_owner
from swapd.model.config import DROP_GROUP, Site
from swapd.model.config_parser import Source, parse_site
from swapd.model.errors import Failed, UsageError
from swapd.model.layout import Layout
from swapd.model.release import SITE_NAME, SiteName, printable


def make_site(layout: Layout, name: str, document: Mapping[str, Any]) -> tuple[Site, bool]:
    """Writes the site's configuration unless it has one, and makes its directories with their modes.

    Returns the site as configured, and whether it is new. ``ConfigurationError`` before anything is made when the
    document, or any other site's file, is wrong, and ``Failed`` (``no-group``, ``unknown-owner``) where the site's
    group, or the owner of its releases, is not there.
    """
    if not SITE_NAME.fullmatch(name):
        raise UsageError(
            "bad-site-name",
            f"{printable(name)} cannot name a site",
            "A site's name has lower-case letters, digits, - and _, starts with a letter or digit, and has at most 63.",
        )
    path = layout.site_file(name)
    sites = read_sites(layout)
    is_new = not path.exists()
    if is_new:
        text = _TEMPLATE.format(name=name, keys=tomli_w.dumps(document))
        parse_site(name, Source(str(path), text), None, layout)
        layout.sites.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_durably(path, text.encode())
        try:
            sites = read_sites(layout)
            _find_group(layout, sites[SiteName(name)])
            if owner := sites[SiteName(name)].owner:
                read_owner(owner)
        except BaseException:
            path.unlink()  # it clashes with another site, or nobody could drop: nothing has been made
            raise
    site = sites[next(known for known in sites if known == name)]
    for key, value in (
        ("live", str(site.live)),
        ("group", site.group),
        ("owner", site.owner),
        ("strategy", site.strategy.value),
    ):
        # auto takes pinned by itself, once it is in force.
        is_meant = document.get(key, value) == value or (value, document[key]) == ("auto", "pinned")
        if not is_new and not is_meant:
            raise UsageError(
                "site-exists",
                f"{path} is there already, with {key} = {value}",
                "Edit that file, or choose another name; an existing configuration is never overwritten.",
            )
    _make_directories(layout, site)
    return site, is_new


_TEMPLATE = """\
# The site {name}, for swapd. Every other key has a default: see swapd.toml(5).
{keys}"""


def _find_group(layout: Layout, site: Site) -> int | None:
    """The gid of the group that may drop; None below a scratch root that has not even swapd's own."""
    try:
        return grp.getgrnam(site.group).gr_gid
    except KeyError:
        if not layout.is_host and site.group == DROP_GROUP:
            return None
        how = "systemd-sysusers, or groupadd --system swapd" if site.group == DROP_GROUP else f"groupadd {site.group}"
        hint = f"Make it with {how}, and run this again."
        raise Failed("no-group", f"there is no group {site.group}", hint) from None


def _make_directories(layout: Layout, site: Site) -> None:
    group = _find_group(layout, site)
    records.make_state_directories(layout, site.name)
    for part in site.parts:
        part.live.parent.mkdir(parents=True, exist_ok=True)
        part.releases.mkdir(mode=0o755, exist_ok=True)
    site.incoming.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    site.incoming.mkdir(mode=0o700, exist_ok=True)
    if group is not None:
        try:
            os.chown(site.incoming, -1, group)
        except PermissionError:
            if layout.is_host:
                raise
    # Set-group-ID: what members drop belongs to the group; no other user may look in.
    site.incoming.chmod(0o2770)

"""What several checks look at, seen once: a command that checks asks each program of this host one time."""

from __future__ import annotations

import contextlib
import functools
import os

from swapd.host.httpd_configuration import Directive, read_directives
from swapd.host.httpd_scopes import select_in_force
from swapd.host.masters import find_masters
from swapd.host.nginx import Directive as NginxDirective
from swapd.host.nginx import read_nginx
from swapd.host.vhosts import WebServer, read_apache
from swapd.model.config import PauseMode, Site, Strategy
from swapd.model.errors import Failed
from swapd.model.layout import Layout
from swapd.stages.choose import look
from swapd.strategies import WAYS


@functools.cache
def strategies(site: Site) -> tuple[Strategy, ...]:
    """How each live path of the site is swapped; as it is configured where that cannot be tried."""
    found = []
    for part in site.parts:
        strategy = part.strategy
        with contextlib.suppress(Failed, OSError):
            strategy = look(part).strategy
        if strategy is Strategy.AUTO:
            is_link = part.live.is_symlink() or not os.path.lexists(part.live)
            strategy = Strategy.SYMLINK if is_link else Strategy.EXCHANGE
        found.append(strategy)
    return tuple(found)


def is_paused_for(site: Site) -> bool:
    """Whether httpd is paused for the site's swaps, as they are made now."""
    if site.pause.mode is PauseMode.AUTO:
        return any(WAYS[strategy].IS_PAUSED_FOR for strategy in strategies(site))
    return site.pause.mode is PauseMode.ALWAYS


@functools.cache
def apache(layout: Layout) -> WebServer | None:
    """Apache as it says of itself; None where there is none."""
    return read_apache(layout.root)


@functools.cache
def directives(layout: Layout) -> tuple[Directive, ...]:
    """What of Apache's configuration is in force; none where there is no Apache."""
    server = apache(layout)
    found = read_directives(layout.root) or []
    return tuple(select_in_force(found, server.modules if server is not None else frozenset()))


@functools.cache
def nginx(layout: Layout) -> tuple[NginxDirective, ...]:
    """nginx's configuration; none where it does not run, or it is not for us to ask it."""
    if not layout.is_host or os.geteuid() != 0 or not find_masters(["nginx"]):
        return ()
    return tuple(read_nginx() or ())

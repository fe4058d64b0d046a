"""What several checks look at, seen once: a command that checks asks each program of this host one time."""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path

from swapd.host.httpd_configuration import Directive, read_directives
from swapd.host.httpd_program import NAMES
from swapd.host.httpd_scopes import select_in_force
from swapd.host.masters import find_masters
from swapd.host.nginx import Directive as NginxDirective
from swapd.host.nginx import read_nginx
from swapd.host.php import Pool, Settings, find_pools, read_fpm, read_mod_php
from swapd.host.services import find_service
from swapd.host.survey import Survey, survey
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
def apache_reload(layout: Layout) -> str:
    """The command by which Apache reads its configuration again."""
    services = [find_service(pid) for pid in find_masters(NAMES)] if layout.is_host else []
    return f"systemctl reload {next(filter(None, services), 'apache2').removesuffix('.service')}"


@functools.cache
def is_nginx_running() -> bool:
    """Whether there is an nginx on this machine, and not in a container of it."""
    return bool(find_masters(["nginx"]))


def is_nginx_silent() -> bool:
    """Whether there is one that does not tell us anything, because we are not root."""
    return os.geteuid() != 0 and is_nginx_running()


@functools.cache
def nginx(layout: Layout) -> tuple[NginxDirective, ...]:
    """nginx's configuration; none where it does not run, or it is not for us to ask it."""
    if not layout.is_host or os.geteuid() != 0 or not is_nginx_running():
        return ()
    return tuple(read_nginx() or ())


@functools.cache
def pools() -> tuple[Pool, ...]:
    """The pools of every php-fpm that runs."""
    return tuple(find_pools())


@functools.cache
def mod_php(module: str) -> Settings | None:
    """The settings of httpd's own PHP, which is this file."""
    return read_mod_php(module)


@functools.cache
def fpm(program: str, service: str) -> Settings | None:
    """The settings of a php-fpm, but for what its pools have of their own."""
    return read_fpm(program, service)


@functools.cache
def tree(path: Path) -> Survey:
    """What is in a live tree."""
    return survey(path)

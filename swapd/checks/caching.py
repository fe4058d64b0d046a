"""Whether PHP serves code of the release before: its OPcache, and what it remembers of where links lead.

What a swap is to PHP depends on the path by which it is told of a page:

- the same path, with other files behind it (exchange, rename): the OPcache has the old code until it looks at the
  file's time, and sees the new one only where that differs;
- a path through the live link (symlink): also, PHP remembers for ``realpath_cache_ttl`` where the link led;
- a path of its own for each release (pinned, and nginx with ``$realpath_root``): there is nothing old under it, but the
  OPcache keeps what it has compiled for earlier releases until it is full.

What is only good to know (INFO), because every PHP has it so by itself, and it is over soon: that the OPcache looks at
files every two seconds (``opcache.revalidate_freq``), and a link's way remembered for the usual 120 seconds, which
only those pages use that name files by the live path. What somebody has made longer than that is a warning, and so is
code that is old until PHP is reloaded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from swapd.checks import seen
from swapd.host.httpd_configuration import Directive, Section
from swapd.host.httpd_scopes import find_serving_hosts, is_by
from swapd.host.nginx import Place, find_places, find_upstreams
from swapd.host.php import Pool, Settings
from swapd.model.config import Mtime, Site, Strategy
from swapd.model.findings import Finding, Severity
from swapd.model.layout import Layout

Found = Iterator[Finding]
# Seconds for which visitors get old code, and nobody needs to be warned: who reloads a page sees the new release.
TOLERABLE = 10
USUAL_REALPATH_TTL = 120  # seconds; PHP's own
# How httpd names a php-fpm (mod_proxy_fcgi).
_FCGI = re.compile(r"unix:(/[^|\"]+)\|fcgi:|fcgi://([^/\"]+:\d+)")
_OF_PHP = ("php_value", "php_flag", "php_admin_value", "php_admin_flag")


class Naming(Enum):
    """By what path PHP is told of a page, from one release to the next."""

    SAME = "the live path stays the same, with other files behind it"
    LINK = "the live path is swapped as a link"
    NEW = "each release has a path of its own"


@dataclass(frozen=True, slots=True)
class Use:
    """A PHP that serves pages of a live path."""

    settings: Settings
    naming: Naming


def find_stale_code(site: Site, layout: Layout) -> Found:
    """For each PHP that serves the site: for how long it may serve code of the release before."""
    if not layout.is_host:
        return
    for part, strategy in zip(site.parts, seen.strategies(site), strict=True):
        if not seen.tree(part.live).may_have_php:
            continue
        if _has_untold_php(part, layout):
            yield _untold(part)
        said = set()
        for use in _find_uses(part, strategy, layout):
            for finding in _judge(part, use, layout):
                if (finding.problem, finding.why) not in said:
                    said.add((finding.problem, finding.why))
                    yield finding


def _find_module(directives: Sequence[Directive]) -> str:
    """The file of httpd's own PHP; empty where it has none."""
    modules = [
        item.arguments[1]
        for item in directives
        if item.name == "loadmodule" and len(item.arguments) == 2 and re.match(r"php\d?_module", item.arguments[0])
    ]
    return modules[-1] if modules else ""


def _has_untold_php(site: Site, layout: Layout) -> bool:
    directives = seen.directives(layout)
    module = _find_module(directives)
    return bool(module and seen.mod_php(module) is None and find_serving_hosts(directives, site.live))


def _untold(site: Site) -> Finding:
    return Finding(
        site.name,
        Severity.INFO,
        "php-not-asked",
        "for how long visitors may get code of the release before is not known",
        "httpd has mod_php, and there is no program php that could tell its settings",
        "Install it (php-cli) to have them looked at.",
    )


def _find_uses(site: Site, strategy: Strategy, layout: Layout) -> Iterator[Use]:
    by_link = {Strategy.SYMLINK: Naming.LINK, Strategy.PINNED: Naming.NEW}.get(strategy, Naming.SAME)
    directives = seen.directives(layout)
    hosts = find_serving_hosts(directives, site.live)
    if hosts:
        # A virtual host that passes PHP on to a php-fpm of its own does not use httpd's.
        inside = {host: root for host, root in hosts.items() if host is None or not _find_addresses(directives, [host])}
        yield from (Use(settings, by_link) for settings in _find_mod_php(directives, inside))
        addresses = _find_addresses(directives, [None, *hosts])
        yield from (Use(settings, by_link) for settings in _find_pools(addresses))
    configuration = seen.nginx(layout)
    upstreams = find_upstreams(configuration)
    for place in find_places(configuration):
        to = place.value("fastcgi_pass")
        if to and place.directory and is_by(place.directory, site.live):
            settings = _find_pools([name.removeprefix("unix:") for name in upstreams.get(to, (to,))])
            naming = Naming.SAME if by_link is Naming.SAME else Naming.NEW if _is_resolved(place) else Naming.LINK
            yield from (Use(item, naming) for item in settings)


def _is_resolved(place: Place) -> bool:
    name = place.parameters.get("SCRIPT_FILENAME")
    return name is not None and "$realpath_root" in " ".join(name.arguments[1:])


def _find_mod_php(directives: Sequence[Directive], hosts: dict[Section | None, str]) -> Iterator[Settings]:
    """httpd's own PHP, as the server's configuration changes it for any of the hosts."""
    module = _find_module(directives)
    settings = seen.mod_php(module) if module else None
    if settings is None:
        return
    for host in hosts:
        own = {
            item.arguments[0]: item
            for item in directives
            if item.name in _OF_PHP
            and len(item.arguments) == 2
            and item.section("virtualhost") in (None, host)
            and (item.section("directory") is None or _is_around(item, hosts[host]))
        }
        values = {name: item.arguments[1] for name, item in own.items()}
        yield settings.having("mod_php", values, {name: f"{item.file}:{item.line}" for name, item in own.items()})


def _is_around(item: Directive, root: str) -> bool:
    section = item.section("directory")
    directory = section.arguments[-1].rstrip("/") if section is not None and section.arguments else ""
    return f"{root}/".startswith(f"{directory}/")


def _find_addresses(directives: Sequence[Directive], hosts: Collection[Section | None]) -> list[str]:
    """Where requests are passed on to by FastCGI, as these hosts have it; None is what is written outside of any."""
    found = [
        match[1] or match[2]
        for item in directives
        if item.section("virtualhost") in hosts
        for argument in item.arguments
        if (match := _FCGI.search(argument))
    ]
    return list(dict.fromkeys(found))


def _find_pools(addresses: Sequence[str]) -> Iterator[Settings]:
    for pool in seen.pools():
        if any(pool.listens_at(address) for address in addresses):
            settings = _settings_of(pool)
            if settings is not None:
                yield settings


def _settings_of(pool: Pool) -> Settings | None:
    settings = seen.fpm(pool.program, pool.service) if pool.program else None
    if settings is None:
        return None
    return settings.having(f"php-fpm's pool {pool.name}", pool.values, dict.fromkeys(pool.values, pool.file))


def _judge(site: Site, use: Use, layout: Layout) -> Found:
    settings = use.settings
    has_cache = settings.is_on("opcache.enable")
    if has_cache and use.naming is not Naming.NEW:
        yield from _judge_looks(site, use, layout)
    if has_cache and use.naming is Naming.SAME and site.mtime is Mtime.ARCHIVE:
        yield _same_times(site, use)
    if has_cache and use.naming is not Naming.SAME and not settings.is_on("opcache.use_cwd"):
        yield _without_cwd(site, use, layout)
    if use.naming is Naming.LINK:
        yield _remembered_link(site, use, layout)
    if has_cache and use.naming is Naming.NEW:
        yield _room(site, use, layout)


def _reload(use: Use, layout: Layout) -> str:
    service = use.settings.service
    return f"systemctl reload {service.removesuffix('.service')}" if service else seen.apache_reload(layout)


def _at(use: Use, name: str) -> str:
    """Whose setting it is, and where it is made, in the midst of a sentence."""
    return f"{use.settings.sapi} ({use.settings.find_place(name)})"


def _facts(use: Use, *names: str) -> dict[str, str]:
    return {"sapi": use.settings.sapi, **{name: use.settings.values.get(name, "") for name in names}}


def _judge_looks(site: Site, use: Use, layout: Layout) -> Found:
    settings = use.settings
    facts = _facts(use, "opcache.validate_timestamps", "opcache.revalidate_freq")
    seconds = settings.number("opcache.revalidate_freq")
    if not settings.is_on("opcache.validate_timestamps"):
        kept = settings.values.get("opcache.file_cache", "")
        too = f", and keeps it in {kept} even then" if kept else ""
        yield Finding(
            site.name,
            Severity.WARNING,
            "opcache-never-looks",
            "visitors get code of the release before until PHP is reloaded",
            f"opcache.validate_timestamps is off for {_at(use, 'opcache.validate_timestamps')}: what it has compiled "
            f"it never compares with the file again{too}; {use.naming.value}",
            'Set it to 1; or deploy with strategy = "pinned", for which it may stay off; or reload PHP after each '
            "deployment.",
            facts,
            (_reload(use, layout),),
        )
    elif seconds > TOLERABLE:
        yield Finding(
            site.name,
            Severity.WARNING,
            "opcache-looks-late",
            f"visitors may get code of the release before, or of both, for up to {seconds} s after a swap",
            f"opcache.revalidate_freq is {seconds} for {_at(use, 'opcache.revalidate_freq')}; {use.naming.value}",
            'Set it to 2, which is PHP\'s own, and reload PHP; or deploy with strategy = "pinned".',
            facts,
            (_reload(use, layout),),
        )
    else:
        yield Finding(
            site.name,
            Severity.INFO,
            "opcache-looks",
            f"visitors may get code of the release before for up to {seconds} s after a swap"
            if seconds
            else "the OPcache takes up a release's code at once",
            f"that of {settings.sapi} looks at a file again when that is {seconds} s ago (opcache.revalidate_freq)",
            facts=facts,
        )


def _same_times(site: Site, use: Use) -> Finding:
    return Finding(
        site.name,
        Severity.WARNING,
        "opcache-same-times",
        "visitors may get code of the release before until PHP is reloaded",
        f'mtime = "archive": a file that differs may have the same time as the one before, by which the OPcache of '
        f"{use.settings.sapi} knows it; {use.naming.value}",
        "Take that line out of the site's configuration: then whatever differs has a later time.",
        _facts(use, "opcache.validate_timestamps"),
    )


def _without_cwd(site: Site, use: Use, layout: Layout) -> Finding:
    return Finding(
        site.name,
        Severity.WARNING,
        "opcache-without-cwd",
        "visitors may get pages that are made of several releases",
        f"opcache.use_cwd is off for {_at(use, 'opcache.use_cwd')}: what a page includes by a relative path is taken "
        "for another release's file of that name",
        "Set it to 1, which is PHP's own, and reload PHP.",
        _facts(use, "opcache.use_cwd"),
        (_reload(use, layout),),
    )


def _remembered_link(site: Site, use: Use, layout: Layout) -> Finding:
    seconds = use.settings.number("realpath_cache_ttl")
    is_long = seconds > USUAL_REALPATH_TTL
    return Finding(
        site.name,
        Severity.WARNING if is_long else Severity.INFO,
        "realpath-remembered",
        f"visitors may get code of the release before, or of both, for up to {seconds} s after a swap",
        f"{site.live} is swapped as a link, and {_at(use, 'realpath_cache_ttl')} remembers where it led for "
        f"realpath_cache_ttl = {seconds}, for pages that name files by the live path",
        'Deploy with strategy = "pinned", or set realpath_cache_ttl to a few seconds and reload PHP.',
        _facts(use, "realpath_cache_ttl"),
        (_reload(use, layout),) if is_long else (),
    )


def _room(site: Site, use: Use, layout: Layout) -> Finding:
    """The OPcache takes up no more files than it has slots for, and begins anew when it is full."""
    settings = use.settings
    files, slots = seen.tree(site.live).php_files, settings.number("opcache.max_accelerated_files")
    memory = settings.values.get("opcache.memory_consumption", "")
    is_full = 2 * files > slots > 0
    return Finding(
        site.name,
        Severity.WARNING if is_full else Severity.INFO,
        "opcache-small" if is_full else "opcache-room",
        "each deployment has PHP forget all that it has compiled, of every site: pages are slow after it"
        if is_full
        else "PHP's OPcache keeps earlier releases until it is full, and then begins anew",
        f"the OPcache of {settings.sapi} has room for {slots} files (opcache.max_accelerated_files) and {memory} MB; "
        f"the live release has {files} of PHP",
        f"Set opcache.max_accelerated_files to more than {2 * files} in "
        f"{settings.find_place('opcache.max_accelerated_files')}, give "
        "opcache.memory_consumption as much more, and restart PHP."
        if is_full
        else "",
        _facts(use, "opcache.max_accelerated_files", "opcache.memory_consumption"),
        (_reload(use, layout).replace(" reload ", " restart "),) if is_full else (),
    )

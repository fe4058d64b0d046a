"""What visitors notice of a pause at its longest: queues that overflow, and timeouts that go on meanwhile.

A pause takes some milliseconds; ``[pause] max`` is what it may take when something goes wrong, and everything here is
measured against that. What is only good to know (INFO): a ListenBacklog that nobody wrote, and that the kernel cuts;
the queue is then as long as on every host of this kernel, and whether it would do at the present rate is measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from swapd.checks import seen
from swapd.host.httpd_configuration import Directive
from swapd.host.httpd_program import NAMES
from swapd.host.httpd_scopes import find_values, parse_timeout
from swapd.host.listeners import Counters
from swapd.host.nginx import find_places, parse_time
from swapd.host.processes import kernel_name
from swapd.host.quarry import Quarry, find_quarry, warn_of_full_queues
from swapd.model.config import Pause, Site
from swapd.model.errors import Issue
from swapd.model.findings import Finding, Severity
from swapd.model.layout import Layout
from swapd.model.units import format_duration

Found = Iterator[Finding]
SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
USUAL_BACKLOG = 511  # httpd's own (DEFAULT_LISTENBACKLOG)
SAMPLE = 0.5  # seconds for which connections are counted: a queue that overflows in a second is far from idle in that
# What httpd goes by where nothing is written.
USUAL_KEEPALIVE = "5"
USUAL_NGINX = "75s"
NGINX = "nginx"


def find_queues(site: Site, layout: Layout) -> Found:
    """Whether the listeners' queues hold the connections that come in while httpd is stopped."""
    if not seen.is_paused_for(site):
        return
    if layout.is_host and _is_httpd_paused(site):
        yield from _find_cut(site, seen.directives(layout))
    for issue in _measure(site.pause):
        yield Finding(
            site.name,
            Severity.WARNING,
            issue.problem,
            "a pause at its longest would cost visitors a second and more: their connections are turned away",
            issue.message,
            issue.hint,
        )


def _is_httpd_paused(site: Site) -> bool:
    """Whether Apache is among what the site's rules name, and not only something else, such as php-fpm."""
    return bool({*NAMES} & {*site.pause.processes})


# When it was first counted, by network namespaces: what was counted then. Every site's rate is taken from there on.
_begun: dict[frozenset[int], tuple[Counters, float]] = {}


def begin_counting(sites: Sequence[Site], _: Layout) -> Found:
    """Finds nothing: what is looked at between the two counts need not be waited for."""
    for site in sites:
        if seen.is_paused_for(site):
            _begin(find_quarry(site.pause, time.monotonic())).close()
    yield from ()


def _begin(quarry: Quarry) -> Quarry:
    """With the counts that were the first of its namespaces, if it has any process."""
    if quarry.size:
        begun = _begun.setdefault(quarry.listeners.namespaces, (quarry.counters, quarry.found_at))
        quarry.counters, quarry.found_at = begun
    return quarry


def _measure(rules: Pause) -> tuple[Issue, ...]:
    """What a pause would warn of at the rate at which connections come in now. The first one takes a while."""
    quarry = _begin(find_quarry(rules, time.monotonic()))
    try:
        if not quarry.size:
            return ()
        time.sleep(max(0.0, quarry.found_at + SAMPLE - time.monotonic()))
        warn_of_full_queues(quarry, quarry.listeners.counters(), time.monotonic(), rules.max)
        return tuple(quarry.warnings)
    finally:
        quarry.close()


def _find_cut(site: Site, directives: tuple[Directive, ...]) -> Found:
    """The kernel gives a listener no more than somaxconn, and tells httpd nothing of it."""
    if not directives:
        return
    values = [item.arguments[0] for item in directives if item.name == "listenbacklog" and item.arguments]
    written = [int(value) for value in values if value.isdecimal()]  # and not a variable of httpd's environment
    wanted = written[-1] if written else USUAL_BACKLOG
    most = int(SOMAXCONN.read_text())
    if wanted > most:
        yield Finding(
            site.name,
            Severity.WARNING if written else Severity.INFO,
            "backlog-cut",
            f"while httpd is paused, {most} connections can wait, and not the {wanted} of its configuration",
            f"ListenBacklog is {wanted}, and the kernel cuts it to net.core.somaxconn, which is {most}",
            "Raise it, in a file of /etc/sysctl.d as well, and restart the web server.",
            {"backlog": str(wanted), "somaxconn": str(most)},
            (f"sysctl -w net.core.somaxconn={wanted}",),
        )


def find_timeouts(site: Site, layout: Layout) -> Found:
    """Timeouts of the web server's that are over in a pause at its longest: what they are for goes on being counted."""
    if not seen.is_paused_for(site) or not layout.is_host:
        return
    directives = seen.directives(layout)
    if directives and _is_httpd_paused(site):
        yield from _find_short_keepalive(site, directives)
        yield from _find_short_reading(site, directives)
    if NGINX in site.pause.processes:
        yield from _find_short_nginx(site, layout)
    if any(kernel_name(name).startswith("php-fpm") for name in site.pause.processes):
        yield from _find_short_termination(site)


def _short(site: Site, problem: str, what: str, why: str, setting: str) -> Finding:
    longest = format_duration(site.pause.max)
    return Finding(
        site.name,
        Severity.WARNING,
        problem,
        what,
        f"{why}, and a pause may last {longest} ([pause] max)",
        f"Make {setting} longer than {longest}, or [pause] max in the site's configuration shorter.",
        {"max": longest},
    )


def _find_short_keepalive(site: Site, directives: tuple[Directive, ...]) -> Found:
    """After a SIGCONT, the event MPM closes every kept-alive connection whose time is over, requests in it or not."""
    is_off = {host: values[0].lower() == "off" for host, values in find_values(directives, "keepalive").items()}
    times = {None: (USUAL_KEEPALIVE,)} | find_values(directives, "keepalivetimeout")
    # One of a pair of directives may be the server's, and the other a virtual host's.
    kept = {
        values[0]: seconds
        for host, values in times.items()
        if not is_off.get(host, is_off.get(None, False)) and (seconds := parse_timeout(values[0])) is not None
    }
    for text, seconds in kept.items():
        if 0 < seconds <= site.pause.max:
            yield _short(
                site,
                "keepalive-too-short",
                "visitors may lose requests that they send over kept-alive connections during a pause at its longest",
                f"KeepAliveTimeout is {text}: httpd closes such a connection when it goes on, whatever waits in it",
                "KeepAliveTimeout",
            )


def _find_short_nginx(site: Site, layout: Layout) -> Found:
    """nginx does as the event MPM does."""
    times = {place.value("keepalive_timeout") or USUAL_NGINX for place in find_places(seen.nginx(layout))}
    for text in sorted(times):
        seconds = parse_time(text)
        if seconds is not None and 0 < seconds <= site.pause.max:
            yield _short(
                site,
                "keepalive-too-short",
                "visitors may lose requests that they send over kept-alive connections during a pause at its longest",
                f"nginx's keepalive_timeout is {text}: it closes such a connection when it goes on, whatever waits",
                "keepalive_timeout",
            )


def _find_short_reading(site: Site, directives: tuple[Directive, ...]) -> Found:
    """mod_reqtimeout counts the time for which httpd is stopped as if the visitor had been slow."""
    short = {}
    for item in directives:
        if item.name == "requestreadtimeout":
            for argument in item.arguments:
                kind, _, rest = argument.lower().partition("=")
                first = rest.partition(",")[0].partition("-")[0]
                if first.isdigit() and 0 < int(first) <= site.pause.max:
                    short[kind] = f"RequestReadTimeout {argument}"
        elif item.name == "timeout" and item.arguments:
            seconds = parse_timeout(item.arguments[0])
            if seconds is not None and 0 < seconds <= site.pause.max:
                short["timeout"] = item.text
    for text in short.values():
        yield _short(
            site,
            "read-timeout-too-short",
            "visitors whose request is under way may be turned away after a pause at its longest",
            f"the web server's configuration has {text}: the time for which httpd is stopped counts",
            text.split()[0],
        )


def _find_short_termination(site: Site) -> Found:
    """php-fpm's master ends a worker by a clock of its own, which goes on while the worker is stopped."""
    for pool in seen.pools():
        if 0 < pool.terminate_timeout <= site.pause.max:
            yield _short(
                site,
                "fpm-terminates",
                f"php-fpm may end requests that are under way in its pool {pool.name} when a pause is at its longest",
                f"{pool.file} has request_terminate_timeout = {format_duration(pool.terminate_timeout)}",
                "request_terminate_timeout",
            )

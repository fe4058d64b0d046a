"""Whether httpd can be paused: which processes that would be, and what stands in the way of it.

What is only good to know (INFO): which processes those are, and under which multi-processing module; and that there are
none where nobody can expect any, in a scratch directory and for a site that nginx serves.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from swapd.checks import seen
from swapd.host import records
from swapd.host.httpd_scopes import is_by
from swapd.host.masters import find_overlooked
from swapd.host.nginx import find_places
from swapd.host.processes import STOPPED, Process, kernel_name, read_status
from swapd.host.quarry import UNTOUCHED, Quarry, find_forbidden, find_quarry
from swapd.host.resume import is_alive
from swapd.model.config import Site
from swapd.model.errors import Failed
from swapd.model.events import describe_no_httpd
from swapd.model.findings import Finding, Severity
from swapd.model.layout import Layout

Found = Iterator[Finding]
MPM = "mpm_"
MOST_NAMED = 5  # processes that a sentence names


def find_pause(site: Site, layout: Layout) -> Found:
    """For a site whose swaps pause httpd: whether they can."""
    if not seen.is_paused_for(site):
        return
    quarry = find_quarry(site.pause, time.monotonic())
    try:
        if not quarry.masters and not quarry.already_stopped:
            yield _no_httpd(site, layout)
            return
        if quarry.size:
            yield _httpd(site, layout, quarry)
        yield from _find_several(site, quarry)
        yield from _find_left_out(site, quarry)
        yield from _find_forbidden(site, quarry)
        yield from _find_stopped(site, layout, quarry)
        yield from _find_traced(site, quarry)
    finally:
        quarry.close()


def _no_httpd(site: Site, layout: Layout) -> Finding:
    rules = site.pause
    overlooked = find_overlooked(rules.processes, rules.user, rules.unit, rules.exe)
    others = "; ".join(f"process {pid} is left out: {why}" for pid, why in sorted(overlooked.items())[:MOST_NAMED])
    is_expected = layout.is_host and not seen.is_nginx_silent() and not _is_nginx_serving(site, layout)
    remedy = (
        "Start the web server; or correct processes, unit, user and exe of [pause] in the site's configuration; or, "
        'where none is to be paused, write [pause] mode = "never".'
    )
    return Finding(
        site.name,
        Severity.WARNING if is_expected else Severity.INFO,
        "no-httpd",
        "swaps go without a pause: there is no httpd to pause",
        f"{describe_no_httpd(rules)}{f'; {others}' if others else ''}",
        remedy,
        {"processes": ", ".join(rules.processes), "unit": rules.unit, "user": rules.user, "exe": rules.exe},
    )


def _is_nginx_serving(site: Site, layout: Layout) -> bool:
    places = find_places(seen.nginx(layout))
    return any(is_by(place.directory, part.live) for place in places for part in site.parts if place.directory)


def _httpd(site: Site, layout: Layout, quarry: Quarry) -> Finding:
    server = seen.apache(layout) if layout.is_host else None
    modules = server.modules if server is not None else frozenset()
    mpm = next((name[len(MPM) : -len("_module")] for name in sorted(modules) if name.startswith(MPM)), "")
    names = sorted({process.name for process in (*quarry.masters, *quarry.children)}) or sorted(quarry.names)
    services = quarry.services
    where = f" of {' and '.join(services)}" if services else ""
    masters = [process.identity.pid for process in quarry.masters]
    why = f"{_count(len(masters), 'master process', 'master processes')} ({_join(masters)}) and what they have forked"
    return Finding(
        site.name,
        Severity.INFO,
        "httpd",
        f"a pause stops {_count(quarry.size, 'process', 'processes')} called {' and '.join(names)}{where}",
        f"{why}; multi-processing module: {mpm}" if mpm else why,
        facts={"processes": str(quarry.size), "services": ", ".join(services), "mpm": mpm},
    )


def _find_several(site: Site, quarry: Quarry) -> Found:
    """Servers of several services: each pause holds up the visitors of all of them."""
    services = quarry.services
    if len(services) > 1:
        yield Finding(
            site.name,
            Severity.WARNING,
            "several-servers",
            f"each swap pauses the visitors of {len(services)} services, and only one may serve {site.live}",
            f"[pause] of the site has processes of {', '.join(services)}",
            f'Name the one that serves it in the site\'s configuration, such as [pause] unit = "{services[0]}".',
            {"services": ", ".join(services)},
        )


def _find_left_out(site: Site, quarry: Quarry) -> Found:
    """Children whose master is not among what is paused: it forks new ones meanwhile, or, as php-fpm, resumes them."""
    parents = {}
    for process in quarry.masters:
        status = read_status(process.identity.pid)
        parent = read_status(status.parent) if status is not None else None
        if status is not None and parent is not None and parent.name in map(kernel_name, quarry.names):
            parents[status.parent] = parent.name
    if parents:
        pid, name = next(iter(parents.items()))
        yield Finding(
            site.name,
            Severity.WARNING,
            "master-left-out",
            "visitors are served amid a swap: a server's processes are paused, and its master goes on",
            f"process {pid} ({name}) has forked what is paused, and [pause] (user, unit, exe) leaves it out",
            "Name what the master has, too, or take that key out of the site's configuration.",
            {"processes": " ".join(map(str, sorted(parents)))},
        )


def _find_forbidden(site: Site, quarry: Quarry) -> Found:
    """What a deployment would be refused for, each kind once; what it would only warn of."""
    said = set()
    for error in find_forbidden(quarry, site.pause):
        if error.problem not in said:
            said.add(error.problem)
            yield _forbidden(site, error)
    for issue in quarry.warnings:
        yield Finding(
            site.name,
            Severity.WARNING,
            issue.problem,
            "a pause at its longest may have systemd end the web server",
            issue.message,
            issue.hint,
        )


def _forbidden(site: Site, error: Failed) -> Finding:
    if error.problem == "may-not-signal" and os.geteuid() != 0:
        return Finding(
            site.name,
            Severity.UNKNOWN,
            "pause-not-tried",
            "whether httpd may be paused is not known to you",
            error.message,
            "Run it as root, as which swapd.service runs, too.",
            commands=(f"sudo swapd check {site.name}",),
        )
    untouched = Failed(error.problem, error.message, error.hint.removeprefix(UNTOUCHED).strip())
    return Finding.of(site.name, "the next deployment fails: httpd cannot be paused", untouched)


def _find_stopped(site: Site, layout: Layout, quarry: Quarry) -> Found:
    """What is stopped serves nobody, and stays so; a pause that is under way is no finding."""
    record = None
    with contextlib.suppress(Failed):
        record = records.read_pause(layout)
    ours = {*record.masters, *record.children} if record is not None else set()
    # Looked at again: a pause may have ended meanwhile, and its record with it.
    stopped = [process.identity for process in quarry.already_stopped if process.state() == STOPPED]
    foreign = [identity.pid for identity in stopped if identity not in ours]
    if foreign:
        yield _stopped(
            site,
            "already-stopped",
            foreign,
            "by SIGSTOP or a terminal, and not by swapd, which leaves alone what others have stopped",
            "If nobody needs them as they are, have them go on.",
            f"kill -CONT {' '.join(map(str, foreign))}",
        )
    left = [identity.pid for identity in stopped if identity in ours]
    if left and record is not None and not is_alive(record.pauser):
        why = f"by process {record.pauser.pid} of swapd's, which has ended amid a pause"
        yield _stopped(site, "left-stopped", left, why, "Resume them; that is safe at any time.", "sudo swapd resume")


def _stopped(site: Site, problem: str, pids: Sequence[int], by: str, remedy: str, command: str) -> Finding:
    return Finding(
        site.name,
        Severity.WARNING,
        problem,
        f"{_count(len(pids), 'httpd process serves', 'httpd processes serve')} nobody: stopped",
        f"process {_join(pids)} is in state T (stopped), {by}",
        remedy,
        {"processes": " ".join(map(str, pids))},
        (command,),
    )


def _find_traced(site: Site, quarry: Quarry) -> Found:
    """A traced process that gets SIGSTOP is its tracer's (state t), and never seen stopped."""
    traced = {
        process.identity.pid: tracer
        for process in (*quarry.masters, *quarry.children)
        if (tracer := _read_tracer(process))
    }
    if traced:
        tracers = sorted(set(traced.values()))
        names = ", ".join(f"{_name(pid)} (process {pid})" for pid in tracers)
        yield Finding(
            site.name,
            Severity.ERROR,
            "traced",
            "the next deployment fails: an httpd process is being traced, and cannot be paused",
            f"{names} traces process {_join(sorted(traced))}, and what is traced never shows that it is stopped",
            f"End {names}, or wait for its end, before you deploy.",
        )


def _read_tracer(process: Process) -> int:
    try:
        text = Path(f"/proc/{process.identity.pid}/status").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("TracerPid:")), 0)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return "a process that has ended"


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def _join(pids: Sequence[int]) -> str:
    more = f" and {len(pids) - MOST_NAMED} more" if len(pids) > MOST_NAMED else ""
    return ", ".join(map(str, pids[:MOST_NAMED])) + more

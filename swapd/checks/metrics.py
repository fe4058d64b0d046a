"""Whether the daemon can leave its metrics where they are asked for, and does."""

from __future__ import annotations

import errno
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from swapd.checks.sandbox import RESTART, UNIT
from swapd.host import systemd
from swapd.host.configuration import read_metrics_file
from swapd.host.textfile import describe_remedy, find_waiting
from swapd.model.config import Site
from swapd.model.findings import Finding, Severity
from swapd.model.layout import Layout
from swapd.model.metrics import HEARTBEAT

DROP_IN = systemd.PLACES[0] / f"{UNIT}.d" / "metrics.conf"
DEBIAN = Path("/var/lib/prometheus/node-exporter")  # which the unit's sandbox opens by itself, if it is there
STALE = 3 * HEARTBEAT


def find_metrics(_: Sequence[Site], layout: Layout) -> Iterator[Finding]:
    """Where none are asked for, that there could be some."""
    file = read_metrics_file(layout)
    if file is None:
        if layout.is_host and DEBIAN.is_dir():
            yield _not_asked_for(layout)
        return
    if kind := find_waiting(file.parent):
        why = f"{file.parent} is on {kind}, where the daemon would have to wait for another machine or program"
        yield _finding("metrics-remote", why, describe_remedy(file, None))
        return
    if not file.parent.is_dir():
        yield _finding("metrics-no-directory", f"{file.parent} is not there", describe_remedy(file, errno.ENOENT))
        return
    if not layout.is_host or not systemd.is_booted():
        return
    shown = systemd.show(UNIT, "MainPID", "ReadWritePaths")
    if not int(shown["MainPID"]):
        return  # which has been said
    # Only root may look through the daemon's eyes.
    if os.geteuid() == 0 and _is_read_only(Path(f"/proc/{shown['MainPID']}/root{file.parent}")):
        yield _closed(file.parent, shown["ReadWritePaths"])
    elif (age := _age(file)) > STALE:
        when = "has never been written" if age == float("inf") else f"was last written {age / 60:.0f} minutes ago"
        why = f"{file} {when}, and swapd writes it once a minute"
        remedy = "If it was asked for only now, or its directory is new, this is all; else the status line says more:"
        yield _finding("metrics-stale", why, remedy, "systemctl reload swapd", "systemctl --no-pager status swapd")


def _not_asked_for(layout: Layout) -> Finding:
    key = shlex.quote(f'\\n[metrics]\\ntextfile = "{DEBIAN}/swapd.prom"\\n')
    return Finding(
        None,
        Severity.INFO,
        "metrics-not-asked-for",
        "Prometheus could be told of deployments, and is not",
        f"its node exporter reads {DEBIAN}, and {layout.defaults_file} asks for no file there",
        "Have one written:",
        commands=(f"printf '%b' {key} >> {layout.defaults_file}", "systemctl restart swapd"),
    )


def _closed(directory: Path, opened: str) -> Finding:
    """Read-only for the daemon: its sandbox took the directory in as it was at its start."""
    if _is_read_only(directory):
        return _finding("metrics-read-only", f"{directory} is on a filesystem that is read-only", "Have it on another.")
    paths = [Path(path.lstrip("-+")) for path in opened.split()]
    if directory in paths or any(path in directory.parents for path in paths):
        why = f"{directory} is newer than the last start of {UNIT}, whose sandbox does not have it yet"
        return _finding("metrics-sandbox", why, "Have it started anew:", "systemctl restart swapd")
    line = shlex.quote(f"[Service]\\nReadWritePaths=-{str(directory).replace('%', '%%')}\\n")
    commands = (f"mkdir -p {DROP_IN.parent}", f"printf '%b' {line} > {DROP_IN}", *RESTART)
    why = f"{directory} is read-only for {UNIT}, whose sandbox opens it for nobody"
    return _finding("metrics-sandbox", why, "Have it opened:", *commands)


def _is_read_only(directory: Path) -> bool:
    try:
        return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
    except OSError:
        return False  # it cannot even be seen: the file's age tells


def _age(file: Path) -> float:
    """Seconds since it was written; infinite where it is not there."""
    try:
        return time.time() - file.stat().st_mtime
    except OSError:
        return float("inf")


def _finding(problem: str, why: str, remedy: str, *commands: str) -> Finding:
    what = "Prometheus gets no metrics of swapd"
    return Finding(None, Severity.WARNING, problem, what, why, remedy, commands=commands)

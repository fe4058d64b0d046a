"""What the sandbox of swapd.service lets the daemon see and do: tried from inside, by a unit with the same settings.

The files as they are now say what will be so after a restart; the daemon that runs says by its own mounts what is so
until then.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from swapd.checks import inside
from swapd.host import systemd
from swapd.model.config import Site
from swapd.model.findings import AS_ROOT, Finding, Severity
from swapd.model.layout import Layout

UNIT = "swapd.service"
# With -P, as all programs of swapd's own.
LOOK = (sys.executable, "-P", "-c", "from swapd.checks import inside; inside.main()")
WRITTEN = "# Written by swapd init"  # the beginning of its drop-ins
RESTART = ("systemctl daemon-reload", "systemctl restart swapd")
# By capability(7)'s number: its name, and what it is for. CAP_LEASE is left out: without it, an upload is waited for.
CAPABILITIES = {
    0: ("CAP_CHOWN", "gives releases to their owner"),
    1: ("CAP_DAC_OVERRIDE", "reads uploads, and changes live trees, whatever their modes are"),
    3: ("CAP_FOWNER", "sets modes and times on files that it has given away"),
    5: ("CAP_KILL", "stops and continues httpd's processes"),
}
NAMESPACES = {"user": "PrivateUsers", "pid": "PrivatePIDs", "net": "PrivateNetwork"}
SIGHTS = {
    "sees_processes": ("ProtectProc", "the processes of other users"),
    "sees_kernel": ("ProcSubset", "/proc/stat and the like"),
}
# What may be refused, and deployments go well all the same: a jail has a layer less, a queue is not measured.
MINOR_CALLS = ("socket(AF_NETLINK)", "landlock_create_ruleset", "seccomp")
# What may keep a process from making a call, but for the filter.
CALLING = {
    "socket(AF_UNIX)": "RestrictAddressFamilies",
    "socket(AF_NETLINK)": "RestrictAddressFamilies",
}
# What may keep the web server from being asked.
ASKING = ("RestrictAddressFamilies", "PrivateNetwork", "IPAddressDeny", "SocketBindDeny")
TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - named, not used
# What may hide a place, or make it read-only.
PLACING = (
    *("ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "TemporaryFileSystem", "BindPaths", "BindReadOnlyPaths"),
    *("ProtectHome", "ProtectSystem", "PrivateTmp", "RootDirectory", "RootImage", "NoExecPaths"),
)


def find_sandbox(sites: Sequence[Site], layout: Layout) -> Iterator[Finding]:
    """What of it stands in the way of these sites."""
    if not layout.is_host or not systemd.is_booted():
        return
    if os.geteuid() != 0:
        yield _unseen()
        return
    properties = ("LoadState", "FragmentPath", "DropInPaths", "NeedDaemonReload", "MainPID")
    shown = systemd.show(UNIT, *properties, "ExecMainStartTimestampMonotonic")
    if shown["LoadState"] != "loaded":
        return  # which has been said
    files = systemd.find_files(UNIT, shown["FragmentPath"], shown["DropInPaths"])
    run = systemd.run_like(UNIT, files, LOOK)
    if not run.is_good:
        yield _cannot_start(run, files)
        return
    within = json.loads(run.output)
    missing = within.get("cannot_read") or _list([site.name for site in sites if site.name not in within["sites"]])
    if missing:
        yield _cannot_read(layout, missing, files)
        return
    outside = inside.look_around(layout, sites)
    found = list(_find_lacking(outside, within, files))
    is_able = all(finding.severity is not Severity.ERROR for finding in found)
    for site in sites:
        for finding in _find_in_site(site, outside["sites"][site.name], within["sites"][site.name], files):
            # What it cannot do for want of a right, is said of the right.
            if is_able or finding.problem.startswith("sandbox-"):
                found.append(finding)
    yield from found
    if not found and int(shown["MainPID"]):
        yield from _find_stale(sites, layout, shown, files, outside)


def _unseen() -> Finding:
    return Finding(
        None,
        Severity.UNKNOWN,
        "sandbox-unseen",
        "what the sandbox of the unit lets the daemon do is not known to you",
        "only root can try it, with a unit that has the same settings",
        AS_ROOT,
        commands=("sudo swapd check",),
    )


def _cannot_start(run: systemd.Run, files: Sequence[Path]) -> Finding:
    why = "; ".join(filter(None, (run.result, run.complaint.strip().rpartition("\n")[2])))
    return Finding(
        None,
        Severity.ERROR,
        "sandbox-cannot-start",
        f"a process with the settings of {UNIT} cannot start, or is ended: so will be the daemon's next one",
        why,
        f"Correct what it says there in one of {', '.join(map(str, files))}, and restart the unit:",
        commands=RESTART,
    )


def _cannot_read(layout: Layout, missing: str, files: Sequence[Path]) -> Finding:
    return Finding(
        None,
        Severity.ERROR,
        "sandbox-hides-configuration",
        "the daemon cannot read its configuration from within its sandbox",
        f"what is there in {layout.configuration} cannot be read in there: {missing}",
        f"Take out what hides it: {_name_lines(files, PLACING)}. Then restart the unit:",
        commands=RESTART,
    )


def _name_lines(files: Sequence[Path], keys: Sequence[str]) -> str:
    """Where these settings stand, but for those of the unit's own file, which do no harm by themselves."""
    return "; ".join(systemd.find_lines(files[1:], keys)) or f"{' or '.join(keys)} of {files[0]}"


def _find_lacking(outside: Mapping[str, Any], within: Mapping[str, Any], files: Sequence[Path]) -> Iterator[Finding]:
    """What a process of the unit may not do, whatever the site."""
    for kind, key in NAMESPACES.items():
        if outside["namespaces"][kind] != within["namespaces"][kind]:
            what = "httpd's processes cannot be paused" if kind != "net" else "httpd's listen queues are not seen"
            severity = Severity.WARNING if kind == "net" else Severity.ERROR
            yield _lacks(severity, what, f"the unit is in a {kind} namespace of its own", files, (key,), key)
    lost = outside["capabilities"] & ~within["capabilities"]
    for number, (name, purpose) in CAPABILITIES.items():
        if lost >> number & 1:
            what = f"deployments fail: swapd {purpose}"
            places = ("CapabilityBoundingSet", "User", "DynamicUser")
            yield _lacks(Severity.ERROR, what, f"it lacks {name}", files, places, name)
    for sight, (key, seen) in SIGHTS.items():
        if outside[sight] and not within[sight]:
            what = "httpd's processes are not found, and not paused"
            yield _lacks(Severity.ERROR, what, f"{seen} cannot be seen in there", files, (key,), key)
    for call, refusal in within["calls"].items():
        if refusal and not outside["calls"][call]:
            is_minor = call in MINOR_CALLS
            what = "deployments do with less than they could" if is_minor else "deployments fail"
            severity = Severity.WARNING if is_minor else Severity.ERROR
            keys = ("SystemCallFilter", "SystemCallErrorNumber", *filter(None, [CALLING.get(call)]))
            yield _lacks(severity, what, f"{call} is refused in there: {refusal}", files, keys, call)


def _lacks(
    severity: Severity, what: str, why: str, files: Sequence[Path], keys: Sequence[str], lacking: str
) -> Finding:
    return Finding(
        None,
        severity,
        "sandbox-lacks",
        what,
        f"{why}, unlike outside of the sandbox of {UNIT}",
        f"Take out or correct: {_name_lines(files, keys)}. Then restart the unit:",
        {"lacking": lacking},
        RESTART,
    )


def _find_in_site(
    site: Site, outside: Mapping[str, Any], within: Mapping[str, Any], files: Sequence[Path]
) -> Iterator[Finding]:
    """What of the site's places is not as it is outside; else, what else keeps it from being swapped from in there."""
    if misplaced := _compare(outside, within):
        yield _misplaced(site, *misplaced, files)
        return
    for out, part in zip(outside["parts"], within["parts"], strict=True):
        if part["problem"] and not out["problem"]:
            yield Finding(
                site.name,
                Severity.ERROR,
                part["problem"],
                f"{part['live']} cannot be swapped from within the sandbox of {UNIT}",
                part["message"],
                f"Correct what keeps it from that: {_name_lines(files, PLACING)}. Then restart the unit:",
                {"live": part["live"]},
                RESTART,
            )
        elif part["strategy"] != out["strategy"] or (part["doubt"] and not out["doubt"]):
            yield _differs(site, out, part, files)


def _differs(site: Site, out: Mapping[str, str], part: Mapping[str, str], files: Sequence[Path]) -> Finding:
    """A route is taken where the web server says that it follows it; from in there, it cannot be asked."""
    what = f"whether visitors come by the route of {part['live']}, the daemon does not know"
    if part["strategy"] != out["strategy"]:
        what = f"the daemon swaps {part['live']} by {part['strategy']}, where {out['strategy']} could be had"
    others = systemd.find_lines(_by_hand(files), ASKING)
    return Finding(
        site.name,
        Severity.WARNING,
        "sandbox-differs",
        what,
        f"{part['doubt'] or part['message']}; outside of the sandbox of {UNIT}: {out['message']}",
        f"{_out_of_the_way(others)}Have the site's drop-in written, which lets it ask the web server:",
        {"live": part["live"]},
        (again(site),),
    )


def _compare(outside: Mapping[str, Any], within: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the places as they are seen from within: a problem, and which places it has."""
    seen = {path: (out, within["places"].get(path)) for path, out in outside["places"].items()}
    hidden = [path for path, (out, there) in seen.items() if there is None or there[:2] != out[:2]]
    if hidden:
        return "sandbox-hides", f"not to be seen in there: {_list(hidden)}"
    closed = [path for path, (out, there) in seen.items() if there[3] and not out[3]]
    if closed:
        return "sandbox-read-only", f"read-only in there: {_list(closed)}"
    for one, other in outside["pairs"]:
        (out, there), (out_too, there_too) = seen[one], seen[other]
        if out[2] == out_too[2] and there[2] != there_too[2]:
            return "sandbox-splits", f"{one} and {other} are two mounts in there: nothing goes from one to the other"
    return None


def _list(paths: Sequence[str]) -> str:
    return " and ".join(paths)


def _misplaced(site: Site, problem: str, words: str, files: Sequence[Path]) -> Finding:
    what = f"deployments by the daemon fail: the sandbox of {UNIT} does not have the site's places"
    remedy = f"{_out_of_the_way(systemd.find_lines(_by_hand(files), PLACING))}Have the site's drop-in written:"
    commands: tuple[str, ...] = (again(site),)
    if any(place in part.live.parents for part in site.parts for place in TEMPORARY):
        remedy, commands = f"Have the site elsewhere: with PrivateTmp=, {UNIT} has directories for that of its own.", ()
    return Finding(site.name, Severity.ERROR, problem, what, words, remedy, {"live": str(site.live)}, commands)


def _by_hand(files: Sequence[Path]) -> list[Path]:
    """The administrator's drop-ins: what swapd init wrote it writes anew, and of another site it does no harm."""
    return [path for path in files[1:] if WRITTEN not in path.read_text("utf-8", "replace")]


def _out_of_the_way(lines: Sequence[str]) -> str:
    return f"Take out what is in its way: {'; '.join(lines)}. " if lines else ""


def again(site: Site) -> str:
    """What writes the site's drop-in and makes its directories anew, whatever is there."""
    return f"swapd init {site.name} --live {shlex.quote(str(site.live))}"


def _find_stale(
    sites: Sequence[Site],
    layout: Layout,
    shown: Mapping[str, str],
    files: Sequence[Path],
    outside: Mapping[str, Any],
) -> Iterator[Finding]:
    """Where the daemon that runs was started with other settings than a restart would give it."""
    root = f"/proc/{shown['MainPID']}/root"
    is_any = False
    for site in sites:
        misplaced = _compare(outside["sites"][site.name], inside.look_at_site(layout, site, root))
        if misplaced:
            is_any = True
            what = "deployments by the daemon fail until it is restarted: it runs in the sandbox that it was started in"
            yield _not_restarted(site, Severity.ERROR, what, f"{misplaced[1]}; after a restart, that is over")
    began = systemd.started_at(shown["ExecMainStartTimestampMonotonic"])
    later = [str(path) for path in files if path.stat().st_mtime > began]
    if not is_any and (later or shown["NeedDaemonReload"] == "yes"):
        what = f"what was changed in the settings of {UNIT} is not in force"
        why = f"{_list(later)} is newer than the daemon that runs" if later else "its files have changed since"
        yield _not_restarted(None, Severity.WARNING, what, why)


def _not_restarted(site: Site | None, severity: Severity, what: str, why: str) -> Finding:
    name = site.name if site else None
    return Finding(name, severity, "unit-not-restarted", what, why, "Restart the unit:", commands=RESTART)

"""Whether the daemon is there for what is dropped: its unit, now and after a restart of the machine, and its helper."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from swapd.checks.sandbox import UNIT
from swapd.host import systemd
from swapd.host.linux import may_ptrace
from swapd.model.config import Site
from swapd.model.findings import Finding, Severity
from swapd.model.layout import Layout

SOCKET = "swapd-users.socket"
NOT_TAKEN_UP = "what is dropped is not taken up"
BY_HAND = "`swapd deploy` works meanwhile."


def find_unit(_: Sequence[Site], layout: Layout) -> Iterator[Finding]:
    """The state of swapd.service, as far as it is not good."""
    if not layout.is_host or not systemd.is_booted():
        return
    shown = systemd.show(UNIT, "LoadState", "ActiveState", "SubState", "Result", "UnitFileState", "ExecMainStatus")
    load, active = shown["LoadState"], shown["ActiveState"]
    if load == "masked":
        why = f"{UNIT} is masked: nothing may start it"
        commands = ("systemctl unmask swapd", "systemctl enable --now swapd")
        yield _error("unit-masked", NOT_TAKEN_UP, why, f"{BY_HAND} To have it run:", *commands)
        return
    if load != "loaded":
        why = f"systemd says of {UNIT}: {load}"
        hint = f"{BY_HAND} Install the package anew, which has it, then:"
        yield _error("unit-missing", NOT_TAKEN_UP, why, hint, "systemctl enable --now swapd")
        return
    if active == "failed" or shown["SubState"] == "auto-restart":
        yield _failed(shown)
    elif active not in ("active", "activating", "reloading"):
        why = f"{UNIT} is {active}"
        yield _error("unit-not-running", NOT_TAKEN_UP, why, f"{BY_HAND} To start it:", "systemctl start swapd")
    if shown["UnitFileState"] in ("disabled", "enabled-runtime", "linked", "indirect"):
        yield Finding(
            None,
            Severity.WARNING,
            "unit-not-enabled",
            "after a restart of this machine, what is dropped is not taken up",
            f"{UNIT} is {shown['UnitFileState']}: nothing starts it by itself",
            "Have it started with the machine:",
            commands=("systemctl enable swapd",),
        )


def _error(problem: str, what: str, why: str, remedy: str, *commands: str) -> Finding:
    return Finding(None, Severity.ERROR, problem, what, why, remedy, commands=commands)


def _failed(shown: Mapping[str, str]) -> Finding:
    again = "is started again and again" if shown["SubState"] == "auto-restart" else "is not started again by itself"
    why = f"{UNIT} ended ({shown['Result']}, status {shown['ExecMainStatus']}) and {again}"
    hint = f"{BY_HAND} The journal says why it ended; correct that, then start it:"
    logged = "journalctl --no-pager -u swapd -p warning -n 20"
    return _error("unit-failed", NOT_TAKEN_UP, why, hint, logged, "systemctl restart swapd")


def find_edited(sites: Sequence[Site], layout: Layout) -> Iterator[Finding]:
    """What was written into the configuration since the daemon last read it."""
    if not layout.is_host or not systemd.is_booted():
        return
    shown = systemd.show(UNIT, "ActiveState", "StateChangeTimestampMonotonic")
    if shown["ActiveState"] != "active":
        return  # it reads all of it when it starts
    # A reload is a change of state, too; and that of a bad configuration left the good one in force.
    read = systemd.started_at(shown["StateChangeTimestampMonotonic"])
    files = [layout.defaults_file, *(layout.site_file(site.name) for site in sites)]
    later = [str(path) for path in files if path.exists() and path.stat().st_mtime > read]
    if later:
        yield Finding(
            None,
            Severity.WARNING,
            "configuration-not-in-force",
            "the daemon goes by the configuration as it was before",
            f"newer than its last start or reload: {', '.join(later)}",
            "Have it read again:",
            commands=("systemctl reload swapd",),
        )


def find_users_socket(_: Sequence[Site], layout: Layout) -> Iterator[Finding]:
    """Without its answer, the daemon does not know which old releases are in use."""
    if not layout.is_host or os.geteuid() != 0:
        return
    commands: tuple[str, ...] = ()
    if systemd.is_booted():
        if systemd.show(UNIT, "ActiveState")["ActiveState"] != "active":
            return  # it comes and goes with the daemon
        shown = systemd.show(SOCKET, "LoadState", "ActiveState")
        is_there = shown["ActiveState"] == "active"
        is_masked = shown["LoadState"] == "masked"
        why = f"{SOCKET} is {'masked' if is_masked else shown['ActiveState']}"
        remedy = "Start it:"
        commands = (*([f"systemctl unmask {SOCKET}"] if is_masked else []), f"systemctl start {SOCKET}")
    else:
        is_there = may_ptrace() or layout.users_socket.exists()
        why = f"this container has no CAP_SYS_PTRACE, and nobody listens on {layout.users_socket}"
        remedy = "Give it the capability."
    if not is_there:
        yield Finding(
            None,
            Severity.WARNING,
            "users-unseen",
            "old releases are not removed: whether a process uses one is not known to the daemon",
            why,
            remedy,
            commands=commands,
        )

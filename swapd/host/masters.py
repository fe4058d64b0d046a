"""The httpd master processes of this machine, found by psutil.

It takes 10 ms for 500 processes, so it is asked before the window, and for the masters only.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import psutil

from swapd.host.processes import kernel_name
from swapd.host.services import is_in_service


def is_in_own_namespace(pid: int) -> bool:
    """Whether the process is in our own PID namespace and not in a container's.

    ``NSpid`` has one number for each namespace that the process is in, ours first (proc(5)); reading it needs no
    privilege, which ``/proc/PID/ns/pid`` does.
    """
    try:
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return len(line.split()) == 2
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


# Below it are system accounts, login.defs(5)'s UID_MIN on every distribution that swapd is packaged for.
FIRST_HUMAN = 1000


@dataclass(frozen=True, slots=True)
class _Named:
    """A process by one of the names that were looked for; ``overlooked`` says why it is not one to pause."""

    parent: int
    overlooked: str


def _look(names: Collection[str], user: str, unit: str, exe: str) -> dict[int, _Named]:
    """By their pids, all processes of these names, ourselves left out."""
    # psutil completes a name from the command line; nobody else does.
    wanted = {kernel_name(name) for name in names}
    found: dict[int, _Named] = {}
    for process in psutil.process_iter(["name", "ppid", "username", "uids"]):
        info = process.info
        if kernel_name(info["name"] or "") not in wanted or process.pid == os.getpid():
            continue
        uid = info["uids"].effective if info["uids"] else 0
        is_users = info["username"] == user if user else uid < FIRST_HUMAN or uid == os.geteuid()
        if not is_users:
            overlooked = f"it runs as user {info['username'] or uid}"
        elif unit and not is_in_service(process.pid, unit):
            overlooked = f"it is not in {unit}"
        else:
            overlooked = f"it does not run {exe}" if exe and not _runs(process, exe) else ""
        found[process.pid] = _Named(info["ppid"], overlooked)
    return found


def find_masters(names: Collection[str], user: str = "", unit: str = "", exe: str = "") -> list[int]:
    """The pids of the processes called by one of ``names`` whose parent is not.

    With ``user``, only that user's; otherwise those of root, of system accounts and of our own user: anybody may give a
    process of theirs httpd's name, and one that cannot be stopped would hold up every swap. With ``unit`` and ``exe``,
    only that unit's and that program's. A master that has been stopped, by whomever, is among them.
    """
    found = {pid: named for pid, named in _look(names, user, unit, exe).items() if not named.overlooked}
    return sorted(pid for pid, named in found.items() if named.parent not in found and is_in_own_namespace(pid))


def find_overlooked(names: Collection[str], user: str = "", unit: str = "", exe: str = "") -> dict[int, str]:
    """The masters of these names that ``find_masters`` leaves out, by their pids: why each is not one to pause."""
    everything = _look(names, user, unit, exe)
    found = {}
    for pid, named in everything.items():
        if named.parent not in everything:
            is_own = is_in_own_namespace(pid)
            why = named.overlooked if is_own else "it runs in a PID namespace of its own, as in a container"
            if why and os.path.exists(f"/proc/{pid}"):
                found[pid] = why
    return found


def _runs(process: psutil.Process, exe: str) -> bool:
    # Where /proc/PID/exe is not for us (root's httpd, and we without CAP_SYS_PTRACE), psutil goes by the first word of
    # the command line: among the processes of trusted users that will do.
    try:
        return bool(process.exe() == exe)
    except psutil.Error:
        return False

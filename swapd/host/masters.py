"""The httpd master processes of this machine, found by psutil.

It takes 10 ms for 500 processes, so it is asked before the window, and for the masters only.
"""

from __future__ import annotations

import os
from collections.abc import Collection
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


def find_masters(names: Collection[str], user: str = "", unit: str = "", exe: str = "") -> list[int]:
    """The pids of the processes called by one of ``names`` whose parent is not.

    With ``user``, only that user's; otherwise those of root, of system accounts and of our own user: anybody may give a
    process of theirs httpd's name, and one that cannot be stopped would hold up every swap. With ``unit`` and ``exe``,
    only that unit's and that program's. A master that has been stopped, by whomever, is among them.
    """
    # psutil completes a name from the command line; nobody else does.
    wanted = {kernel_name(name) for name in names}
    found: dict[int, int] = {}
    for process in psutil.process_iter(["name", "ppid", "username", "uids"]):
        info = process.info
        if kernel_name(info["name"] or "") not in wanted or process.pid == os.getpid():
            continue
        uid = info["uids"].effective if info["uids"] else 0
        is_users = info["username"] == user if user else uid < FIRST_HUMAN or uid == os.geteuid()
        if is_users and (not unit or is_in_service(process.pid, unit)) and (not exe or _runs(process, exe)):
            found[process.pid] = info["ppid"]
    return sorted(pid for pid, parent in found.items() if parent not in found and is_in_own_namespace(pid))


def _runs(process: psutil.Process, exe: str) -> bool:
    # Where /proc/PID/exe is not for us (root's httpd, and we without CAP_SYS_PTRACE), psutil goes by the first word of
    # the command line: among the processes of trusted users that will do.
    try:
        return bool(process.exe() == exe)
    except psutil.Error:
        return False

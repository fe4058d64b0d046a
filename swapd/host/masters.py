"""The httpd master processes of this machine, found by psutil.

It takes 10 ms for 500 processes, so it is asked before the window, and for the masters only.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import psutil

from swapd.host.processes import kernel_name


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


def find_masters(names: Collection[str], user: str = "") -> list[int]:
    """The pids of the processes called by one of ``names`` whose parent is not.

    With ``user``, only that user's; otherwise those of root, of system accounts and of our own user: anybody may give a
    process of theirs httpd's name, and one that cannot be stopped would hold up every swap. A master that has been
    stopped, by whomever, is among them.
    """
    # psutil completes a name from the command line; nobody else does.
    wanted = {kernel_name(name) for name in names}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["name", "ppid", "username", "uids"]):
        info = process.info
        if kernel_name(info["name"] or "") not in wanted or process.pid == os.getpid():
            continue
        uid = info["uids"].effective if info["uids"] else 0
        if info["username"] == user if user else uid < FIRST_HUMAN or uid == os.geteuid():
            found[process.pid] = process
    return sorted(
        pid for pid, process in found.items() if process.info["ppid"] not in found and is_in_own_namespace(pid)
    )

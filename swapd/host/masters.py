"""The httpd master processes of this machine, found by psutil.

It takes 10 ms for 500 processes, so it is asked before the window, and for the masters only.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import psutil


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


def find_masters(names: Collection[str], user: str = "") -> list[int]:
    """The pids of the processes called by one of ``names`` whose parent is not; with ``user``, only that user's.

    A master that has been stopped, by whomever, is among them.
    """
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["name", "ppid", "username"]):
        info = process.info
        if info["name"] in names and process.pid != os.getpid() and (not user or info["username"] == user):
            found[process.pid] = process
    return sorted(
        pid for pid, process in found.items() if process.info["ppid"] not in found and is_in_own_namespace(pid)
    )

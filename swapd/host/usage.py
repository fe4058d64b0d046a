"""Which processes use which files and directories: working and root directory, open files, mappings.

Facts that this rests on:

- Whoever may not ptrace a process does not see these of it (proc(5)): root without CAP_SYS_PTRACE sees only its equals.
  The unit's sandbox is without it. So there the look is had by ``swapd users``, a process of a unit of its own, which
  has that capability and cannot write anything; it answers on a socket.
- By device and inode, not by path: a path in ``/proc`` is that of the process's own namespace, and the trees are
  renamed. A mapping has the device of its filesystem, which on btrfs is not the one that stat(2) shows; on an overlay
  not even the inode is.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from swapd.host.files import closing_descriptor
from swapd.host.linux import may_ptrace
from swapd.model.layout import Layout
from swapd.model.usage import User, Way

PATIENCE = 20.0  # seconds for an answer: a machine with thousands of processes takes one
LOOK = 0.2  # seconds after which it is seen that nobody wants the answer any more
LONGEST = 64 << 20  # bytes of an answer
INIT = 1

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Inode = tuple[int, int]  # device and number


@dataclass(slots=True)
class Usage:
    """Who uses which inode; and what could not be seen, empty where everything could."""

    users: dict[Inode, list[User]] = field(default_factory=dict)
    unseen: str = ""

    def document(self) -> dict[str, Any]:
        """For the answer of ``swapd users``."""
        users = [[*inode, user.pid, user.name, user.way.value] for inode, found in self.users.items() for user in found]
        return {"users": users, "unseen": self.unseen}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Usage:
        usage = cls(unseen=str(document["unseen"]))
        for device, inode, pid, name, way in document["users"]:
            usage.users.setdefault((int(device), int(inode)), []).append(User(int(pid), str(name), Way(way)))
        return usage


def find_usage(layout: Layout, is_cancelled: Callable[[], bool] = lambda: False) -> Usage:
    """Who uses what on this host now; what cannot be seen is said in ``unseen``. Raises nothing.

    Nobody is waited for once ``is_cancelled``: as the unit stops, systemd may start whoever answers only when we have
    ended, because it stops the socket, too.
    """
    if may_ptrace() or os.geteuid() != 0 or not layout.users_socket.exists():
        return read_usage()
    try:
        return _ask(layout.users_socket, is_cancelled)
    except (OSError, ValueError, LookupError, TypeError) as error:
        usage = read_usage()
        usage.unseen = f"{layout.users_socket} does not answer ({error}); {usage.unseen}"
        return usage


def _ask(path: Path, is_cancelled: Callable[[], bool]) -> Usage:
    """The answer of whoever listens on the socket."""
    answer = bytearray()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
        connection.shutdown(socket.SHUT_WR)
        gives_up = time.monotonic() + PATIENCE
        while True:
            while not select.select([connection], [], [], LOOK)[0]:
                if is_cancelled():
                    raise TimeoutError("swapd is told to stop")
                if time.monotonic() > gives_up:
                    raise TimeoutError("timed out")
            chunk = connection.recv(1 << 16)
            if not chunk:
                break
            answer += chunk
            if len(answer) > LONGEST:
                raise ValueError("it does not end")
    return Usage.from_document(json.loads(answer))


def read_usage() -> Usage:
    """What this process itself may see. Of other users' processes only root asks: others could never know."""
    usage = Usage()
    hidden = 0
    # psutil's numbers, and not its processes: those cost as much as all the rest, and every deployment looks twice.
    for pid in psutil.pids():
        if pid != os.getpid() and (name := _find_name(pid)) is not None:
            hidden += not _read_process(pid, name, usage)
    if hidden:
        usage.unseen = (
            f"{'1 process' if hidden == 1 else f'{hidden} processes'} cannot be looked at by user {os.geteuid()} "
            "without CAP_SYS_PTRACE"
        )
    return usage


def _read_process(pid: int, name: str, usage: Usage) -> bool:
    """Adds what the process uses; False where that cannot be seen and matters."""
    directory = f"/proc/{pid}"
    try:
        for way in (Way.DIRECTORY, Way.ROOT):
            with contextlib.suppress(FileNotFoundError):  # a zombie has none
                _add(usage, os.stat(f"{directory}/{way.value}"), User(pid, name, way))
        for number in os.listdir(f"{directory}/fd"):
            with contextlib.suppress(FileNotFoundError):
                _add(usage, os.stat(f"{directory}/fd/{number}"), User(pid, name, Way.FILE))
        for inode in _mapped(directory):
            usage.users.setdefault(inode, []).append(User(pid, name, Way.MAPPING))
    except (FileNotFoundError, ProcessLookupError):
        return True  # it has ended
    except OSError:
        # With the capability only what somebody has shielded from everyone is left, as some machines' first process is.
        return os.geteuid() != 0 or (pid == INIT and may_ptrace())
    return True


def _add(usage: Usage, status: os.stat_result, user: User) -> None:
    if stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
        found = usage.users.setdefault((status.st_dev, status.st_ino), [])
        if user not in found:
            found.append(user)


def _mapped(process: str) -> Iterator[Inode]:
    """The inodes of a process's mappings, each once."""
    seen = set()
    with open(f"{process}/maps", "rb") as lines:
        for line in lines:
            # proc(5): address perms offset major:minor inode path
            fields = line.rstrip(b"\n").split(None, 5)
            if len(fields) > 4 and fields[4] != b"0" and (fields[3], fields[4]) not in seen:
                seen.add((fields[3], fields[4]))
                major, minor = (int(part, 16) for part in fields[3].split(b":"))
                named = _find_named(process, fields[5]) if major == 0 and len(fields) > 5 else None
                yield named or (os.makedev(major, minor), int(fields[4]))


def _find_named(process: str, path: bytes) -> Inode | None:
    """The inode of the file that a mapping is of, by its path as the process has it now; None where that leads nowhere.

    Where a filesystem has no device of its own, the number in the list may be another than stat(2) shows: an overlay
    of several filesystems shows numbers that it gives away itself, and which other files have, too.
    """
    try:
        status = os.stat(os.fsencode(f"{process}/root") + path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


PF_KTHREAD = 0x00200000  # linux/sched.h; the ninth field of /proc/PID/stat


def _find_name(pid: int) -> str | None:
    """What the process is called, as ps(1) says it; None for the kernel's own, and for one that has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            before, end, after = file.read().rpartition(b") ")
    except (FileNotFoundError, ProcessLookupError):
        return None
    if not end or int(after.split()[6]) & PF_KTHREAD:
        return None
    return before.partition(b" (")[2].decode("utf-8", "replace")


def users_of_tree(directory: int, name: str, usage: Usage) -> list[User]:
    """Who uses the tree ``name`` in the open directory, or anything in it; a link is no tree.

    Looks at every name in the tree, follows no link, and needs two descriptors, however deep it is. What is removed
    meanwhile is not there. Raises ``OSError``.
    """
    try:
        root = os.open(name, _DIRECTORY, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    with closing_descriptor(root):
        mounted = _filesystem_device(root)
        found = _users(os.fstat(root), mounted, usage)
        waiting = ["."]
        while waiting:
            path = waiting.pop()
            for name, status in _listed(path, root):
                found += _users(status, mounted, usage)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(f"{path}/{name}")
    return sorted(set(found), key=lambda user: (user.pid, user.way.value))


def _listed(path: str, root: int) -> list[tuple[str, os.stat_result]]:
    """What is in a directory, but for what is removed meanwhile."""
    found = []
    try:
        descriptor = os.open(path, _DIRECTORY, dir_fd=root)
    except (FileNotFoundError, NotADirectoryError):
        return []
    with closing_descriptor(descriptor), os.scandir(descriptor) as listing:
        for entry in listing:
            with contextlib.suppress(FileNotFoundError):
                found.append((entry.name, entry.stat(follow_symlinks=False)))
    return found


def _users(status: os.stat_result, mounted: int, usage: Usage) -> list[User]:
    inode = status.st_ino
    found = usage.users.get((status.st_dev, inode), [])
    return found if status.st_dev == mounted else found + usage.users.get((mounted, inode), [])


def _filesystem_device(descriptor: int) -> int:
    """The device that mappings of files on the same mount are shown with: mountinfo's third field."""
    try:
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
        mount = next(line.split()[1] for line in lines if line.startswith("mnt_id:"))
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            fields = line.split(" ", 3)
            if fields[0] == mount:
                major, minor = fields[2].split(":")
                return os.makedev(int(major), int(minor))
    except (OSError, StopIteration, IndexError, ValueError):
        pass
    return os.fstat(descriptor).st_dev

"""What ``swapd check`` runs in the sandbox of the unit: says what is to be seen and can be done from there.

``main`` prints one JSON document, and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from swapd.host import landlock, linux, seccomp
from swapd.host.configuration import read_sites
from swapd.model.config import Site
from swapd.model.errors import ConfigurationError, SwapdError
from swapd.model.layout import Layout
from swapd.stages.choose import look
from swapd.strategies.exchanging import find_place

NAMESPACES = ("user", "pid", "net")


def look_around(layout: Layout, sites: Iterable[Site]) -> dict[str, Any]:
    """All of it; the same function says what is so outside."""
    return {
        "namespaces": {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in NAMESPACES},
        "capabilities": _read_capabilities(),
        "sees_processes": os.path.exists("/proc/1/stat"),
        "sees_kernel": os.path.exists("/proc/stat"),
        "calls": {name: _attempt(call) for name, call in CALLS.items()},
        "sites": {site.name: look_at_site(layout, site) for site in sites},
    }


def look_at_site(layout: Layout, site: Site, root: str = "") -> dict[str, Any]:
    """What is to be seen of the site's places, and whether each part can be swapped; with a ``root`` only the former.

    ``root`` is the root directory of another process, whose mounts may be others than ours.
    """
    pairs = [
        [os.path.realpath(path) for path in (part.live.parent, find_place(part))]
        for part in site.parts
        if find_place(part).exists() and part.live.parent.exists()
    ]
    paths = [*(path for pair in pairs for path in pair), *map(os.path.realpath, _own_places(layout, site))]
    seen = {path: see(path, root) for path in dict.fromkeys(paths)}
    return {
        "places": {path: sight for path, sight in seen.items() if sight is not None},
        "pairs": pairs,  # between which a swap renames
        "parts": [] if root else [_look(part) for part in site.parts],
    }


def _own_places(layout: Layout, site: Site) -> list[str]:
    return [str(path) for path in (site.incoming, layout.state, layout.run)]


def see(path: str, root: str = "") -> list[Any] | None:
    """Which directory that is (device, inode), on which mount, and whether that is read-only; None: it is not there."""
    try:
        descriptor = os.open(f"{root}{path}", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    try:
        status = os.fstat(descriptor)
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
        mount = next(line.split()[1] for line in lines if line.startswith("mnt_id:"))
        is_read_only = bool(os.fstatvfs(descriptor).f_flag & os.ST_RDONLY)
        return [status.st_dev, status.st_ino, int(mount), is_read_only]
    finally:
        os.close(descriptor)


def _look(part: Site) -> dict[str, str]:
    """How it would be swapped, and what of that is not known; or why it cannot be."""
    seen = {"live": str(part.live), "problem": "", "message": "", "strategy": "", "doubt": ""}
    try:
        choice = look(part)
    except SwapdError as error:
        return {**seen, "problem": error.problem, "message": error.message}
    except OSError as error:
        return {**seen, "problem": "cannot-write", "message": f"{error.filename}: {error.strerror}"}
    return {**seen, "strategy": choice.strategy.value, "message": choice.reason, "doubt": choice.doubt}


def _read_capabilities() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))


def _attempt(call: Callable[[], object]) -> str:
    """Why the call is refused, or nothing. In a process of its own, which a filter may kill for it, or jail."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        with contextlib.suppress(OSError):
            try:
                call()
            except OSError as error:
                os.write(writing, (error.strerror or str(error)).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8", errors="replace") as file:
        said = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return said or (f"it is killed ({signal.Signals(-status).name})" if status < 0 else "")


def _pidfd() -> None:
    signal.pidfd_send_signal(os.pidfd_open(os.getpid()), 0)


def _filter() -> None:
    linux.prctl_set_no_new_privs()
    seccomp.forbid(("execve",))


def _exchange() -> None:
    with contextlib.suppress(FileNotFoundError):
        linux.renameat2("/nonexistent/swapd-one", "/nonexistent/swapd-other", linux.RENAME_EXCHANGE)


def _write_through() -> None:
    try:
        linux.syncfs(-1)
    except OSError as error:
        if error.errno != errno.EBADF:  # the kernel has looked at what it was given
            raise


# By the name of the system call.
CALLS: Mapping[str, Callable[[], object]] = {
    "pidfd_send_signal": _pidfd,
    "renameat2": _exchange,
    "syncfs": _write_through,
    "memfd_create": lambda: os.memfd_create("swapd-check"),
    "socket(AF_UNIX)": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    "socket(AF_NETLINK)": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "landlock_create_ruleset": landlock.abi,
    "seccomp": _filter,
}


def main() -> None:
    """Says all of it of every site."""
    layout = Layout()
    try:
        sites = list(read_sites(layout).values())
    except ConfigurationError as error:
        print(json.dumps({"cannot_read": error.message}))
        return
    print(json.dumps(look_around(layout, sites)))

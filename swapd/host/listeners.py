"""httpd's listening sockets: how many connections wait on each, and how many the kernel had to turn away.

Facts that this rests on:

- While httpd is stopped nobody accepts: connections wait in the listener's queue, and the kernel's sock_diag(7) tells
  its length and its limit. Asking takes 20 µs, reading /proc/net/tcp up to 3 ms (it walks every connection).
- The kernel makes the answer when it is asked, so that asking belongs into the window, and reading it does not.
- What no longer fits is counted by ``ListenOverflows`` and ``ListenDrops``, for a whole network namespace; the client
  tries again after about a second.
- The owner of a socket is in ``/proc/PID/fd``, which needs CAP_SYS_PTRACE for another user's process; the control group
  in which it was made is told to everybody.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from swapd.host.services import control_group
from swapd.model.release import ListenerQueue

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST_DUMP = 0x301
NLMSG_ERROR, NLMSG_DONE = 2, 3
INET_DIAG_CGROUP_ID = 21
TCP_LISTEN = 1 << 10
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2 with an empty socket id
_COUNTS = struct.Struct("=IIIII")  # of struct inet_diag_msg: expires, rqueue, wqueue, uid, inode
_COUNTS_AT, _ATTRIBUTES_AT = 52, 72
ANSWER_PATIENCE = 1.0  # seconds; the answer has been made when it is asked for
FAMILIES = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One listening socket of our network namespace."""

    queue: ListenerQueue
    inode: int
    group: int  # the id of the control group in which it was made; 0: not told


@dataclass(frozen=True, slots=True)
class Counters:
    """What the kernel has counted since boot, in all network namespaces in which an httpd master is."""

    overflows: int
    drops: int
    accepted: int  # connections that came in, over whichever listener


class Listeners:
    """The listeners of the processes ``masters``. Close it."""

    def __init__(self, masters: Iterable[int]) -> None:
        pids = list(masters)
        self._namespaces = _namespaces(pids)
        self._inodes, self._groups = _socket_inodes(pids), _group_ids(pids)
        self._dumps: list[_Dump] = []
        # Another namespace's sockets are not told to us, only its counters.
        if _namespaces([os.getpid()]).keys() <= self._namespaces.keys():
            with contextlib.suppress(OSError):
                self._dumps = [_Dump(family) for family in FAMILIES]
        self.ask()
        answers = [(dump, self._httpds(dump)) for dump in self._dumps]
        # In the window, only those address families are asked for that httpd listens on.
        for dump, queues in answers:
            if not queues:
                dump.close()
        self._dumps = [dump for dump, queues in answers if queues]
        self.before = tuple(queue for _, queues in answers for queue in queues)

    def close(self) -> None:
        for dump in self._dumps:
            dump.close()

    @property
    def namespaces(self) -> frozenset[int]:
        """The network namespaces for which ``counters`` counts."""
        return frozenset(self._namespaces)

    def ask(self) -> None:
        """Has the kernel look at the queues now. In the window: a system call for each address family, nothing else."""
        for dump in self._dumps:
            dump.ask()

    def queues(self) -> tuple[ListenerQueue, ...]:
        """Each listener of httpd as it was when ``ask`` was called; none where the kernel does not tell."""
        return tuple(queue for dump in self._dumps for queue in self._httpds(dump))

    def _httpds(self, dump: _Dump) -> list[ListenerQueue]:
        return [seen.queue for seen in dump.answer() if self._is_httpds(seen)]

    def counters(self) -> Counters:
        """What the kernel has counted until now."""
        totals = [0, 0, 0]
        for pid in self._namespaces.values():
            with contextlib.suppress(OSError):
                extended, plain = _read_table(pid, "netstat", "TcpExt"), _read_table(pid, "snmp", "Tcp")
                found = (extended["ListenOverflows"], extended["ListenDrops"], plain["PassiveOpens"])
                totals = [total + number for total, number in zip(totals, found, strict=True)]
        return Counters(*totals)

    def _is_httpds(self, seen: _Seen) -> bool:
        if self._inodes is not None:
            return seen.inode in self._inodes
        return not self._groups or seen.group in self._groups


class _Dump:
    """All listening sockets of one address family. A socket of its own: the kernel makes one answer at a time."""

    def __init__(self, family: int) -> None:
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, TCP_LISTEN)
        header = _HEADER.pack(_HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 0, 0)
        self._request = header + body
        self._is_asked = False
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
        self._socket.settimeout(ANSWER_PATIENCE)

    def close(self) -> None:
        self._socket.close()

    def ask(self) -> None:
        try:
            self._socket.send(self._request)
            self._is_asked = True
        except OSError:
            self._is_asked = False

    def answer(self) -> list[_Seen]:
        """What was asked for; nothing where the kernel refuses."""
        found: list[_Seen] = []
        try:
            while self._is_asked:
                data = self._socket.recv(1 << 16)
                while data:
                    length, kind, *_ = _HEADER.unpack_from(data)
                    message, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
                    if kind in (NLMSG_DONE, NLMSG_ERROR):
                        self._is_asked = False
                    else:
                        found.append(_parse(message))
        except OSError:
            self._is_asked = False
        return found


def _namespaces(pids: Iterable[int]) -> dict[int, int]:
    """A process of each network namespace that one of the processes is in.

    By the inode of a file of the namespace's own under /proc: reading ``/proc/PID/ns/net`` needs CAP_SYS_PTRACE.
    """
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            found[os.stat(f"/proc/{pid}/net/netstat").st_ino] = pid
    return found


def _socket_inodes(pids: Iterable[int]) -> set[int] | None:
    """The sockets that the processes have open; None where we may not know."""
    inodes = set()
    for pid in pids:
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{name}")):
                        inodes.add(int(match[1]))
        except PermissionError:
            return None
        except (FileNotFoundError, ProcessLookupError):
            continue
    return inodes


def _group_ids(pids: Iterable[int]) -> set[int]:
    """The kernel's ids of the processes' control groups: the inodes of their directories."""
    ids = set()
    for pid in pids:
        for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
            with contextlib.suppress(OSError):
                if os.path.exists(f"{mount}/cgroup.procs"):
                    ids.add(os.stat(f"{mount}{control_group(pid)}").st_ino)
    return ids


def _read_table(pid: int, name: str, prefix: str) -> dict[str, int]:
    """One of the tables in ``/proc/PID/net``: a line of names, and then a line of numbers."""
    lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()
    names, numbers = (line.split()[1:] for line in lines if line.startswith(f"{prefix}:"))
    return dict(zip(names, map(int, numbers), strict=True))


def _parse(message: bytes) -> _Seen:
    """A ``struct inet_diag_msg`` and its attributes."""
    family, (port,) = message[0], struct.unpack_from(">H", message, 4)
    address = str(IPv4Address(message[8:12])) if family == socket.AF_INET else f"[{IPv6Address(message[8:24])}]"
    _, queued, limit, _, inode = _COUNTS.unpack_from(message, _COUNTS_AT)
    group, at = 0, _ATTRIBUTES_AT
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind == INET_DIAG_CGROUP_ID:
            (group,) = struct.unpack_from("=Q", message, at + 4)
        at += (max(length, 4) + 3) & ~3
    return _Seen(ListenerQueue(f"{address}:{port}", queued, limit), inode, group)

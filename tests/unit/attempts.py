"""What one could try who has taken over a process that reads what came from outside, and who there is to try it on."""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import encodings.idna  # noqa: F401 - socket looks it up, and in the jail there is nothing to look at
import errno
import fcntl
import mmap
import os
import resource
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swapd.host import linux, seccomp
from swapd.host.child import Child
from tests.unit.archives import Site

PIDFD_GETFD = 438
CLONE_NEWUSER = 0x10000000
IO_URING_SETUP = 425
KEYCTL = 250 if os.uname().machine == "x86_64" else 219
KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING = 0, -4

SAME = 100  # the descriptor under which the attempts know the staging directory
Attempts = dict[str, Callable[[], object]]


def outcome(attempt: Callable[[], object]) -> str:
    try:
        got = attempt()
        if type(got) is int:
            os.close(got)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except (ValueError, RuntimeError) as error:
        return str(error)
    return "done"


def call(number: int, *arguments: int | bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    passed = [each if isinstance(each, bytes) else ctypes.c_long(each) for each in arguments]
    result = libc.syscall(ctypes.c_long(number), *passed)
    if result == -1:
        raise OSError(ctypes.get_errno(), "")
    return int(result)


def bind_socket() -> None:
    with socket.socket(socket.AF_UNIX) as made:
        os.fchdir(SAME)
        made.bind("socket")


def connect(family: socket.AddressFamily, address: Any) -> None:
    with socket.socket(family) as made:
        made.connect(address)


def send(family: socket.AddressFamily, address: Any) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.sendto(b"x", address)


def make_pair() -> None:
    for end in socket.socketpair():
        end.close()


def take_descriptor_of(pid: int) -> None:
    """What ptrace(2) allows is what this asks, without stopping anybody."""
    pidfd = os.pidfd_open(pid)
    try:
        os.close(call(PIDFD_GETFD, pidfd, 0, 0))
    finally:
        os.close(pidfd)


def write_much() -> None:
    descriptor = os.open("much", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=SAME)
    try:
        os.pwrite(descriptor, b"x", 2 << 20)
    finally:
        os.close(descriptor)


def execute_own() -> None:
    """A program that the archive brought. Were it executed, there would be no answer."""
    with open(os.open("program", os.O_CREAT | os.O_WRONLY, 0o755, dir_fd=SAME), "w") as program:
        program.write("#!/bin/sh\n")
    os.fchdir(SAME)
    os.execv("./program", ["program"])  # noqa: S606 - as one who was taken over would


def attempts_on_files(site: Site) -> Attempts:
    new = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    return {
        "read outside": lambda: os.open("/etc/hostname", os.O_RDONLY),
        "list outside": lambda: os.open("/etc", os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK),
        "read /proc": lambda: os.open("/proc/self/mem", os.O_RDONLY),
        "read above": lambda: os.open("../canary/file", os.O_RDONLY, dir_fd=SAME),
        "write outside": lambda: os.open(site.canary / "file", os.O_WRONLY),
        "make outside": lambda: os.open(site.canary / "new", new),
        "make above": lambda: os.open("../canary/new", new, dir_fd=SAME),
        "remove outside": lambda: os.unlink(site.canary / "file"),
        "rename outside": lambda: os.rename(site.canary / "file", site.canary / "moved"),
        "link from outside": lambda: os.link(site.canary / "file", "linked", dst_dir_fd=SAME),
        "character device": lambda: os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3), dir_fd=SAME),
        "block device": lambda: os.mknod("disk", stat.S_IFBLK | 0o666, os.makedev(8, 0), dir_fd=SAME),
        "fifo": lambda: os.mkfifo("fifo", dir_fd=SAME),
        "socket": bind_socket,
        "execute own": execute_own,
        "chown": lambda: os.chown(".", 12345, 12345, dir_fd=SAME),
        "large file": write_much,
    }


def attempts_on_others(others: Others) -> Attempts:
    """On the network, services, and processes: what one of root may do to another for being root's among it."""
    parent, other = os.getpid(), others.pid
    return {
        "tcp": lambda: connect(socket.AF_INET, ("127.0.0.1", others.tcp)),
        "udp": lambda: send(socket.AF_INET, ("127.0.0.1", others.udp)),
        "unix": lambda: connect(socket.AF_UNIX, others.unix),
        "abstract unix": lambda: connect(socket.AF_UNIX, others.abstract),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
        "pair": make_pair,
        "kill parent": lambda: os.kill(parent, 0),
        "kill other": lambda: os.kill(other, 0),
        "kill by a file": lambda: fcntl.fcntl(SAME, fcntl.F_SETOWN, other),
        "ptrace parent": lambda: take_descriptor_of(parent),
        "ptrace other": lambda: take_descriptor_of(other),
        "limit other": lambda: resource.prlimit(other, resource.RLIMIT_CORE, (0, 0)),
        "slow other": lambda: os.setpriority(os.PRIO_PROCESS, other, 10),
        "move other": lambda: os.sched_setaffinity(other, os.sched_getaffinity(other)),
        "ring": lambda: call(IO_URING_SETUP, 1, bytes(120)),
        "keys": lambda: str(call(KEYCTL, KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING, 1)),
        "outlive": lambda: str(call(seccomp.numbers(os.uname().machine)["prctl"], 1, 0, 0, 0, 0)),
        "thread": lambda: str(_thread.start_new_thread(int, ())),
        "process": fork,
        "setuid": lambda: os.setresuid(12345, 12345, 12345),
        "setgid": lambda: os.setresgid(12345, 12345, 12345),
        "chroot": lambda: os.chroot("."),
        "user namespace": lambda: linux.unshare(CLONE_NEWUSER),
        "core": lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)),
    }


ATTEMPTS_OF_THE_EXTRACTOR: Attempts = {
    "execute": lambda: os.execv("/usr/bin/true", ["true"]),  # noqa: S606 - as above
    "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 40, 1 << 40)),
    "memory": lambda: mmap.mmap(-1, 256 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
    "code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
}
# What no layer but the filter of system calls is there for. Harmless it is not, in root's hands.
BY_SECCOMP = {"netlink", "pair", "kill by a file", "move other", "ring", "keys", "outlive", "user namespace", "code"}


def fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@dataclass
class Others:
    """Who is there beside us."""

    pid: int
    tcp: int
    udp: int
    unix: str
    abstract: bytes


@contextlib.contextmanager
def others_at(path: Path) -> Iterator[Others]:
    """All of them take whatever comes; ``path`` is for a socket."""
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        unix, abstract = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(path))
        path.chmod(0o777)
        abstract.bind(f"\0swapd-test-{os.getpid()}")
        for server in (unix, abstract):
            server.listen()
        other = stack.enter_context(contextlib.closing(Child("other", lambda: signal.pause() and None, keep=())))
        yield Others(other.pid, tcp.getsockname()[1], udp.getsockname()[1], str(path), abstract.getsockname())

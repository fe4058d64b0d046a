"""A booted Debian host: systemd-nspawn on an overlay, in about a second, with nothing left behind.

The host's mounts are in a mount namespace of its own, its files on a tmpfs there, its processes in a process namespace
whose first process dies with the test run (PR_SET_PDEATHSIG). So even a killed run leaves nothing but an empty
directory and empty cgroups, which the next run removes.

A pure cgroup v2 hierarchy is mounted inside that namespace: the host is a current systemd host whatever the machine
around it runs, and every host has a cgroup of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

from tests.host.roots import CACHE

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
BOOT_DEADLINE = 60.0  # seconds; it takes one
SHUTDOWN_DEADLINE = 30.0
PREFIX = "swapd-test-"
OWN_MOUNTS = ("unshare", "--mount", "--propagation=private")
# A process namespace around nspawn's own: killing nspawn would leave the host's init running, but the end of a
# namespace's first process is the end of all that is in it.
CONTAINED = ("setpriv", "--pdeathsig=KILL", *OWN_MOUNTS, "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
# What a login shell of root would have: nothing of the test run's environment reaches the host.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_COLORS": "0",
    "DEBIAN_FRONTEND": "noninteractive",
}

# A pure cgroup v2 tree over whatever there is: needs a mount namespace of one's own.
MOUNT_CGROUPS = """
set -e
[ -d /sys/fs/cgroup ] || mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
"""

# A fresh overlay, all of it on a tmpfs, and a cgroup. $1: base root, $2: a new directory from `make_scratch`.
# nspawn's /run/systemd/nspawn is covered, because it would leave locks and directories there.
MOUNT_ROOT = f"""
{MOUNT_CGROUPS}
name=$(basename "$2")
mkdir "/sys/fs/cgroup/$name"
echo $$ > "/sys/fs/cgroup/$name/cgroup.procs"
mount -t tmpfs -o mode=755 swapd-test "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
mkdir -p /run/systemd/nspawn
mount -t tmpfs swapd-test /run/systemd/nspawn
"""

# Becomes nspawn, which would refuse Landlock's system calls if it were not told otherwise.
BOOT_SCRIPT = f"""
{MOUNT_ROOT}
exec systemd-nspawn --directory="$2/root" --machine="$name" --register=no --keep-unit --private-network \
    --resolv-conf=off --link-journal=no --timezone=off \
    --system-call-filter="landlock_create_ruleset landlock_add_rule landlock_restrict_self" --boot
"""

# $1: name. The cgroups of a host that has ended.
REMOVE_SCRIPT = f"""
{MOUNT_CGROUPS}
[ ! -d "/sys/fs/cgroup/$1" ] || find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {{}} +
"""

_numbers = itertools.count(1)


class NotYet(AssertionError):
    """A condition did not come true before its deadline."""


def wait_until(
    condition: Callable[[], T | None], what: str, *, deadline: float = 30.0, explain: Callable[[], str] | None = None
) -> T:
    """What ``condition`` returns as soon as that is true; ``NotYet`` with ``explain()`` after ``deadline`` seconds."""
    ends = time.monotonic() + deadline
    pause = 0.01
    while True:
        if result := condition():
            return result
        if time.monotonic() > ends:
            raise NotYet(f"{what}: not within {deadline:g} s" + (f"\n{explain()}" if explain else ""))
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


@dataclass(slots=True)
class Host:
    """A running host. ``leader`` is its init process as the outer machine numbers it."""

    name: str
    unshare: subprocess.Popen[bytes]
    leader: int
    console: IO[bytes]
    scratch: Path
    ended: bool = field(default=False)

    @property
    def root(self) -> Path:
        """The host's files, as the outer machine sees them. Absolute links in there lead out of the host."""
        return Path(f"/proc/{self.leader}/root")

    def path(self, inside: str | Path) -> Path:
        """A path of the host as the outer machine reaches it."""
        return self.root / str(inside).lstrip("/")

    def enter(self, *command: str, user: str = "root") -> list[str]:
        """The command line that runs a command on the host."""
        inside = list(command) if user == "root" else ["runuser", "-u", user, "--", *command]
        home = {} if user == "root" else {"HOME": f"/home/{user}"}
        environment = [f"{key}={value}" for key, value in (ENVIRONMENT | home).items()]
        # Its root as well as its mounts: whoever runs the tests in a chroot would be in the outer root otherwise.
        return ["nsenter", "-t", str(self.leader), "-a", "-r", "-w", "--", "env", "-i", *environment, *inside]

    def run(
        self, *command: str, user: str = "root", check: bool = True, stdin: str = "", deadline: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on the host to its end; an ``AssertionError`` with its output unless it ends with 0."""
        done = subprocess.run(
            self.enter(*command, user=user),
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=deadline,
        )
        if check and done.returncode:
            raise AssertionError(f"{shlex.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def write(self, inside: str | Path, content: str | bytes, *, mode: int = 0o644) -> None:
        """Writes a file on the host, owned by root; its directory is made where it is missing."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)

    def connect(self, port: int) -> socket.socket:
        """A connection to the host's loopback address, made from within its network namespace."""
        return self.in_network(lambda: socket.create_connection(("127.0.0.1", port), timeout=30))

    def in_network(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, run in a thread of its own in the host's network; its own threads are there too."""
        results: list[T] = []
        errors: list[BaseException] = []

        def enter() -> None:
            try:
                self.join_network()
                results.append(work())
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                errors.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def join_network(self) -> None:
        """Moves the calling thread, and it alone, into the host's network for good."""
        # os.setns() came with Python 3.12.
        libc = ctypes.CDLL(None, use_errno=True)
        namespace = os.open(f"/proc/{self.leader}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(namespace, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(namespace)

    def processes(self) -> Iterator[tuple[int, str, str]]:
        """The host's processes: the outer machine's process id, name and state letter."""
        namespace = os.readlink(f"/proc/{self.leader}/ns/pid")
        for pid in (entry for entry in os.listdir("/proc") if entry.isdigit()):
            try:
                if os.readlink(f"/proc/{pid}/ns/pid") != namespace:
                    continue
                name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(") ")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it ended while we looked, or belongs to what this machine itself runs in
            yield int(pid), name, rest[0]

    def console_text(self) -> str:
        """What the host wrote to its console."""
        self.console.seek(0)
        return self.console.read().decode(errors="replace")

    def power_off(self) -> None:
        """Ends the host in order, or by force past a deadline. May be called again."""
        if self.ended:
            return
        self.ended = True
        for nspawn in _children(self.unshare.pid):
            os.kill(nspawn, signal.SIGTERM)  # it tells the host's systemd to halt
        try:
            self.unshare.wait(SHUTDOWN_DEADLINE)
        except subprocess.TimeoutExpired:
            self.unshare.kill()
            self.unshare.wait()
        self.console.close()
        remove_scratch(self.scratch)


def boot(base: Path) -> Host:
    """Boots a host on a fresh overlay over ``base``; returns once systemd has started everything it has to."""
    scratch = make_scratch()
    console = tempfile.TemporaryFile()  # noqa: SIM115 - the host closes it
    # The shell becomes nspawn and is the first process of the namespace.
    unshare = subprocess.Popen(
        [*CONTAINED, "sh", "-c", BOOT_SCRIPT, "boot", str(base), str(scratch)],
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=subprocess.STDOUT,
    )
    host = Host(scratch.name, unshare, 0, console, scratch)
    try:
        host.leader = wait_until(lambda: _find_leader(unshare), "nspawn's init process", deadline=BOOT_DEADLINE)
        state = wait_until(lambda: _settled(host), "systemd has started", deadline=BOOT_DEADLINE)
        assert state == "running", host.run("systemctl", "--failed", "--no-legend").stdout
    except BaseException as error:
        error.add_note(host.console_text())
        host.power_off()
        raise
    return host


@contextlib.contextmanager
def booted(base: Path) -> Iterator[Host]:
    """A host for as long as the block lasts."""
    host = boot(base)
    try:
        yield host
    finally:
        host.power_off()


def sweep() -> None:
    """Removes what hosts of test runs that were killed have left: an empty directory and empty cgroups each."""
    for scratch in CACHE.glob(f"{PREFIX}*"):
        if not Path(f"/proc/{scratch.name.removeprefix(PREFIX).partition('-')[0]}").exists():
            remove_scratch(scratch)


def make_scratch() -> Path:
    """An empty directory to mount on, whose name is also that of a cgroup; outside the checkout."""
    scratch = CACHE / f"{PREFIX}{os.getpid()}-{next(_numbers)}"
    scratch.mkdir(parents=True)
    return scratch


def remove_scratch(scratch: Path) -> None:
    """Removes the directory and the cgroup of its name, once everything in there has ended."""

    def remove() -> bool:
        command = [*OWN_MOUNTS, "sh", "-c", REMOVE_SCRIPT, "remove", scratch.name]
        done.append(subprocess.run(command, text=True, capture_output=True))
        return done[-1].returncode == 0

    # Some kernels let go of a cgroup only a while after its last process was waited for: EBUSY.
    done: list[subprocess.CompletedProcess[str]] = []
    wait_until(remove, f"{scratch.name} is removed", explain=lambda: done[-1].stderr)
    scratch.rmdir()


def _find_leader(unshare: subprocess.Popen[bytes]) -> int | None:
    """nspawn's child that has become the host's systemd."""
    if unshare.poll() is not None:
        raise AssertionError(f"nspawn ended with {unshare.returncode}")
    for nspawn in _children(unshare.pid):
        for child in _children(nspawn):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    return child
    return None


def _children(pid: int) -> Sequence[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _settled(host: Host) -> str | None:
    """The state of the host's systemd once it is one that lasts."""
    state = host.run("systemctl", "is-system-running", check=False).stdout.strip()
    return state if state in ("running", "degraded") else None

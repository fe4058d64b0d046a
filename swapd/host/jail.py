"""The jail of a process that reads what came from outside: each layer where this host and our rights allow it.

Which layers there are depends on who we are. As root with every capability, as `swapd deploy` has it: all. In the
unit, whose capabilities are few: no chroot, and root's uid, without any capability. Without root: Landlock and limits.
A layer that cannot be had is left out and said, never all of them for the sake of one.
"""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from swapd.host import landlock, linux

# From here on no system gives uids away (systemd's "Users, Groups, UIDs and GIDs"). Each process gets one of its own by
# its pid: what belongs to a uid that others have too, such as nobody's, could be changed by them.
FIRST_UID = 2_000_000_000
MAX_DESCRIPTORS = 256  # one for each directory down to the deepest, and a few more

# What an extraction needs below its staging directory; not: reading files, devices, pipes, sockets, executing.
WRITING = (
    landlock.READ_DIR
    | landlock.WRITE_FILE
    | landlock.MAKE_REG
    | landlock.MAKE_DIR
    | landlock.MAKE_SYM
    | landlock.REMOVE_FILE
    | landlock.REMOVE_DIR
    | landlock.REFER
)
READING = landlock.READ_FILE
EXECUTING = landlock.READ_FILE | landlock.READ_DIR | landlock.EXECUTE
# What a program is made of: itself, its libraries, and the list of where these are.
PROGRAM_DIRECTORIES = ("/usr", "/lib", "/lib64", "/bin")
PROGRAM_FILES = ("/etc/ld.so.cache",)


@dataclass(frozen=True, slots=True)
class Confinement:
    """What one process is allowed. Descriptors are those of the process that enters."""

    tree: int | None = None  # the directory below which it may write, and which becomes its root
    rights: Mapping[int, int] = field(default_factory=dict)  # further files and directories, with Landlock's rights
    limits: Mapping[int, int] = field(default_factory=dict)  # by RLIMIT_ number
    keeps_user: bool = False  # for a program that looks its user up, and does nothing for one that has no name


class Layers(dict[str, str]):
    """By layer why it is not in force, or nothing where it is."""

    @property
    def in_force(self) -> list[str]:
        """The layers that are."""
        return [name for name, why_not in self.items() if not why_not]

    @property
    def is_confined(self) -> bool:
        """Whether at least one of the layers holds that keep it away from other files."""
        return not self["landlock"] or not self["chroot"]

    def __str__(self) -> str:
        missing = ", ".join(f"{name} ({why_not})" for name, why_not in self.items() if why_not)
        return f"{', '.join(self.in_force)}; without {missing}" if missing else ", ".join(self.in_force)

    def attempt(self, name: str, enter: Callable[[], object]) -> None:
        """Enters a layer where that is possible."""
        try:
            enter()
        except (OSError, ValueError) as error:  # ValueError: a limit above one that is in force
            self[name] = getattr(error, "strerror", None) or str(error)
        else:
            self[name] = ""


def enter(confinement: Confinement, parent: int) -> Layers:
    """This process, which has one thread, is in the jail from here on, and dies with the process ``parent``."""
    tree = confinement.tree
    layers = Layers()
    layers.attempt("limits", lambda: _limit(confinement.limits))
    layers.attempt("network", lambda: linux.unshare(linux.CLONE_NEWNET))
    if tree is not None:
        layers.attempt("chroot", lambda: _change_root(tree))
    else:
        layers["chroot"] = "needs other files"
    # While there still are the capabilities for it.
    layers.attempt("bounding-set", linux.drop_bounding_set)
    if confinement.keeps_user:
        # Not nobody's: whatever else runs as nobody could trace it, and say in its place what it finds.
        layers["uid"] = "needs a user that has a name"
    else:
        layers.attempt("uid", lambda: _change_user(tree))
    layers.attempt("capabilities", linux.drop_capabilities)
    layers.attempt("no-new-privs", linux.prctl_set_no_new_privs)
    rights = dict(confinement.rights) | ({} if tree is None else {tree: WRITING})
    layers.attempt("landlock", lambda: landlock.restrict(rights))
    # Last, because each change of credentials takes it away.
    layers.attempt("dies-with-parent", lambda: linux.prctl_set_pdeathsig(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)
    return layers


def program_rights(program: str, readable: Iterable[str] = ()) -> dict[int, int]:
    """Landlock's rights for executing this program, which may read these files, and what is below these directories.

    What is not there is left out. The descriptors are closed when the program is executed.
    """
    rights = {}
    for path in (*PROGRAM_DIRECTORIES, os.path.dirname(program)):
        with suppress(FileNotFoundError):
            rights[os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)] = EXECUTING
    for path in (*PROGRAM_FILES, *readable):
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            rights[descriptor] = READING | landlock.READ_DIR if is_directory else READING
    with suppress(FileNotFoundError):
        rights[os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)] = READING | landlock.WRITE_FILE
    return rights


def forbid_processes() -> None:
    """No further process or thread, for any uid but root's; once every thread that is needed runs."""
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


class MemorySize(NamedTuple):
    """Of this process, in bytes."""

    resident: int
    data: int  # as RLIMIT_DATA counts


def memory_size() -> MemorySize:
    """What this process has now."""
    with open("/proc/self/statm", "rb") as statm:
        pages = statm.read().split()
    return MemorySize(int(pages[1]) * resource.getpagesize(), int(pages[5]) * resource.getpagesize())


def _limit(limits: Mapping[int, int]) -> None:
    standing = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: MAX_DESCRIPTORS}
    for kind, wanted in {**standing, **limits}.items():
        _, most = resource.getrlimit(kind)
        limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(kind, (limit, limit))


def _change_root(tree: int) -> None:
    os.fchdir(tree)
    os.chroot(".")
    os.chdir("/")


def _change_user(tree: int | None) -> None:
    own = FIRST_UID + os.getpid()
    os.setgroups([])
    os.setresgid(own, own, own)
    if tree is not None:
        os.fchown(tree, own, own)
    os.setresuid(own, own, own)

"""Every raw system call that Python's standard library does not have, each under the name the kernel gives it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
# Looked up here, because the first look takes 40 µs, and the first call is made while httpd is stopped.
_renameat2 = _libc.renameat2
_renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)

AT_FDCWD = -100
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
FICLONE = 0x40049409  # _IOW(0x94, 9, int), linux/fs.h
FIDEDUPERANGE = 0xC0189436  # _IOWR(0x94, 54, struct file_dedupe_range)
FILE_DEDUPE_RANGE_DIFFERS = 1
PR_SET_PDEATHSIG, PR_SET_NAME, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 15, 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL, PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 4, 36, 37
LAST_CAPABILITY = 63  # of which a kernel has the first 41 or so, and says EINVAL to the others
CAP_SYS_PTRACE = 19
CLONE_NEWNET = 0x40000000
STATX_BTIME = 0x800
SYNC_FILE_RANGE_WAIT_BEFORE = 1
TMPFS_MAGIC, RAMFS_MAGIC, OVERLAYFS_SUPER_MAGIC = 0x01021994, 0x858458F6, 0x794C7630  # linux/magic.h
NETWORK_FILESYSTEMS = frozenset({0x6969, 0xFF534D42, 0xFE534D42, 0x5346414F, 0x00C36400})  # NFS, SMB, AFS, Ceph
MCL_CURRENT, MCL_ONFAULT = 1, 4


def _check(result: int, operation: str, *paths: str) -> None:
    if result == -1:
        number = ctypes.get_errno()
        error = OSError(number, f"{operation}: {os.strerror(number)}", *paths[:1])
        if len(paths) > 1:
            error.filename2 = paths[1]
        raise error


def renameat2(old: str, new: str, flags: int, *, old_dir: int = AT_FDCWD, new_dir: int = AT_FDCWD) -> None:
    """rename(2) with flags; ``OSError`` as the manual page lists them, EINVAL where the filesystem has no such flag."""
    # glibc has the wrapper since 2.28; ctypes lets the interpreter lock go during the call.
    _check(_renameat2(old_dir, os.fsencode(old), new_dir, os.fsencode(new), flags), "renameat2", old, new)


def syncfs(descriptor: int) -> None:
    """Writes the whole filesystem of ``descriptor`` through to its disk."""
    _check(_libc.syncfs(descriptor), "syncfs")


def sync_file_range(descriptor: int, offset: int, count: int, flags: int) -> None:
    """With ``SYNC_FILE_RANGE_WAIT_BEFORE``: waits for what of that range is being written back, and begins nothing.

    Raises what writing back any part of the file met since ``descriptor`` was opened.
    """
    _check(_libc.sync_file_range(descriptor, ctypes.c_int64(offset), ctypes.c_int64(count), flags), "sync_file_range")


def fstatfs_type(descriptor: int) -> int:
    """The magic number of the file's filesystem, statfs(2), which statvfs(3) leaves out."""
    buffer = ctypes.create_string_buffer(256)  # struct statfs begins with f_type, a machine word
    _check(_libc.fstatfs(descriptor, buffer), "fstatfs")
    return int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder) & 0xFFFFFFFF


def mounted_filesystem(descriptor: int) -> str:
    """The type of the file's filesystem as mount(8) names it, such as ``ext4``, ``nfs4`` or ``fuse.sshfs``.

    Asks no server, as statfs(2) would. Empty where the mount is not in our mount namespace any more.
    """
    number = next(line.split()[1] for line in _lines(f"/proc/self/fdinfo/{descriptor}") if line.startswith(b"mnt_id:"))
    for line in _lines("/proc/self/mountinfo"):
        # proc(5): the mount's number comes first; the type after a lone hyphen, which ends a list of unknown length.
        mount, _, filesystem = line.partition(b" - ")
        if mount.split(b" ", 1)[0] == number:
            return os.fsdecode(filesystem.split(b" ", 1)[0])
    return ""


def _lines(path: str) -> list[bytes]:
    return Path(path).read_bytes().splitlines()


def statx_birth(path: str) -> int:
    """When the file's inode was made, in nanoseconds since the epoch; 0 where the filesystem does not keep it.

    An inode's number is given away again, often at once; number and birth together are not.
    """
    buffer = ctypes.create_string_buffer(256)  # struct statx, linux/stat.h: stx_mask at 0, stx_btime at 80
    _check(_libc.statx(AT_FDCWD, os.fsencode(path), 0, STATX_BTIME, buffer), "statx", path)
    mask = int.from_bytes(buffer.raw[:4], sys.byteorder)
    seconds, nanoseconds = struct.unpack_from("qI", buffer.raw, 80)
    return int(seconds * 1_000_000_000 + nanoseconds) if mask & STATX_BTIME else 0


def prctl_set_name(name: str) -> None:
    """The calling thread's name in ``/proc/PID/comm``, cut by the kernel to 15 bytes."""
    _check(_libc.prctl(PR_SET_NAME, name.encode(), 0, 0, 0), "prctl")


def prctl_set_pdeathsig(number: int) -> None:
    """The kernel sends this process that signal when the thread that forked it ends; until credentials change."""
    _prctl(PR_SET_PDEATHSIG, number)


def prctl_set_no_new_privs() -> None:
    """No program that this process executes gets more than it has; cannot be taken back."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def prctl_set_child_subreaper(is_one: bool) -> bool:
    """Whether what children leave behind when they end becomes ours and not init's; returns whether it did before."""
    before = ctypes.c_int()
    _check(_libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(before)), "prctl")
    _prctl(PR_SET_CHILD_SUBREAPER, int(is_one))
    return bool(before.value)


def drop_bounding_set() -> None:
    """No capability can come back by executing a program; needs CAP_SETPCAP."""
    for capability in range(LAST_CAPABILITY + 1):
        try:
            _prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return


def drop_capabilities() -> None:
    """Gives up every capability of the calling thread: effective, permitted, inheritable and ambient."""
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, linux/capability.h; the caller
    _check(_libc.capset(header, bytes(24)), "capset")


def may_ptrace() -> bool:
    """Whether this process has CAP_SYS_PTRACE, without which much of what /proc tells of others is not for it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    return bool(effective >> CAP_SYS_PTRACE & 1)


def unshare(flags: int) -> None:
    """unshare(2), which Python has from 3.12 on."""
    _check(_libc.unshare(flags), "unshare")


def _prctl(option: int, argument: int) -> None:
    # The kernel takes five unsigned longs, and some options must find zeros in those that they do not use.
    _check(_libc.prctl(option, ctypes.c_ulong(argument), *[ctypes.c_ulong(0)] * 3), "prctl")


def ficlone(destination: int, source: int) -> bool:
    """Makes ``destination`` share all of ``source``'s blocks; False where the filesystem cannot."""
    try:
        fcntl.ioctl(destination, FICLONE, source)
    except OSError as error:
        # Btrfs and XFS can; the others answer one of these, EXDEV across filesystems.
        if error.errno in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ETXTBSY):
            return False
        raise
    return True


def copy_file_range(source: int, destination: int, length: int) -> int:
    """Copies up to so many bytes, from and to where the two stand, in the kernel or on a file server; how many.

    0 at the end of ``source``, and where it cannot: across most filesystems, or below one that is not meant for files.
    """
    try:
        return os.copy_file_range(source, destination, length)
    except OSError as error:
        # EPERM: a filter of system calls that does not know it.
        if error.errno in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM):
            return 0
        raise


def fideduperange(source: int, destination: int, offset: int, length: int) -> int:
    """How many bytes from ``offset`` the two files share after this; 0 where they differ. ``OSError`` as the page says.

    ioctl_fideduperange(2). Up to the end of both, ``length`` may be anything; else it is a multiple of the block size.
    """
    # struct file_dedupe_range with one file_dedupe_range_info: source offset and length, count; then destination,
    # its offset, bytes that were shared, and a status.
    request = bytearray(struct.pack("QQHHIqQQiI", offset, length, 1, 0, 0, destination, offset, 0, 0, 0))
    fcntl.ioctl(source, FIDEDUPERANGE, request)
    shared, status = struct.unpack_from("Qi", request, 40)
    if status < 0:
        raise OSError(-status, f"FIDEDUPERANGE: {os.strerror(-status)}")
    return 0 if status == FILE_DEDUPE_RANGE_DIFFERS else int(shared)


# What a lease means there is the server's business: without a delegation from it, every request for one is answered
# EAGAIN (nfs4_proc_setlease, cifs_setlease), as elsewhere only where somebody has the file open.
LEASED_BY_SERVER = frozenset({"nfs", "nfs4", "cifs", "smb3"})


def has_writer(descriptor: int) -> bool | None:
    """Whether somebody on this machine has the file open for writing; None where it cannot be known.

    A read lease is granted only when nobody has (fcntl(2)); it needs the file's owner or CAP_LEASE, and is given
    back at once.
    """
    # Who opens the file in between makes the kernel send SIGIO, which ends a process; SIGURG does nothing to it.
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN and mounted_filesystem(descriptor) not in LEASED_BY_SERVER:
            return True
        return None
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def boot_id() -> str:
    """What tells this boot from every other."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def settle_process() -> None:
    """What every process of swapd's that deploys begins with: its umask and its limit of descriptors."""
    os.umask(0o022)  # releases, records and markers are for others to read; what is private is made so explicitly
    # Two descriptors for each paused process; a shell's soft limit of 1024 is for programs that use select(2).
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def mount_points() -> list[str]:
    """Every mount point in this process's mount namespace."""
    return [place for place, _ in mounts()]


def mounts() -> list[tuple[str, str]]:
    """The same with the type of what is mounted there, as ``mounted_filesystem`` has it; a later one hides another."""
    # The fifth field of proc(5)'s mountinfo, with octal escapes for blanks and backslashes.
    found = [line.partition(b" - ") for line in _lines("/proc/self/mountinfo")]
    return [
        (os.fsdecode(mount.split(b" ")[4].decode("unicode_escape").encode("latin-1")), os.fsdecode(rest.split(b" ")[0]))
        for mount, _, rest in found
    ]


# Resuming 400 processes that all want the processor at once takes 72 ms at nice 0, and 8 ms at nice -10.
NICENESS = -10


def take_precedence() -> None:
    """From now on this process comes before httpd's, where we may (RLIMIT_NICE)."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)


@contextlib.contextmanager
def memory_locked() -> Iterator[bool]:
    """Nothing that this process has in memory now is taken out of it within; False where that is not allowed.

    Allowed with CAP_IPC_LOCK, or with an RLIMIT_MEMLOCK above all that the process has mapped (mlockall(2)). Not
    MCL_FUTURE: under a limit, an allocation within could then fail.
    """
    is_locked = _libc.mlockall(MCL_CURRENT | MCL_ONFAULT) == 0
    try:
        yield is_locked
    finally:
        if is_locked:
            _libc.munlockall()

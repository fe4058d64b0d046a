"""Files that survive a power cut, locks that a crash releases, trees removed without following links."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from swapd.host.linux import statx_birth
from swapd.model.errors import Busy, Rejected
from swapd.model.record import TreeIdentity
from swapd.model.release import OWN, Fingerprint, printable

HEAD = b"# swapd: "
REMOVING = ".removing-"  # what is on its way out; a crash may leave it, and a sweep takes it


def fingerprint(status: os.stat_result) -> Fingerprint:
    """What tells this state of a file from another."""
    return Fingerprint(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@contextlib.contextmanager
def closing_descriptor(descriptor: int) -> Iterator[int]:
    """Closes the descriptor at the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def has_entry(directory: int, name: str) -> bool:
    """Whether something of that name is in the open directory; a link is, wherever it leads. Raises ``OSError``."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """All of it, however little a single call takes. Raises ``OSError``."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextlib.contextmanager
def opened(directory: int, name: str) -> Iterator[tuple[int, os.stat_result]]:
    """Opens a regular file without following a link or waking a device; ``Rejected`` when it is anything else."""
    with closing_descriptor(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)) as path:
        mode = os.fstat(path).st_mode
        if not stat.S_ISREG(mode):
            raise Rejected.because(
                "not-a-regular-file",
                f"{printable(name)} is {_kind(mode)}, not a regular file",
                "Remove it and upload the file itself.",
            )
        # Without O_NONBLOCK, a lease that the file's owner holds would keep us waiting.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        with closing_descriptor(os.open(f"/proc/self/fd/{path}", flags)) as descriptor:
            yield descriptor, os.fstat(descriptor)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


@contextlib.contextmanager
def opened_directory(path: str | Path) -> Iterator[int]:
    """Opens a directory; links are followed."""
    with closing_descriptor(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as descriptor:
        yield descriptor


def identify(path: str | Path) -> TreeIdentity:
    """Which directory the path leads to. Raises ``OSError``."""
    status = os.stat(path)
    return TreeIdentity(status.st_dev, status.st_ino, statx_birth(str(path)))


def is_tree(path: str | Path, identity: TreeIdentity) -> bool:
    """Whether the path leads to that very directory.

    Device numbers are not compared: they may change with a restart of the machine, and a swap never leaves the one
    filesystem. The birth is, where the filesystem keeps it: an inode's number is given away again.
    """
    try:
        found = identify(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return found.inode == identity.inode and (
        not found.birth_ns or not identity.birth_ns or found.birth_ns == identity.birth_ns
    )


def fsync_directory(path: Path) -> None:
    """After this, names made, renamed or removed in the directory survive a power cut."""
    with opened_directory(path) as descriptor:
        os.fsync(descriptor)


def write_durably(path: Path, content: bytes, mode: int = 0o644, *, through: bool = True) -> None:
    """Replaces the file as a whole: after a crash it has the old or the new content, after the return the new.

    Without ``through`` a power cut may still bring the old one back. ``OSError`` names the file, whichever step failed.
    """
    try:
        _write_durably(path, content, mode, through=through)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error


def _write_durably(path: Path, content: bytes, mode: int, *, through: bool) -> None:
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # where nothing can be written, nothing may be removed either
            os.unlink(temporary)
        raise
    if through:
        fsync_directory(path.parent)


def is_writable(directory: Path) -> bool:
    """Whether a file can be made there, renamed, and written through to the disk: tried out."""
    name = f"{OWN}probe.toml.{os.urandom(4).hex()}"  # which every sweep takes that a crash leaves it to
    path, renamed = directory / name, directory / f"{name}.new"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with closing_descriptor(descriptor):
            write_all(descriptor, b"probe\n")
            os.fsync(descriptor)
        os.rename(path, renamed)
    except OSError:
        return False
    finally:
        for left in (path, renamed):
            with contextlib.suppress(OSError):
                os.unlink(left)
    return True


def sweep_temporaries(directory: Path) -> None:
    """Removes what a crash left of ``write_durably``; for whoever alone writes there."""
    for path in directory.glob(".*.toml.*"):
        path.unlink(missing_ok=True)


def write_document(path: Path, document: Mapping[str, Any], *, through: bool = True) -> None:
    """A TOML document, written as ``write_durably`` does. Its first line lets ``is_cut_short`` tell a part from it."""
    text = tomli_w.dumps(document).encode()
    write_durably(path, b"%s%d bytes follow\n%s" % (HEAD, len(text), text), through=through)


def is_cut_short(text: bytes) -> bool:
    """Whether the end of a document is missing: what is left of a TOML document often is one."""
    first, _, rest = text.partition(b"\n")
    if not first.startswith(HEAD):
        return False  # older versions did not say
    number = first.removeprefix(HEAD).partition(b" ")[0]
    return not number.isdigit() or len(rest) < int(number)


@contextlib.contextmanager
def locked(path: Path, what: str, patience: float = 0.0, gives_up: Callable[[], bool] = lambda: False) -> Iterator[int]:
    """Holds an flock on the file, which a crash of the holder releases; the descriptor, for a child to hold it, too.

    Raises ``Busy`` (naming ``what``) when somebody else still holds it after ``patience`` seconds, or once
    ``gives_up`` says so.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline or gives_up():
                    raise Busy(
                        "busy", f"{what} is under way in another process", "Try again when it has ended."
                    ) from None
                time.sleep(0.02)
        yield descriptor
    finally:
        os.close(descriptor)


def set_aside(parent: int, name: str) -> None:
    """Gives an entry of ``parent`` a name by which a prune removes it later; what is not there is fine."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(name, f"{REMOVING}{os.urandom(8).hex()}", src_dir_fd=parent, dst_dir_fd=parent)


def remove_tree(parent: int, name: str) -> None:
    """Removes a file, a link or a whole tree below the directory ``parent``; what is not there is fine.

    Follows no link, and goes as deep as the tree does with two descriptors: each directory that is met is first
    moved up to ``parent``, so that depth costs neither recursion nor descriptors.
    """
    waiting = [name]
    while waiting:
        entry = waiting.pop()
        try:
            if not stat.S_ISDIR(os.stat(entry, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(entry, dir_fd=parent)
                continue
        except FileNotFoundError:
            continue
        descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            with os.scandir(descriptor) as listing:
                items = [(item.name, item.is_dir(follow_symlinks=False)) for item in listing]
            for item, is_directory in items:
                if is_directory:
                    waiting.append(_move_up(item, descriptor, parent))
                else:
                    os.unlink(item, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        os.rmdir(entry, dir_fd=parent)


def _move_up(name: str, directory: int, parent: int) -> str:
    """Moves a directory that is being removed up to ``parent``; its name there."""
    moved = f"{REMOVING}{os.urandom(8).hex()}"
    try:
        os.rename(name, moved, src_dir_fd=directory, dst_dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # Even a rename takes room on btrfs, at the end of the disk or of a quota; an unlink may always be done there.
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        with closing_descriptor(os.open(name, flags, dir_fd=directory)) as descriptor:
            for item in os.listdir(descriptor):
                if not stat.S_ISDIR(os.stat(item, dir_fd=descriptor, follow_symlinks=False).st_mode):
                    os.unlink(item, dir_fd=descriptor)
        os.rename(name, moved, src_dir_fd=directory, dst_dir_fd=parent)
    return moved

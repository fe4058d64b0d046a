"""Which renames a filesystem can do: tried beforehand with scratch directories in the real places, and looked at.

Facts that this rests on:

- rename(2) is refused with EXDEV across filesystems, and across two mounts of one filesystem, such as two bind mounts
  or two ``ReadWritePaths=`` of a sandbox; the device numbers are then the same.
- A filesystem without RENAME_EXCHANGE says EINVAL. Some FUSE filesystems report success and do a plain rename, which
  destroys the target, or nothing at all.
- After that success the kernel exchanges the two names in its own cache, and may answer stat(2) from there, as if all
  were well. So what the directories hold is listed as well, which asks the filesystem.
- overlayfs refuses to rename a directory that is in a lower layer, or has something there (EXDEV), unless it is mounted
  with ``redirect_dir=on``. A scratch directory is in the upper layer, and tells nothing about the live one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from swapd.host.files import opened_directory, remove_tree
from swapd.host.linux import OVERLAYFS_SUPER_MAGIC, RENAME_EXCHANGE, fstatfs_type, renameat2

TRIES = 3  # before a failure is believed: somebody who sweeps what crashes left may take our directories for that
LIES = "the filesystem reports success and does something else"
LACKS = "the filesystem has no such operation"
# What says something about the place; any other error is one of this host's, and no reason for another strategy.
REFUSALS = {
    errno.EXDEV: "they are on two mounts, be it of one filesystem",
    errno.EINVAL: LACKS,
    errno.ENOSYS: LACKS,
    errno.EOPNOTSUPP: LACKS,
}


def find_rename_obstacle(source: Path, target: Path, prefix: str) -> str | None:
    """Why a directory cannot be renamed from ``source`` into ``target``, or None. Nothing is left of the trial.

    Raises ``OSError`` when no trial can be made.
    """
    return _try(_rename, source, target, prefix)


def find_exchange_obstacle(source: Path, target: Path, prefix: str) -> str | None:
    """Why a directory in ``source`` cannot be exchanged with one in ``target``, or None; as above."""
    return _try(_exchange, source, target, prefix)


def is_in_lower_layer(tree: Path, prefix: str) -> bool:
    """Whether an overlay filesystem would refuse to rename this directory, whatever it does with new ones.

    Asked by a rename that cannot succeed, onto a directory that is not empty: where this is an overlay, which refuses
    for the one reason before it does for the other. Raises ``OSError`` when no trial can be made.
    """
    with opened_directory(tree) as descriptor:
        if fstatfs_type(descriptor) != OVERLAYFS_SUPER_MAGIC:
            return False
    with _scratch(tree.parent, tree.parent, prefix) as (_, other):
        try:
            os.rename(tree, other)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            if error.errno == errno.EXDEV:
                return True
            raise
    raise AssertionError(f"{tree} was renamed onto a directory that is not empty")


def _try(trial: Callable[[Path, Path], bool], source: Path, target: Path, prefix: str) -> str | None:
    for left in reversed(range(TRIES)):
        try:
            with _scratch(source, target, prefix) as (one, other):
                if trial(one, other):
                    return None
        except FileNotFoundError:
            if not left:
                raise
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            return REFUSALS[error.errno]
    return LIES


@contextlib.contextmanager
def _scratch(source: Path, target: Path, prefix: str) -> Iterator[tuple[Path, Path]]:
    """A directory in each place, with a file in it that tells which it is; and nothing is left of them."""
    token = secrets.token_hex(4)
    one, other = source / f"{prefix}{token}-one", target / f"{prefix}{token}-other"
    try:
        for path in (one, other):
            _make(path)
        yield one, other
    finally:
        for place in {source, target}:
            with opened_directory(place) as descriptor:
                remove_tree(descriptor, one.name)
                remove_tree(descriptor, other.name)


def _make(path: Path) -> None:
    try:
        path.mkdir(mode=0o700)
        (path / path.name).touch(mode=0o600)
    except OSError as error:
        error.filename = str(path.parent)  # the place is what somebody may be able to do something about
        raise


def _rename(one: Path, other: Path) -> bool:
    """Into the other's place, beside it; whether that was done."""
    inode, moved = one.stat().st_ino, other.with_name(one.name)
    if moved == one:
        return True  # within one directory: whoever could make it could rename it
    os.rename(one, moved)
    return not os.path.lexists(one) and _is(moved, inode, one.name)


def _exchange(one: Path, other: Path) -> bool:
    inodes = one.stat().st_ino, other.stat().st_ino
    renameat2(str(one), str(other), RENAME_EXCHANGE)
    return _is(one, inodes[1], other.name) and _is(other, inodes[0], one.name)


def _is(path: Path, inode: int, name: str) -> bool:
    """Whether this is the scratch directory that was made under the name, as the filesystem itself has it."""
    try:
        return path.stat().st_ino == inode and os.listdir(path) == [name]
    except (FileNotFoundError, NotADirectoryError):
        return False

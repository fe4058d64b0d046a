"""Two trees side by side: a new one, which is ours, and the live one, whose owner may change it meanwhile.

Nothing of either is opened through a link or by a path that the live tree's owner could turn elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from swapd.host.files import closing_descriptor

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def walk_beside(tree: int, live: int | None) -> Iterator[tuple[int, int | None, list[os.DirEntry[str]]]]:
    """Every directory of ``tree`` from the top down, with what is in it, and the live one of the same path, if any.

    Descriptors are open until the next step. As deep as the tree is, which its extraction limits.
    """
    with os.scandir(tree) as listing:
        entries = list(listing)
    yield tree, live, entries
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            beside = _find_directory(live, entry.name)
            try:
                with closing_descriptor(os.open(entry.name, _DIRECTORY, dir_fd=tree)) as below:
                    yield from walk_beside(below, beside)
            finally:
                if beside is not None:
                    os.close(beside)


def _find_directory(parent: int | None, name: str) -> int | None:
    if parent is None:
        return None
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None


def find_live(path: str | os.PathLike[str]) -> int | None:
    """A new descriptor of the live tree, which the live path may be a link to; None where there is none."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None

"""Two trees side by side: one to be walked over, and another with the same paths, such as the live one.

Whoever owns them may change them meanwhile, and swapd is root: nothing of either is opened through a link, or by a path
that somebody could turn elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEP = (
    64  # levels whose descriptors are open at the same time; a directory below these is opened from the last of them
)

Step = tuple[int, int | None, list[os.DirEntry[str]]]


def walk_beside(tree: int, other: int | None, *, is_ours: bool = True, level: int = 0) -> Iterator[Step]:
    """Every directory of ``tree`` from the top down, with what is in it, and the other one of the same path, if any.

    Descriptors are open until the next step. As deep as the tree is: neither the stack nor the descriptors of a process
    have to be. In a tree that ``is_ours`` what vanishes is an ``OSError``; from another it is left out.
    """
    with os.scandir(tree) as listing:
        entries = list(listing)
    yield tree, other, entries
    waiting = _directories(entries, ())
    while waiting:
        inner = waiting.pop()
        try:
            below = _open_below(tree, inner)
        except (FileNotFoundError, NotADirectoryError):
            if is_ours:
                raise
            continue
        beside = None
        try:
            beside = _find_below(other, inner)
            if level < _DEEP:
                yield from walk_beside(below, beside, is_ours=is_ours, level=level + 1)
            else:
                with os.scandir(below) as listing:
                    entries = list(listing)
                yield below, beside, entries
                waiting += _directories(entries, inner)
        finally:
            os.close(below)
            if beside is not None:
                os.close(beside)


def _directories(entries: Sequence[os.DirEntry[str]], inner: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Where the directories among them are, which are in the directory ``inner``; the first one last."""
    return [(*inner, entry.name) for entry in reversed(entries) if entry.is_dir(follow_symlinks=False)]


def _open_below(top: int, inner: tuple[str, ...]) -> int:
    """The directory of this path below ``top``, opened one component at a time. Raises ``OSError``."""
    descriptor = top
    for name in inner:
        try:
            below = os.open(name, _DIRECTORY, dir_fd=descriptor)
        finally:
            if descriptor != top:
                os.close(descriptor)
        descriptor = below
    return descriptor


def _find_below(top: int | None, inner: tuple[str, ...]) -> int | None:
    if top is None:
        return None
    try:
        return _open_below(top, inner)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None


def find_live(path: str | os.PathLike[str]) -> int | None:
    """A new descriptor of the live tree, which the live path may be a link to; None where there is none."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None

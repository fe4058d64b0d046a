"""Trees as values, to be compared."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """What one name in a tree is. ``content`` is a file's bytes or a link's target."""

    kind: str
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    content: bytes = b""


def snapshot(root: Path, *, times: bool = True) -> dict[str, Entry]:
    """Every name in the tree, the root itself (as ``.``) included; links are not followed."""
    entries = {name: _entry(root / name) for name in (".", *_names(root))}
    return entries if times else {name: replace(entry, mtime_ns=0) for name, entry in entries.items()}


def _names(root: Path) -> list[str]:
    names = []
    for directory, directories, files in os.walk(root):
        names += [os.path.relpath(os.path.join(directory, name), root) for name in (*directories, *files)]
    return sorted(names)


def _entry(path: Path) -> Entry:
    status = path.lstat()
    kind = stat.filemode(status.st_mode)[0]
    content = b""
    if kind == "-":
        content = path.read_bytes()
    elif kind == "l":
        content = os.fsencode(os.readlink(path))
    return Entry(kind, stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid), status.st_mtime_ns, content)


def texts(root: Path) -> dict[str, str]:
    """The text of every regular file below ``root``, which may be a link to the tree."""
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def write_tree(root: Path, content: dict[str, str]) -> Path:
    """Makes the tree with these files."""
    for name, text in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    root.mkdir(parents=True, exist_ok=True)
    return root

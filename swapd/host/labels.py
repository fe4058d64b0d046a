"""SELinux labels: a new tree gets those of the live one, because they go by where a file is, and staging is elsewhere.

Facts that this rests on:

- restorecon(8) labels by path. Run on a staging tree it would give the labels of staging, and run after the swap it
  would be too late: what httpd may not read by its label is a 403.
- A file that is made takes its type from its directory. So does here what the live tree does not have.
- Setting security.selinux needs to own the file (or CAP_FOWNER) and the policy's relabelfrom and relabelto; and
  CAP_MAC_ADMIN only for a label that the policy does not know, which no file of the live tree has.
- A filesystem that is mounted with ``context=`` has one label for everything, and says EOPNOTSUPP.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from swapd.host.beside import find_live, walk_beside
from swapd.host.files import opened_directory
from swapd.model.errors import Failed
from swapd.model.release import printable
from swapd.model.room import UNTOUCHED

ATTRIBUTE = "security.selinux"
SELINUX = Path("/sys/fs/selinux/enforce")
_NO_LABEL = (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOENT, errno.ENOTDIR)


def has_labels(selinux: Path = SELINUX) -> bool:
    """Whether this system labels files: SELinux is there, in force or not."""
    return selinux.exists()


def label(tree: Path, live: Path, keep_going: Callable[[], None], attribute: str = ATTRIBUTE) -> int:
    """Gives everything in ``tree`` the label that the live tree has at the same path; how many it changed.

    What is new there, or of another kind, gets the label of the directory that it is in; without a live tree, that of
    where it will be. Nothing is changed where those have no labels. ``keep_going`` is called for each directory, and
    may raise. Raises ``Failed`` (``cannot-label``) when the policy or the filesystem forbids it.
    """
    old = find_live(live)
    with contextlib.ExitStack() as stack:
        if old is not None:
            stack.callback(os.close, old)
        new = stack.enter_context(opened_directory(tree))
        wanted = _read(str(live.parent) if old is None else f"/proc/self/fd/{old}/.", attribute)
        if wanted is None:
            return 0
        changed = int(_write(f"/proc/self/fd/{new}/.", attribute, wanted))
        for directory, beside, entries in walk_beside(new, old):
            keep_going()
            inherited = _read(f"/proc/self/fd/{directory}/.", attribute) or wanted
            for entry in entries:
                kept = None if beside is None else _find(entry, directory, beside, attribute)
                place = f"/proc/self/fd/{directory}/{entry.name}"
                changed += _write(place, attribute, kept or inherited)
        return changed


def label_like(path: Path, examples: Sequence[Path], attribute: str = ATTRIBUTE) -> None:
    """Gives one file the label of the first of the examples that has one. Raises ``Failed`` (``cannot-label``)."""
    wanted = next(filter(None, (_read(str(example), attribute) for example in examples)), None)
    if wanted is not None:
        _write(str(path), attribute, wanted)


def _find(entry: os.DirEntry[str], directory: int, beside: int, attribute: str) -> bytes | None:
    """The label of the entry's namesake in the live tree, if that is of the same kind."""
    try:
        kinds = {
            stat.S_IFMT(os.stat(entry.name, dir_fd=parent, follow_symlinks=False).st_mode)
            for parent in (directory, beside)
        }
    except FileNotFoundError:
        return None
    return _read(f"/proc/self/fd/{beside}/{entry.name}", attribute) if len(kinds) == 1 else None


def _read(path: str, attribute: str) -> bytes | None:
    try:
        return os.getxattr(path, attribute, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_LABEL:
            return None
        raise


def _write(path: str, attribute: str, wanted: bytes) -> bool:
    """Sets the label where it is another; whether it was."""
    if _read(path, attribute) == wanted:
        return False
    try:
        os.setxattr(path, attribute, wanted, follow_symlinks=False)
    except OSError as error:
        directory, name = os.path.split(path)
        place = os.path.realpath(directory)
        raise Failed(
            "cannot-label",
            f"{place}/{name} cannot be given the SELinux label {_shown(wanted)}: {error.strerror}",
            f"{UNTOUCHED} The policy must allow swapd's domain to relabel (see ausearch -m avc).",
        ) from error
    return True


def _shown(label: bytes) -> str:
    """A label is kept with the zero byte at its end."""
    return printable(os.fsdecode(label.rstrip(b"\0")))

"""Refresh: after a rollback, the files of a tree that was live before get new times.

Facts that this stage rests on:

- Visitors hold the files of the release that was live until now, with later times than those of the tree that is live
  again. httpd answers 304 to If-Modified-Since with a time that is not earlier than the file's, so they would keep the
  bad ones; a changed ETag helps only those who send If-None-Match, as browsers do and many proxies do not.
- PHP serves the code of a file with the same time from its cache: the trees' times must differ.
- A walk over 100,000 files takes a second and more; so it is done when the release is live, and the swap never waits
  for it. Times are no content: whoever has a file open notices nothing.
- The live tree may belong to the web application, which may change it meanwhile, and swapd is root.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from swapd.host.beside import find_live, walk_beside

_SECOND = 1_000_000_000  # HTTP's times have whole seconds: "later" must be so for If-Modified-Since, too


def refresh(tree: Path, previous: Path | None, keep_going: Callable[[], None]) -> None:
    """Everything in ``tree`` has a time of now, later than its namesake in ``previous`` has.

    What vanishes meanwhile is left out, links are followed nowhere. ``keep_going`` is called for each directory, and
    may raise. Can be done again. Raises ``OSError``.
    """
    with contextlib.ExitStack() as stack:
        root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        old = find_live(previous) if previous is not None else None
        if old is not None:
            stack.callback(os.close, old)
        now = time.time_ns()
        for directory, beside, entries in walk_beside(root, old, is_ours=False):
            keep_going()
            for entry in entries:
                _refresh(entry.name, directory, beside, now)
        os.utime(root, ns=(now, now))
        # On ext4 and XFS this takes along all that was changed before it.
        os.fsync(root)


def _refresh(name: str, directory: int, beside: int | None, now: int) -> None:
    then = now
    if beside is not None:
        with contextlib.suppress(FileNotFoundError):
            then = max(then, os.stat(name, dir_fd=beside, follow_symlinks=False).st_mtime_ns + _SECOND)
    with contextlib.suppress(FileNotFoundError):
        os.utime(name, ns=(then, then), dir_fd=directory, follow_symlinks=False)

"""A file for each site that says how far a deployment is, for everybody to read.

``/run/swapd/progress-SITE.json`` is there as long as a deployment is under way. Whoever shows a deployment's progress
writes it: the daemon for its workers, a command for itself. The deploying process itself makes no system call for it.

Why a file: the status line that systemd has is a sentence for people, has all sites in it, and is not there below
``--root``, nor for a command; the journal is not for everybody to read; the record is written through to the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from swapd.model.errors import Failed
from swapd.model.layout import Layout
from swapd.model.progress import Progress
from swapd.model.release import SiteName, Stage

INTERVAL = 0.25  # seconds between two writes within one stage


class ProgressFile:
    """What one process says of one site. That it cannot be said holds up no deployment."""

    def __init__(self, layout: Layout, site: SiteName) -> None:
        self._path = layout.progress(site)
        self._site = site
        self._shown: tuple[str, Stage] | None = None
        self._shown_at = 0.0
        self.begin()

    def begin(self) -> None:
        """The next deployment is about to begin."""
        self._begun = time.time()

    def show(self, file_name: str, stage: Stage, fraction: float | None, release: str) -> None:
        """Says it, unless much the same was said just now."""
        present = time.monotonic()
        if self._shown == (file_name, stage) and present - self._shown_at < INTERVAL:
            return
        self._shown, self._shown_at = (file_name, stage), present
        progress = Progress(self._site, os.getpid(), self._begun, file_name, stage, release, fraction)
        with contextlib.suppress(OSError):
            _replace(self._path, json.dumps(progress.document()).encode())

    def remove(self) -> None:
        """Nothing is under way any more; what another process has said meanwhile stays."""
        if self._shown is None:
            return
        self._shown = None
        with contextlib.suppress(OSError, Failed, ValueError):
            if _read(self._path).pid == os.getpid():
                os.unlink(self._path)


def _replace(path: Path, content: bytes) -> None:
    """Not through to the disk: of a deployment that a power cut has ended there is nothing to be said."""
    temporary = f"{path}.new"  # always the same, for a crash to leave one at most; who deploys to a site is alone
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o644)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
    os.rename(temporary, path)


def _read(path: Path) -> Progress:
    return Progress.from_document(json.loads(path.read_bytes()), str(path))


def read_progress(layout: Layout, site: SiteName) -> Progress | None:
    """How far the deployment is that is under way; None where none is, or it is not known."""
    try:
        progress = _read(layout.progress(site))
    except (OSError, Failed, ValueError, AttributeError):
        return None
    return progress if _is_there(progress.pid) else None


def _is_there(pid: int) -> bool:
    """Whether the process that said so is there still: one that was killed removes nothing."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True

"""Filesystems that a test mounts for itself, as root."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def tmpfs(place: Path, options: str = "size=16m") -> Iterator[Path]:
    """A tmpfs on ``place``, which is made."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "swapd-test", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@contextlib.contextmanager
def bind(source: Path, place: Path) -> Iterator[Path]:
    """A bind mount of ``source`` on ``place``, which is made."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", source, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)

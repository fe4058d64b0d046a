"""Filesystems that a test mounts for itself, as root."""

from __future__ import annotations

import contextlib
import os
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
def fuse(place: Path, uid: int) -> Iterator[Path]:
    """A mount by FUSE on ``place``, which is made, as a user makes it with fusermount: nobody else may look at it."""
    place.mkdir(parents=True, exist_ok=True)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = f"fd={device},rootmode=40000,user_id={uid},group_id={uid}"
        command = ["mount", "--internal-only", "-t", "fuse", "-o", options, "swapd-test", place]
        subprocess.run(command, check=True, pass_fds=[device])
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)
    finally:
        os.close(device)


@contextlib.contextmanager
def bind(source: Path, place: Path) -> Iterator[Path]:
    """A bind mount of ``source`` on ``place``, which is made."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", source, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)

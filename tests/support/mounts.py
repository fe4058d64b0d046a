"""Filesystems that a test mounts for itself, as root."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.waiting import wait_until


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


@contextlib.contextmanager
def fuse(source: Path, place: Path) -> Iterator[Path]:
    """``source`` on ``place``, which is made, through FUSE: what is done in ``source`` gives no event on ``place``."""
    place.mkdir(parents=True, exist_ok=True)
    # In the foreground, so that it is ours to end; without caches, so that a look sees what is there.
    options = ["-f", "-o", "attr_timeout=0,entry_timeout=0,negative_timeout=0"]
    program = subprocess.Popen(["bindfs", *options, source, place], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: os.path.ismount(place), f"{place} to be mounted")
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
        program.terminate()
        program.wait()


@contextlib.contextmanager
def dead_fuse(place: Path) -> Iterator[Path]:
    """A FUSE mount on ``place``, which is made, whose program has died: every access answers ENOTCONN."""
    place.mkdir(parents=True, exist_ok=True)
    program = subprocess.Popen(["bindfs", "-f", place.parent, place], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: os.path.ismount(place), f"{place} to be mounted")
        program.kill()
        program.wait()
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)

"""Mounts that change without an event, or do not answer: what stands for network filesystems. As root."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.waiting import wait_until


@contextlib.contextmanager
def layered(layers: Path, place: Path) -> Iterator[Path]:
    """An overlay of empty layers on ``place``; yields the upper one, where what is done gives no event on ``place``."""
    lower, upper, work = (layers / name for name in ("lower", "upper", "work"))
    for layer in (lower, upper, work):
        layer.mkdir(parents=True)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "swapd-test", place], check=True)
    try:
        yield upper
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@contextlib.contextmanager
def fuse(source: Path, place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``source`` on ``place``, which is made, through FUSE: what is done in ``source`` gives no event on ``place``.

    Yields the program behind it; where that is killed, every access answers ENOTCONN.
    """
    place.mkdir(parents=True, exist_ok=True)
    # In the foreground, so that it is ours to end; without caches, so that a look sees what is there.
    options = ["-f", "-o", "attr_timeout=0,entry_timeout=0,negative_timeout=0"]
    program = subprocess.Popen(["bindfs", *options, source, place], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: os.path.ismount(place), f"{place} to be mounted")
        yield program
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
        program.kill()  # it may be stopped
        program.wait()

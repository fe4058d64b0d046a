"""Filesystems in a file, on a loop device: for what a tmpfs cannot do. As root."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.mounts import tmpfs

MKFS = {
    "btrfs": ["mkfs.btrfs", "-q", "-m", "single", "-d", "single"],
    "xfs": ["mkfs.xfs", "-q"],
    "ext4": ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-m", "0"],
}


@contextlib.contextmanager
def disk(kind: str, image: Path, place: Path, megabytes: int = 320, options: str = "noatime") -> Iterator[Path]:
    """A new filesystem of this kind on ``place``, which is made; its bytes are in ``image``."""
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run([*MKFS[kind], image], check=True, stdout=subprocess.DEVNULL)
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-o", f"loop,{options}", image, place], check=True)
    try:
        yield place
    finally:
        # The loop device goes with the mount, and that when nobody has a file open there any more.
        subprocess.run(["umount", "--lazy", place], check=True)


@contextlib.contextmanager
def failing_disk(memory: Path, place: Path, takes: int = 14) -> Iterator[Path]:
    """An ext4 with 64 MiB free on a disk that takes ``takes`` MiB, and fails to write what is more than that.

    Whoever writes notices nothing of it: the kernel does, once it writes back (EIO or ENOSPC). ``memory`` is where the
    disk is; neither directory is there yet. Without a journal, whose failure would make the filesystem read-only.
    """
    with tmpfs(memory, f"size={takes}m"):
        image = memory / "image"
        with image.open("wb") as file:
            file.truncate(80 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", image], check=True)
        place.mkdir(parents=True)
        subprocess.run(["mount", "-o", "loop", image, place], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)

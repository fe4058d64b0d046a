"""Filesystems in a file, on a loop device: for what a tmpfs cannot do. As root."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

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

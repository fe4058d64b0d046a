"""A disk that loses what was not written through: an ext4 image on a loop device, copied in the middle of the work.

The kernel's own cache of the mounted filesystem is not in the image. So a copy of it is what a power cut leaves on a
disk, and mounting the copy does what the next boot does. Nothing is written through on the kernel's own account:
commits of the journal are ten minutes apart, and a rename does not flush the file as ext4 does by default.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from swapd.host.linux import syncfs

OPTIONS = "loop,commit=600,noauto_da_alloc"
SIZE = 32 << 20  # bytes; the least that has a journal of a usual size


class Disk:
    """An image of a filesystem, and where it is mounted in turn with its copies."""

    def __init__(self, directory: Path) -> None:
        self._image = directory / "image"
        self.place = directory / "mounted"
        self.place.mkdir()
        with self._image.open("wb") as file:
            file.truncate(SIZE)
        made = subprocess.run(
            ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", self._image], capture_output=True
        )
        assert made.returncode == 0, made

    def settle(self) -> None:
        """Writes everything through."""
        descriptor = os.open(self.place, os.O_RDONLY)
        syncfs(descriptor)
        os.close(descriptor)

    def cut(self, name: str) -> Path:
        """What the disk would have after a power cut at this moment."""
        copy = self._image.with_name(name)
        subprocess.run(["cp", "--sparse=always", self._image, copy], check=True)
        return copy

    @contextlib.contextmanager
    def mounted(self, image: Path | None = None) -> Iterator[Path]:
        """The image, or what is left of it, in its place."""
        subprocess.run(["mount", "-t", "ext4", "-o", OPTIONS, image or self._image, self.place], check=True)
        try:
            yield self.place
        finally:
            subprocess.run(["umount", self.place], check=True)

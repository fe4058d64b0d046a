"""Whether what was written has reached the disk: asked through descriptors that are older than its first byte.

Facts that this rests on:

- That writing back failed, the kernel tells each open file once, and nobody who opens one after somebody else was told.
  Measured on an ext4 whose disk failed: once another process's syncfs had got EIO, a descriptor that was opened after
  that got 0 for files that were lost, and one from before the writing got EIO. The page cache goes on to show such
  files as they should be.
- So an error of another program's files on that filesystem is told here, too. It is the same disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from swapd.host.linux import syncfs


class Disks:
    """The filesystems that a release is written to, each held open from before the writing to its end."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[int, Path]] = {}  # by device: an open directory there

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor, _ in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def hold(self, directories: Iterable[Path]) -> None:
        """What is written from now on to the filesystems of these is answered for. Raises ``OSError``."""
        for directory in directories:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            held, _ = self._held.setdefault(os.fstat(descriptor).st_dev, (descriptor, directory))
            if held != descriptor:
                os.close(descriptor)

    def write_through(self) -> None:
        """After this, all that was written to them since is on their disks; ``OSError`` names where it is not."""
        for descriptor, directory in self._held.values():
            try:
                syncfs(descriptor)
            except OSError as error:
                raise OSError(error.errno, os.strerror(error.errno or 0), str(directory)) from error

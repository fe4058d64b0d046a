"""Zstandard by the ``zstd`` program: its exit status tells a whole file from a truncated one.

Facts: the Python binding in Debian reads a truncated stream as a clean end. ``zstd -d`` ends with 1 for anything
that is wrong with its input (truncated, damaged, garbage after the last frame, a window over ``--memory``) and with
another number for a read or write error (37, 70: zstd 1.5.4). It also takes gzip and xz frames, and the xz in it has
no memory limit of its own, hence the one for its address space.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator

from swapd.model.errors import Failed, Rejected
from swapd.model.release import printable

WINDOW = "128MB"  # what `zstd --long` and `--ultra -22` need; more must be asked for when compressing
ADDRESS_SPACE_KIB = 512 << 10
BAD_INPUT = 1
PIPE_SIZE = 1 << 20  # pipe(7): what an unprivileged process may have; 64 KiB is the default
WORDS = 2000  # of the program's own, for the message


class ZstdChild:
    """A ``zstd -dc`` that reads the tarball itself. It moves the descriptor's offset, starting at 0."""

    def __init__(self, descriptor: int) -> None:
        program = shutil.which("zstd")
        if program is None:
            raise Failed(
                "zstd-missing",
                "the tarball is compressed by zstd, and this host has no program zstd",
                "Install the package zstd, or compress with gzip.",
            )
        os.lseek(descriptor, 0, os.SEEK_SET)
        self._descriptor = descriptor
        # A memfd, not a pipe: nobody has to read it for the child to go on.
        self._words = os.memfd_create("zstd-stderr", os.MFD_CLOEXEC)
        # A shell does it because code between fork and exec is not safe in a process with threads. Ctrl-C and a unit's
        # stop reach the child too: it ignores them and leaves to its parent what becomes of the extraction. Where the
        # limit cannot be set, a lower one is in force already.
        script = 'trap "" INT TERM; ulimit -v "$1" 2>/dev/null; exec "$0" -dcq --memory="$2"'
        self._output, its_output = os.pipe2(os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # the user's pipes may have their fill of memory; then it is only slower
            fcntl.fcntl(self._output, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        try:
            self._process = subprocess.Popen(
                ["sh", "-c", script, program, str(ADDRESS_SPACE_KIB), WINDOW],
                stdin=descriptor,
                stdout=its_output,
                stderr=self._words,
            )
        except BaseException:
            os.close(self._output)
            os.close(self._words)
            raise
        finally:
            os.close(its_output)

    def position(self) -> int:
        """How many of the tarball's bytes the child has read."""
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def blocks(self, size: int) -> Iterator[bytes]:
        """The decompressed bytes; whether they are all is what ``finish`` tells."""
        while data := os.read(self._output, size):
            yield data

    def finish(self) -> None:
        """To be called after the last block: ``Rejected`` or ``Failed`` unless the child ended with 0."""
        status = self._process.wait()
        if status == 0:
            return
        words = printable(os.pread(self._words, WORDS, 0).decode(errors="replace").strip())
        if status == BAD_INPUT:
            raise Rejected.because(
                "corrupt-compression",
                f"zstd says: {words}",
                "It is truncated, damaged, or something follows its end: upload it again.",
            )
        ended = f"was killed by signal {-status}" if status < 0 else f"ended with {status}"
        raise Failed("zstd-failed", f"zstd {ended}: {words}", "See whether this host is short of memory.")

    def kill(self) -> None:
        """Ends the child if it still runs, so that a thread in ``blocks`` comes to its end."""
        self._process.kill()

    def close(self) -> None:
        """Takes the exit status of a child that ended or was killed. Nobody may be in ``blocks`` any more."""
        os.close(self._output)
        self._process.wait()
        os.close(self._words)

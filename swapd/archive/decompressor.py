"""A decompressor in a process of its own, in a jail of its own: its exit status tells a whole stream from a part.

zstd is the ``zstd`` program, because the Python binding in Debian reads a truncated stream as a clean end. It ends with
1 for anything that is wrong with its input (truncated, damaged, garbage after the last frame, a window over
``--memory``) and with another number for a read or write error (37, 70: zstd 1.5.4). It also takes gzip and xz frames,
and the xz in it has no memory limit of its own, hence the one for its address space.

xz and bzip2 are decoded by Python's own modules, which say exactly what is wrong; the program ``bzip2`` ends with 0
when garbage follows. Not in the process that writes the files: xz -9 needs 65 MiB, and that one keeps to less.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
from contextlib import suppress

from swapd.archive.decoders import BLOCK, XZ_MEMORY, Source, decoded_blocks
from swapd.host import jail, seccomp
from swapd.host.child import Child, execute, open_pipe
from swapd.host.files import write_all
from swapd.model.errors import Failed, Rejected
from swapd.model.release import Compression, printable

BY_CHILD = frozenset({Compression.ZSTD, Compression.XZ, Compression.BZIP2})
ZSTD_WINDOW = "128MB"  # what `zstd --long` and `--ultra -22` need; more must be asked for when compressing
ZSTD_ADDRESS_SPACE = 512 << 20
DECODER_DATA = XZ_MEMORY + (32 << 20)  # more than we have when it starts
BAD_INPUT = 1


class Decompressor:
    """Reads the tarball and writes into a pipe. It moves the descriptor's offset, starting at 0. Close it."""

    def __init__(self, descriptor: int, compression: Compression) -> None:
        program = shutil.which("zstd")
        if program is None and compression is Compression.ZSTD:
            raise Failed(
                "zstd-missing",
                "the tarball is compressed by zstd, and this host has no program zstd",
                "Install the package zstd, then touch the tarball, or reload swapd; or compress with gzip.",
            )
        os.lseek(descriptor, 0, os.SEEK_SET)
        self._name = compression.value
        self.output, its_output = open_pipe()
        parent = os.getpid()

        def work() -> None:
            if compression is Compression.ZSTD and program is not None:
                _execute_zstd(program, descriptor, its_output, parent)
            else:
                _decode(descriptor, compression, its_output, parent)

        try:
            self._child = Child(self._name, work, keep={descriptor, its_output})
        except OSError as error:
            self.release()
            raise Failed(
                "no-processes", f"no process can be started: {error.strerror}", "Raise TasksMax= of the unit."
            ) from error
        finally:
            os.close(its_output)

    def release(self) -> None:
        """Closes our end of the pipe, which somebody else has inherited."""
        if self.output >= 0:
            os.close(self.output)
            self.output = -1

    def finish(self) -> None:
        """To be called after the last block: ``Rejected`` or ``Failed`` unless the child ended with 0."""
        status = self._child.wait()
        if status == 0:
            return
        words = self._child.words()
        if status == BAD_INPUT and self._name == Compression.ZSTD.value:
            raise Rejected.because(
                "corrupt-compression",
                f"zstd says: {printable(words)}",
                "It is truncated, damaged, or something follows its end: upload it again.",
            )
        if status == BAD_INPUT:
            with suppress(ValueError, TypeError, RecursionError):  # then these were not its own words
                raise Rejected.because(*(printable(each, len(words)) for each in json.loads(words)))
        raise Failed(
            f"{self._name}-failed",
            f"{self._name} {self._child.describe_end()}",
            "See whether this host is short of memory.",
        )

    def close(self) -> None:
        """Ends the child and takes its exit status."""
        self._child.close()
        self.release()


def confine_decoder() -> jail.Confinement:
    """For xz and bzip2: the tarball is open and so is the pipe, and it needs nothing else."""
    limits = {resource.RLIMIT_DATA: jail.memory_size().data + DECODER_DATA, resource.RLIMIT_FSIZE: BLOCK}
    return jail.Confinement(limits=limits, calls=seccomp.COMPUTING)


def confine_zstd(program: str) -> jail.Confinement:
    """It becomes the program, whose threads read, decompress and write from 1.5.3 on."""
    limits = {resource.RLIMIT_AS: ZSTD_ADDRESS_SPACE, resource.RLIMIT_FSIZE: BLOCK}
    calls = {**seccomp.PROGRAM, **seccomp.THREADS}
    return jail.Confinement(rights=jail.program_rights(program), limits=limits, calls=calls)


def _decode(descriptor: int, compression: Compression, output: int, parent: int) -> None:
    jail.enter(confine_decoder(), parent)
    jail.forbid_processes()
    source = Source(descriptor)
    try:
        for block in decoded_blocks(source, compression):
            os.lseek(descriptor, source.position, os.SEEK_SET)  # for `position`: the offset is our parent's, too
            write_all(output, block)
    except Rejected as rejected:
        issue = rejected.issues[0]
        os.write(2, json.dumps([issue.problem, issue.message, issue.hint]).encode())
        sys.exit(BAD_INPUT)
    os.lseek(descriptor, source.size, os.SEEK_SET)


def _execute_zstd(program: str, descriptor: int, output: int, parent: int) -> None:
    jail.enter(confine_zstd(program), parent)
    execute(program, ["-dcq", f"--memory={ZSTD_WINDOW}"], descriptor, output)

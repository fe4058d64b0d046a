"""A tarball's bytes, decompressed as a strict stream: the end is an end only when the format itself says so.

What the rest of the package rests on: ``Stream.next_block()`` returns ``b""`` only after the compression's own end
was there, its checksums and sizes agreed, and nothing at all came after it. Where the bytes come through a pipe, the
one who started the decompressor sees to that, by its exit status.

gzip is decompressed in a thread, which leaves the interpreter's lock to the writer of the files meanwhile; what takes
more memory, or a program, in a process of its own.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from swapd.archive.decoders import BLOCK, Source, check_compression, decoded_blocks, plain_blocks
from swapd.archive.decompressor import BY_CHILD, Decompressor
from swapd.model.errors import Failed
from swapd.model.release import Compression

AHEAD = 4  # blocks that wait for the writer
TICK = 0.2  # seconds without a block after which progress is reported all the same
PATIENCE = 120.0  # seconds without a block after which a decompressor is taken to hang


class Piped:
    """What a decompressor writes, which somebody else has started, and looks after."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.is_at_end = False

    def blocks(self) -> Iterator[bytes]:
        """The decompressed bytes; whether they are all is for others to say."""
        while data := os.read(self._descriptor, BLOCK):
            yield data
        self.is_at_end = True


class Stream:
    """The decompressed bytes, made by a thread that is at most ``AHEAD`` blocks ahead. Close it, whatever happens.

    ``progress`` gets the number of the tarball's bytes that were read, in the caller's thread; what it raises
    passes through.
    """

    def __init__(
        self, descriptor: int, compression: Compression, progress: Callable[[int], None], piped: Piped | None = None
    ) -> None:
        self._source = Source(descriptor)
        check_compression(self._source, compression)
        self._progress = progress
        self._piped = piped
        self._is_by_child = compression in BY_CHILD
        self._child = Decompressor(descriptor, compression) if self._is_by_child and piped is None else None
        if piped:
            blocks = piped.blocks()
        elif self._child:
            blocks = self._child.blocks()
        elif compression is Compression.NONE:
            blocks = plain_blocks(self._source)
        else:
            blocks = decoded_blocks(self._source, compression)
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(AHEAD)
        self._reported = 0
        self._is_over = False
        self._stop = threading.Event()
        # A thread that waits for a pipe cannot be stopped; with a pipe of somebody else's, it ends with its process.
        self._thread = threading.Thread(
            target=self._run, args=(blocks,), name="swapd-decompress", daemon=piped is not None
        )
        try:
            self._thread.start()
        except RuntimeError as error:  # what Thread makes of EAGAIN
            if self._child:
                self._child.close()
            raise Failed("no-threads", f"no thread can be started: {error}", "Raise TasksMax= of the unit.") from error

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def size(self) -> int:
        """The tarball's size."""
        return self._source.size

    def report(self) -> None:
        """Tells ``progress`` how far the tarball was read."""
        source = self._source
        position = os.lseek(source.descriptor, 0, os.SEEK_CUR) if self._is_by_child else source.position
        self._reported = max(self._reported, position)  # what follows a gzip member is read twice
        self._progress(self._reported)

    def next_block(self) -> bytes:
        """The next bytes, at least one; none at the end, once it is verified. ``Rejected``, ``Failed``, ``OSError``."""
        idle = 0.0
        while not self._is_over:
            self.report()
            try:
                block = self._queue.get(timeout=TICK)
            except queue.Empty:
                idle += TICK
                if idle > PATIENCE:
                    raise _hanging() from None
                continue
            if isinstance(block, BaseException):
                raise block
            if block:
                return block
            if self._child:
                self._child.finish()
            self._is_over = True
        return b""

    def close(self) -> None:
        """Ends the thread and the child; nothing of them is left behind."""
        self._stop.set()
        if self._piped:
            return
        if self._child:
            self._child.kill()
        while self._thread.is_alive():
            # Makes room for a put() that waits, so that the thread sees that it is to stop.
            try:
                self._queue.get(timeout=0.01)
            except queue.Empty:
                continue
        self._thread.join()
        if self._child:
            self._child.close()

    def _run(self, blocks: Iterator[bytes]) -> None:
        try:
            for block in blocks:
                if self._stop.is_set():
                    return
                if block:
                    self._queue.put(block)
            self._queue.put(b"")
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that reads
            self._queue.put(error)


def _hanging() -> Failed:
    return Failed(
        "decompressor-hangs",
        f"nothing came out of the decompression for {PATIENCE:g} s",
        "See whether this host is overloaded, or its disk hangs; then touch the tarball to have it taken up again.",
    )

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
import select
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from swapd.archive.decoders import BLOCK, Source, check_compression, decoded_blocks
from swapd.archive.decompressor import BY_CHILD, Decompressor
from swapd.model.errors import Failed
from swapd.model.release import Compression

AHEAD = 16  # blocks that wait for the writer
REPORTED = 1 << 20  # bytes after which progress is reported
TICK = 0.2  # seconds without a block after which it is reported all the same
PATIENCE = 120.0  # seconds without a block after which a decompressor is taken to hang


class Feed(Protocol):
    """Where a stream's bytes come from."""

    def take(self, patience: float) -> bytes | None:
        """The next bytes; none at the end. None where none came within so many seconds."""

    def position(self) -> int:
        """How many of the tarball's bytes were read."""

    def close(self) -> None:
        """Nothing of it is left behind."""


class Stream:
    """The decompressed bytes. Close it, whatever happens.

    ``progress`` gets the number of the tarball's bytes that were read; what it raises passes through.
    """

    def __init__(
        self,
        descriptor: int,
        compression: Compression,
        progress: Callable[[int], None],
        piped: Piped | None = None,
    ) -> None:
        """``piped`` is what a decompressor writes that somebody else has started."""
        source = Source(descriptor)
        check_compression(source, compression)
        self.size = source.size  # the tarball's
        self._progress = progress
        self._reported = 0
        self._unreported = REPORTED
        self._is_over = False
        self._feed: Feed
        if piped:
            self._feed = piped
        elif compression in BY_CHILD:
            self._feed = Decompressed(descriptor, compression)
        elif compression is Compression.NONE:
            self._feed = Plain(source)
        else:
            self._feed = Decoded(source, compression)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def report(self) -> None:
        """Tells ``progress`` how far the tarball was read."""
        self._reported = max(self._reported, self._feed.position())  # what follows a gzip member is read twice
        self._progress(self._reported)

    def next_block(self) -> bytes:
        """The next bytes, at least one; none at the end, once it is verified. ``Rejected``, ``Failed``, ``OSError``."""
        idle = 0.0
        while not self._is_over:
            if self._unreported >= REPORTED:
                self._unreported = 0
                self.report()
            block = self._feed.take(TICK)
            if block:
                self._unreported += len(block)
                return block
            self._unreported = REPORTED
            if block is None:
                idle += TICK
                if idle > PATIENCE:
                    raise _hanging()
            else:
                self._is_over = True
                self.report()
        return b""

    def close(self) -> None:
        """Ends the thread or the child; nothing of them is left behind."""
        self._feed.close()


class Plain:
    """A tarball that is not compressed."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def take(self, _: float) -> bytes | None:
        return self._source.read(BLOCK)

    def position(self) -> int:
        return self._source.position

    def close(self) -> None:
        pass


class Piped:
    """What a decompressor writes, which somebody else has started, and looks after."""

    def __init__(self, descriptor: int, tarball: int) -> None:
        self._descriptor = descriptor
        self._tarball = tarball
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self.is_at_end = False

    def take(self, patience: float) -> bytes | None:
        if not self._poll.poll(patience * 1000):
            return None
        data = os.read(self._descriptor, BLOCK)
        self.is_at_end = not data
        return data

    def position(self) -> int:
        return os.lseek(self._tarball, 0, os.SEEK_CUR)

    def close(self) -> None:
        pass


class Decompressed:
    """What a decompressor of our own writes; its end counts when its exit status says so."""

    def __init__(self, descriptor: int, compression: Compression) -> None:
        self._child = Decompressor(descriptor, compression)
        self._piped = Piped(self._child.output, descriptor)

    def take(self, patience: float) -> bytes | None:
        data = self._piped.take(patience)
        if self._piped.is_at_end:
            self._child.finish()
        return data

    def position(self) -> int:
        return self._piped.position()

    def close(self) -> None:
        self._child.close()


class Decoded:
    """What a thread decodes, which is at most ``AHEAD`` blocks ahead."""

    def __init__(self, source: Source, compression: Compression) -> None:
        self._source = source
        self._compression = compression
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="swapd-decompress")
        try:
            self._thread.start()
        except RuntimeError as error:  # what Thread makes of EAGAIN
            raise Failed("no-threads", f"no thread can be started: {error}", "Raise TasksMax= of the unit.") from error

    def take(self, patience: float) -> bytes | None:
        try:
            block = self._queue.get(timeout=patience)
        except queue.Empty:
            return None
        if isinstance(block, BaseException):
            raise block
        return block

    def position(self) -> int:
        return self._source.position

    def close(self) -> None:
        self._stop.set()
        while self._thread.is_alive():
            # Makes room for a put() that waits, so that the thread sees that it is to stop.
            try:
                self._queue.get(timeout=0.01)
            except queue.Empty:
                continue
        self._thread.join()

    def _run(self) -> None:
        try:
            for block in decoded_blocks(self._source, self._compression):
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

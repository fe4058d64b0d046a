"""A tarball's bytes, decompressed as a strict stream: the end is an end only when the format itself says so.

What the rest of the package rests on: ``Stream.next_block()`` returns ``b""`` only after the compression's own end
was there, its checksums and sizes agreed, and nothing at all came after it. gzip, xz and bzip2 files of several
members or streams are whole files by their specifications (bgzip, pbzip2 and `cat` write them), so these are joined;
the tar reader then sees to it that their contents are one archive.

The bytes come from ``pread`` on the caller's descriptor, never from a path. Decompressing happens in a thread: zlib,
lzma and bz2 release the interpreter's lock, so that it runs while the files are being written.
"""

from __future__ import annotations

import bz2
import lzma
import os
import queue
import stat
import threading
import zlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol

from swapd.archive.limits import MAX_STREAMS
from swapd.archive.zstd import ZstdChild
from swapd.model.errors import Failed, Rejected
from swapd.model.release import Compression

BLOCK = 1 << 20  # most bytes of one block
INPUT = 128 << 10  # compressed bytes for one call of a decoder
AHEAD = 4  # blocks that wait for the writer
TICK = 0.2  # seconds without a block after which progress is reported all the same
XZ_MEMORY = 128 << 20  # xz -9 needs 65 MiB to decompress; a header can ask for 4 GiB

MAGIC: dict[Compression, bytes] = {
    Compression.GZIP: b"\x1f\x8b",
    Compression.XZ: b"\xfd7zXZ\x00",
    Compression.BZIP2: b"BZh",
    Compression.ZSTD: b"\x28\xb5\x2f\xfd",
}
UPLOAD_AGAIN = "Upload it again; if that does not help, pack it again."


class Decoder(Protocol):
    """One compressed stream, with the interface of the standard library's bz2 and lzma decompressors."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


class Inflate:
    """zlib's decompressor with that interface. It checks each gzip member's header, CRC and size itself."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        return self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)


def _new_unxz() -> Decoder:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MEMORY)


DECODERS: dict[Compression, Callable[[], Decoder]] = {
    Compression.GZIP: Inflate,
    Compression.XZ: _new_unxz,
    Compression.BZIP2: bz2.BZ2Decompressor,
}


class Source:
    """The tarball's own bytes, and how many of them were read."""

    def __init__(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("a tarball is a regular file")
        self.descriptor = descriptor
        self.size = status.st_size
        self.position = 0

    def read(self, count: int) -> bytes:
        """At most ``count`` bytes; empty at the file's end."""
        data = os.pread(self.descriptor, count, self.position)
        self.position += len(data)
        return data

    def head(self, count: int = 8) -> bytes:
        """The first bytes, without moving."""
        return os.pread(self.descriptor, count, 0)


def find_compression(head: bytes) -> Compression | None:
    """The compression whose magic number the file's first bytes are."""
    if head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5:
        return Compression.ZSTD  # a skippable frame, with which pzstd starts
    return next((compression for compression, magic in MAGIC.items() if head.startswith(magic)), None)


def check_compression(source: Source, compression: Compression) -> None:
    """Raises ``Rejected`` when the first bytes are not those of ``compression``."""
    if source.size == 0:
        raise Rejected.because("truncated", "the tarball is empty", UPLOAD_AGAIN)
    found = find_compression(source.head()) or Compression.NONE
    if found is not compression:
        named, is_really = (
            "not compressed" if kind is Compression.NONE else f"compressed by {kind.value}"
            for kind in (compression, found)
        )
        raise Rejected.because(
            "wrong-compression",
            f"by its name the tarball is {named}, by its first bytes it is {is_really}",
            "Give it the suffix that tells how it is compressed, or pack it again.",
        )


def _plain_blocks(source: Source) -> Iterator[bytes]:
    while data := source.read(BLOCK):
        yield data


def _decoded_blocks(source: Source, compression: Compression) -> Iterator[bytes]:
    """All streams of the file joined; ``Rejected`` unless the last one ends with the file.

    An empty block means that nothing came of the bytes read so far, and lets the caller stop.
    """
    kind = compression.value
    for _ in range(MAX_STREAMS):
        decoder = DECODERS[compression]()
        data = source.read(INPUT)
        while not decoder.eof:
            if not data and decoder.needs_input:
                raise Rejected.because("truncated", f"the {kind} stream ends too early", UPLOAD_AGAIN)
            yield _decompress(decoder, data, kind)
            data = source.read(INPUT) if decoder.needs_input and not decoder.eof else b""
        # What the decoder did not want belongs to the next stream: it is read again.
        source.position -= len(decoder.unused_data)
        magic = MAGIC[compression]
        following = os.pread(source.descriptor, len(magic), source.position)
        if not following:
            return
        if following != magic:
            raise Rejected.because(
                "trailing-garbage",
                f"{source.size - source.position} bytes follow the end of the {kind} stream",
                "Something was appended to the tarball. " + UPLOAD_AGAIN,
            )
    raise Rejected.because("too-many-streams", f"more than {MAX_STREAMS} {kind} streams in a row", "Pack it again.")


def _decompress(decoder: Decoder, data: bytes, kind: str) -> bytes:
    try:
        return decoder.decompress(data, BLOCK)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
        # bz2 says OSError for broken data; nothing here reads a file.
        if "Memory usage limit" in str(error):  # LZMA_MEMLIMIT_ERROR has no number in Python
            raise Rejected.because(
                "needs-too-much-memory",
                f"decompressing takes more than {XZ_MEMORY >> 20} MiB of memory",
                "Compress it with a smaller dictionary; xz -9 is within the limit.",
            ) from error
        raise Rejected.because("corrupt-compression", f"the {kind} stream is damaged: {error}", UPLOAD_AGAIN) from error


class Stream:
    """The decompressed bytes, made by a thread that is at most ``AHEAD`` blocks ahead. Close it, whatever happens.

    ``progress`` gets the number of the tarball's bytes that were read, in the caller's thread; what it raises
    passes through.
    """

    def __init__(self, descriptor: int, compression: Compression, progress: Callable[[int], None]) -> None:
        self._source = Source(descriptor)
        check_compression(self._source, compression)
        self._progress = progress
        self._child = ZstdChild(descriptor) if compression is Compression.ZSTD else None
        if self._child:
            blocks = self._child.blocks(BLOCK)
        elif compression is Compression.NONE:
            blocks = _plain_blocks(self._source)
        else:
            blocks = _decoded_blocks(self._source, compression)
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(AHEAD)
        self._reported = 0
        self._is_over = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(blocks,), name="swapd-decompress")
        try:
            self._thread.start()
        except RuntimeError as error:  # what Thread makes of EAGAIN
            if self._child:
                self._child.kill()
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
        position = self._child.position() if self._child else self._source.position
        self._reported = max(self._reported, position)  # what follows a gzip member is read twice
        self._progress(self._reported)

    def next_block(self) -> bytes:
        """The next bytes, at least one; none at the end, once it is verified. ``Rejected``, ``Failed``, ``OSError``."""
        while not self._is_over:
            self.report()
            try:
                block = self._queue.get(timeout=TICK)
            except queue.Empty:
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

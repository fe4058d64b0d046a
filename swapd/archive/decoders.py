"""The decoders of compressed streams, strict: a stream's end is one only when the format itself says so.

gzip, xz and bzip2 files of several members or streams are whole files by their specifications (bgzip, pbzip2 and `cat`
write them), so these are joined; the tar reader then sees to it that their contents are one archive. The bytes come
from ``pread`` on the caller's descriptor, never from a path.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

from swapd.archive.limits import MAX_STREAMS
from swapd.model.errors import Rejected
from swapd.model.release import Compression

try:  # ISA-L's inflate is recommended, and not needed: zlib does the same and takes longer
    igzip: Any = importlib.import_module("isal.igzip_lib")
except ImportError:
    igzip = None

# Most bytes of one block. What is larger comes from the kernel each time, page by page, and has left the processor's
# cache before it is written to a file: with 1 MiB an extraction took a fifth more.
BLOCK = 256 << 10
INPUT = 128 << 10  # compressed bytes for one call of a decoder
XZ_MEMORY = 128 << 20  # xz -9 needs 65 MiB to decompress; a header can ask for 4 GiB

MAGIC: dict[Compression, bytes] = {
    Compression.GZIP: b"\x1f\x8b",
    Compression.XZ: b"\xfd7zXZ\x00",
    Compression.BZIP2: b"BZh",
    Compression.ZSTD: b"\x28\xb5\x2f\xfd",
}
FLAGS_AT, RESERVED_FLAGS = 3, 0xE0  # RFC 1952, 2.3.1.2: "must give an error indication if any reserved bit is non-zero"
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


def _new_inflate() -> Decoder:
    # ISA-L's has the interface already. It checks CRC and size as zlib does, but not the header's reserved flags.
    return Inflate() if igzip is None else cast(Decoder, igzip.IgzipDecompressor(flag=igzip.DECOMP_GZIP))


DECODERS: dict[Compression, Callable[[], Decoder]] = {
    Compression.GZIP: _new_inflate,
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


def decoded_blocks(source: Source, compression: Compression) -> Iterator[bytes]:
    """All streams of the file joined; ``Rejected`` unless the last one ends with the file.

    An empty block means that nothing came of the bytes read so far, and lets the caller stop.
    """
    kind = compression.value
    for _ in range(MAX_STREAMS):
        decoder = DECODERS[compression]()
        data = source.read(INPUT)
        if compression is Compression.GZIP and len(data) > FLAGS_AT and data[FLAGS_AT] & RESERVED_FLAGS:
            raise Rejected.because("corrupt-compression", "a gzip header has reserved flags", UPLOAD_AGAIN)
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


# bz2 says OSError for broken data; nothing here reads a file.
DAMAGED: tuple[type[Exception], ...] = (
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    ValueError,
    *([igzip.error] if igzip else []),
)


def _decompress(decoder: Decoder, data: bytes, kind: str) -> bytes:
    try:
        return decoder.decompress(data, BLOCK)
    except DAMAGED as error:
        if "Memory usage limit" in str(error):  # LZMA_MEMLIMIT_ERROR has no number in Python
            raise Rejected.because(
                "needs-too-much-memory",
                f"decompressing takes more than {XZ_MEMORY >> 20} MiB of memory",
                "Compress it with a smaller dictionary; xz -9 is within the limit.",
            ) from error
        raise Rejected.because("corrupt-compression", f"the {kind} stream is damaged: {error}", UPLOAD_AGAIN) from error

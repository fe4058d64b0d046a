"""What a tarball will need on the disk at the least, known without extracting it.

Whoever made the tarball wrote these numbers, so they can only refuse: a tarball that claims to be small is extracted
under the same limits as any other. And they are lower bounds: one that is damaged or claims too much fails for want of
room instead of being rejected, which harms nobody but itself.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import NamedTuple

from swapd.archive.headers import parse_header
from swapd.model.errors import Rejected
from swapd.model.release import Compression

BLOCK = 512
# Of the decompressed stream, what may not be content: for each entry a header, one of pax with its records, and
# padding. Only extended attributes make more of it.
HEADERS_PER_ENTRY = 4 * BLOCK
PADDING = 1 << 20
MOST = 1 << 62  # whatever is claimed: no filesystem has so much, and every reader of records can read it
_HEADERS_AT_ONCE = 1024  # some 5 ms
_FILES = (b"0", b"\0", b"7")
_LINK = b"2"
_XZ_FOOTER = 12
_XZ_MAX_BITS = 63
_XZ_MAX_INDEX = 1 << 20  # bytes; xz -T0 writes some 10 for each 24 MiB


class Least(NamedTuple):
    """Bytes of files, and files and links, that an archive has at the least."""

    bytes: int
    inodes: int


def read_least(
    descriptor: int,
    compression: Compression,
    most_entries: int,
    *,
    is_whole: bool,
    keep_going: Callable[[], None] = lambda: None,
) -> Least:
    """The least that the tarball holds, which may be nothing.

    ``most_entries`` is how many entries may come to be. ``is_whole``: whether the file has the digest that it should;
    gzip's size stands at the end, and the end of a file that was cut off says anything. ``keep_going`` is called now
    and then, and may raise.
    """
    if compression is Compression.NONE:
        return _walk(descriptor, most_entries, keep_going)
    read = _STREAM_SIZES.get(compression)
    size = os.fstat(descriptor).st_size
    if read is None or (compression is Compression.GZIP and not is_whole):
        return Least(0, 0)
    return Least(min(max(read(descriptor, size) - HEADERS_PER_ENTRY * most_entries - PADDING, 0), MOST), 0)


def _walk(descriptor: int, most_entries: int, keep_going: Callable[[], None]) -> Least:
    """From header to header of a plain tarball; up to where one is not as it should be, which extraction tells."""
    size = os.fstat(descriptor).st_size
    at = content = inodes = headers = 0
    while at + BLOCK <= size and inodes <= most_entries:
        headers += 1
        if headers % _HEADERS_AT_ONCE == 0:
            keep_going()
        block = os.pread(descriptor, BLOCK, at)
        try:
            header = parse_header(block, b"", is_first=at == 0)
        except Rejected:
            break
        at += BLOCK + -(-header.size // BLOCK) * BLOCK
        if header.type in _FILES and not header.name.endswith(b"/") and at <= size:
            content += header.size
            inodes += 1
        inodes += header.type == _LINK
    return Least(content, inodes)


def _read_gzip(descriptor: int, size: int) -> int:
    """ISIZE (RFC 1952): of the last member, and modulo 2**32, so there may be more and never less."""
    return int.from_bytes(os.pread(descriptor, 4, size - 4), "little") if size >= 18 else 0


def _read_zstd(descriptor: int, _: int) -> int:
    """The first frame's content size (RFC 8878, 3.1.1.1), which zstd itself holds it to; 0 where it has none."""
    head = os.pread(descriptor, 18, 0)
    if head[:4] != b"\x28\xb5\x2f\xfd" or len(head) < 18:
        return 0
    flags = head[4]
    is_single_segment = flags >> 5 & 1
    width = (is_single_segment, 2, 4, 8)[flags >> 6]
    at = 5 + (not is_single_segment) + (0, 1, 2, 4)[flags & 3]
    return int.from_bytes(head[at : at + width], "little") + (256 if width == 2 else 0)


def _read_xz(descriptor: int, size: int) -> int:
    """The uncompressed sizes of the last stream's index (.xz file format, 2.1.2 and 4)."""
    footer = os.pread(descriptor, _XZ_FOOTER, size - _XZ_FOOTER) if size > 2 * _XZ_FOOTER else b""
    if footer[10:] != b"YZ" or zlib.crc32(footer[4:10]) != int.from_bytes(footer[:4], "little"):
        return 0
    length = (int.from_bytes(footer[4:8], "little") + 1) * 4
    start = size - _XZ_FOOTER - length
    if length > _XZ_MAX_INDEX or start < 0:
        return 0
    index = os.pread(descriptor, length, start)
    if index[0] or zlib.crc32(index[:-4]) != int.from_bytes(index[-4:], "little"):
        return 0
    count, *numbers = _read_numbers(index[1:-4])
    # A record is the block's size in the file, and the size of what becomes of it.
    return sum(numbers[1 : 2 * count : 2])


def _read_numbers(data: bytes) -> list[int]:
    """xz's numbers of variable length: seven bits in each byte, the lowest first. Never empty.

    Up to one that has more than the 63 bits which the format allows: each further bit of it would take longer.
    """
    numbers, number, shift = [], 0, 0
    for byte in data:
        if shift >= _XZ_MAX_BITS:
            break
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            number = shift = 0
    return numbers or [0]


_STREAM_SIZES = {Compression.GZIP: _read_gzip, Compression.ZSTD: _read_zstd, Compression.XZ: _read_xz}

"""One 512-byte header block, read strictly: POSIX ustar and pax, GNU, and the old V7 format.

The layout is POSIX.1-2017's (pax, "ustar Interchange Format").
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple

from swapd.archive.names import shown
from swapd.model.errors import Rejected

PACK_AGAIN = "Pack the tarball again; any current tar program will do."

# name mode (uid gid) size mtime checksum type linkname magic (version uname gname devmajor devminor) prefix
_FIELDS = struct.Struct("100s8s16x12s12s8s1s100s6s82x155s12x")
_POSIX, _GNU, _V7 = b"ustar\0", b"ustar ", bytes(6)
_CHECKSUM_AT = 148
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
# Mode, size, time and checksum as nearly every program writes them, in one go.
_USUAL = re.compile(rb"([0-7]{7})\0.{16}([0-7]{11})\0([0-7]{11})\0([0-7]{6})\0 ", re.DOTALL)
_MODE_AT = 100
_MAX_NUMBER = 1 << 62
_MAX_TIME = 1 << 32  # in 2106, the least that the common filesystems can store


class Header(NamedTuple):
    """A header's fields that mean something to us. A tuple: there is one for each member of the archive."""

    type: bytes
    name: bytes
    target: bytes
    size: int
    mode: int
    mtime: int | None  # seconds; None where there is none that a file can have


def parse_header(block: bytes, after: bytes, *, is_first: bool) -> Header:
    """The header in a full block; ``after`` names the member before it, for messages."""
    raw_name, *fields, kind, target, magic, prefix = _FIELDS.unpack(block)
    usual = _USUAL.match(block, _MODE_AT)
    numbers: list[int | None]
    numbers = [int(digits, 8) for digits in usual.groups()] if usual else [parse_number(field) for field in fields]
    mode, size, mtime, checksum = numbers
    if checksum != _sum(block):
        if is_first:
            raise Rejected.because("not-a-tarball", "the file does not begin like a tar archive", PACK_AGAIN)
        raise Rejected.because(
            "bad-checksum",
            f"the header after {shown(after)} does not match its checksum",
            "It is damaged: upload it again.",
        )
    name = _text(raw_name)
    if magic not in (_POSIX, _GNU, _V7):
        raise Rejected.because("unknown-format", f"{shown(name)} has the header of an unknown format", PACK_AGAIN)
    # Where POSIX has the prefix GNU's format has times.
    if magic == _POSIX and prefix[0]:
        name = _text(prefix) + b"/" + name
    if size is None:
        raise Rejected.because("bad-number", f"the size of {shown(name)} is not a number", PACK_AGAIN)
    if mtime is not None and mtime >= _MAX_TIME:
        mtime = None
    return Header(kind, name, _text(target), size, mode or 0, mtime)


def parse_number(field: bytes) -> int | None:
    """A field's number, octal or base-256; None where it is neither, negative, or larger than any file."""
    octal = _OCTAL.fullmatch(field)
    if octal:
        return int(octal[1], 8)
    if field[0] == 0x80:  # GNU's base-256; 0xff begins a negative one
        number = int.from_bytes(field[1:], "big")
        return number if number < _MAX_NUMBER else None
    return None


def _sum(block: bytes) -> int:
    """The sum of the header's bytes, those of the checksum's own field counted as spaces.

    The low half of Adler-32 is one plus the sum of the bytes modulo 65521, which 256 bytes cannot reach: seven times
    as fast as sum(), for something that is done once for each member.
    """
    block = b"%b        %b" % (block[:_CHECKSUM_AT], block[_CHECKSUM_AT + 8 :])
    return (zlib.adler32(block[:256]) & 0xFFFF) + (zlib.adler32(block[256:]) & 0xFFFF) - 2


def _text(field: bytes) -> bytes:
    """A field up to its first zero byte."""
    return field.partition(b"\0")[0]

"""gzip by zlib and by isal: what one of them takes, both take, and for the same bytes."""

from __future__ import annotations

import os
import random
import zlib
from pathlib import Path

import pytest

from swapd.archive import decoders
from swapd.archive.decoders import Source, decoded_blocks
from swapd.model.errors import Rejected
from swapd.model.release import Compression
from tests.unit.archives import opened

TEXT, HEADER_CRC, EXTRA, NAME, COMMENT = 1, 2, 4, 8, 16  # the flags of RFC 1952


def member(content: bytes, flags: int, level: int) -> bytes:
    """A gzip member with these fields in its header, which no library writes."""
    header = bytes([0x1F, 0x8B, 8, flags]) + bytes(4) + b"\0\xff"
    header += b"\x06\0abcdef" if flags & EXTRA else b""
    header += b"name\0" if flags & NAME else b""
    header += b"comment\0" if flags & COMMENT else b""
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little") if flags & HEADER_CRC else b""
    deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflate.compress(content) + deflate.flush()
    return header + body + zlib.crc32(content).to_bytes(4, "little") + len(content).to_bytes(4, "little")


def damaged(data: bytes, chance: random.Random) -> bytes:
    """With up to three bits turned over, mostly in the head, or cut."""
    spoiled = bytearray(data)
    for _ in range(chance.randrange(4)):
        spoiled[chance.randrange(min(len(spoiled), chance.choice([12, 40, 1 << 20])))] ^= 1 << chance.randrange(8)
    return bytes(spoiled[: chance.randrange(len(spoiled))] if chance.random() < 0.1 else spoiled)


def decoded(data: bytes, file: Path) -> bytes | str:
    """What comes out, or ``refused``."""
    file.write_bytes(data)
    try:
        with opened(file, os.O_RDONLY) as descriptor:
            return b"".join(decoded_blocks(Source(descriptor), Compression.GZIP))
    except Rejected:
        return "refused"


@pytest.mark.skipif(decoders.igzip is None, reason="isal is not installed")
def test_both_take_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(7)
    taken = 0
    for _ in range(3000):
        content = bytes(chance.choice(b"abcdef\0") for _ in range(chance.choice([0, 10, 700])))
        data = member(content, chance.randrange(32), chance.choice([0, 1, 6, 9]))
        data += chance.choice([b"", b"", b"xyz", member(b"second", 0, 6)])
        data = damaged(data, chance)
        by_isal = decoded(data, tmp_path / "data")
        with monkeypatch.context() as without:
            without.setattr(decoders, "igzip", None)
            assert decoded(data, tmp_path / "data") == by_isal, data.hex()
        taken += by_isal != "refused"
    assert 100 < taken < 2900  # of both kinds there were enough

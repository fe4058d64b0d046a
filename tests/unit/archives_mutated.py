"""Archives from the hostile and the benign ones by small changes: the seeds of whatever fuzzes the reader."""

from __future__ import annotations

from swapd.archive import Limits
from swapd.model.release import Compression
from tests.unit import archives_benign, archives_hostile
from tests.unit.archives import compress, summed

LIMITS = Limits(max_extracted=1 << 20, max_entries=300)
SMALL = 20_000

# The order is fixed, so that a failure found here is found again.
SEEDS = [data for data in archives_benign.CASES.values() if len(data) < SMALL] + [
    data
    for case in archives_hostile.CASES
    if case.compression is Compression.NONE and 0 < len(data := case.build(b"/outside/canary")) < SMALL
]
COMPRESSED = {
    kind: [compress(data, kind) for data in (archives_benign.SITE, archives_benign.SITE[:-700])]
    for kind in (Compression.GZIP, Compression.XZ, Compression.BZIP2)
}
INTERESTING = [
    b"\0",
    b"/",
    b"..",
    b"../",
    b"./",
    b"\xff",
    b"\n",
    b"7",
    b"0",
    b" ",
    b"x",
    b"L",
    b"1",
    b"2",
    b"\x80",
    b"=",
]

Mutation = tuple[str, int, int, bytes]  # what, two numbers that say where, and what is put there
KINDS = ("set", "set", "set", "flip", "cut", "end", "copy", "zero", "swap", "insert")


# Where in a header block the fields are that mean something.
FIELDS = (0, 1, 99, 100, 124, 125, 135, 156, 157, 158, 257, 262, 345)
BYTES = ("set", "flip", "cut", "end", "insert")


def mutated(data: bytes, mutations: list[Mutation]) -> bytes:
    for kind, first, second, value in mutations:
        data = with_bytes(data, kind, first, second, value) if kind in BYTES else with_blocks(data, kind, first, second)
    return data


def with_bytes(data: bytes, kind: str, first: int, second: int, value: bytes) -> bytes:
    at = first % (len(data) + 1)
    match kind:
        case "set" if second % 2:
            at += FIELDS[second // 2 % len(FIELDS)] - at % 512
            return data[:at] + value + data[at + len(value) :]
        case "set":
            return data[:at] + value + data[at + len(value) :]
        case "flip":
            return data[:at] + bytes(byte ^ 1 << second % 8 for byte in data[at : at + 1]) + data[at + 1 :]
        case "cut":
            return data[:at] + data[at + second % 700 :]
        case "end":
            return data[:at]
        case _:
            return data[:at] + value + data[at:]


def with_blocks(data: bytes, kind: str, first: int, second: int) -> bytes:
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)] or [b""]
    here, there = first % len(blocks), second % len(blocks)
    match kind:
        case "copy":
            blocks[here:here] = blocks[there : there + 1 + second % 3]
        case "zero":
            blocks[here : here + second % 2] = [bytes(512)]
        case _:
            blocks[here], blocks[there] = blocks[there], blocks[here]
    return b"".join(blocks)


def with_checksums(data: bytes) -> bytes:
    """Each block that looks like a header with the checksum that it should have: most mutations would not come past
    it otherwise."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    return b"".join(summed(block) if len(block) == 512 and b"ustar" in block[250:270] else block for block in blocks)

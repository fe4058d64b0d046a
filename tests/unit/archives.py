"""Hostile and benign archives, made block by block, each case named by what it attacks or by what is odd about it.

Nothing here uses a tar library: what a library refuses to write is what has to be read.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import struct
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from swapd.archive import Extracted, Limits, extract_archive, extract_jailed
from swapd.model.release import Compression

MTIME = 1_600_000_000
END = bytes(1024)
LIMITS = Limits(max_extracted=64 << 20, max_entries=20_000)


# Writing headers


def octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, number)


def base256(number: int) -> bytes:
    return (
        (number & ((1 << 95) - 1) | 1 << 95).to_bytes(12, "big")
        if number >= 0
        else number.to_bytes(12, "big", signed=True)
    )


def summed(block: bytes) -> bytes:
    """The block with the checksum that belongs to it."""
    total = sum(block[:148]) + sum(block[156:512]) + 8 * 0x20
    return block[:148] + b"%06o\0 " % total + block[156:]


def header(
    name: bytes,
    kind: bytes = b"0",
    size: int | bytes = 0,
    *,
    mode: int | bytes = 0o644,
    target: bytes = b"",
    magic: bytes = b"ustar\0" + b"00",
    prefix: bytes = b"",
    mtime: int | bytes = MTIME,
) -> bytes:
    block = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            (octal(mode, 8) if isinstance(mode, int) else mode).ljust(8, b"\0"),
            octal(0, 8),
            octal(0, 8),
            (octal(size, 12) if isinstance(size, int) else size).ljust(12, b"\0"),
            (octal(mtime, 12) if isinstance(mtime, int) else mtime).ljust(12, b"\0"),
            b" " * 8,
            kind,
            target[:100].ljust(100, b"\0"),
            magic.ljust(8, b"\0"),
            b"root".ljust(32, b"\0") if magic.strip(b"\0") else bytes(32),
            b"root".ljust(32, b"\0") if magic.strip(b"\0") else bytes(32),
            octal(0, 8),
            octal(0, 8),
            prefix.ljust(155, b"\0"),
            bytes(12),
        )
    )
    return summed(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def file(name: bytes, content: bytes = b"content\n", kind: bytes = b"0", **fields: object) -> bytes:
    return header(name, kind, len(content), **fields) + padded(content)  # type: ignore[arg-type]


def directory(name: bytes, **fields: object) -> bytes:
    return header(name, b"5", mode=0o755, **fields)  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes) -> bytes:
    return header(name, b"2", target=target, mode=0o777)


def hard_link(name: bytes, target: bytes) -> bytes:
    return header(name, b"1", target=target)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length = len(b"%d" % length) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    return raw_pax(b"".join(record(key, value) for key, value in records), kind)


def raw_pax(content: bytes, kind: bytes = b"x") -> bytes:
    return header(b"PaxHeaders/file", kind, len(content)) + padded(content)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    return header(b"././@LongLink", kind, len(name) + 1, magic=b"ustar  \0") + padded(name + b"\0")


def tar(*members: bytes, end: bytes = END) -> bytes:
    return b"".join(members) + end


def compress(data: bytes, compression: Compression) -> bytes:
    match compression:
        case Compression.NONE:
            return data
        case Compression.GZIP:
            return gzip.compress(data, 6, mtime=0)
        case Compression.XZ:
            return lzma.compress(data, preset=0)
        case Compression.BZIP2:
            return bz2.compress(data)
        case Compression.ZSTD:
            return subprocess.run(["zstd", "-qc"], input=data, stdout=subprocess.PIPE, check=True).stdout


def xz_wanting(dictionary: int, data: bytes) -> bytes:
    """An xz file whose block header asks for a dictionary of 2**dictionary bytes."""
    packed = bytearray(lzma.compress(data, preset=0))
    # .xz format, 3.1: size, flags, filter 0x21, size of properties 1, the dictionary, padding, CRC32.
    length = (packed[12] + 1) * 4
    assert packed[14:16] == b"\x21\x01"
    packed[16] = (dictionary - 12) * 2
    packed[12 + length - 4 : 12 + length] = struct.pack("<I", zlib.crc32(packed[12 : 12 + length - 4]))
    return bytes(packed)


def zstd_wanting(window: int, data: bytes) -> bytes:
    """A zstd frame (RFC 8878, 3.1.1) of raw blocks that asks for a window of 2**window bytes."""
    pieces = [data[at : at + 65536] for at in range(0, len(data), 65536)]
    blocks = (struct.pack("<I", len(piece) << 3 | (piece is pieces[-1]))[:3] + piece for piece in pieces)
    return b"\x28\xb5\x2f\xfd\x00" + bytes([(window - 10) << 3]) + b"".join(blocks)


# Extracting them


@dataclass(frozen=True)
class Node:
    """What can be seen of one entry of a tree."""

    mode: int
    content: bytes | str | None
    mtime: int | None
    twins: tuple[str, ...]  # its other names


def tree(root: Path, *, with_our_modes: bool = False) -> dict[str, Node]:
    """Every entry below ``root``, on demand with the modes that swapd would give instead of its own. Directories'
    times, which depend on the order of writing, are left out."""
    inodes: dict[int, list[str]] = {}
    found: dict[str, os.stat_result] = {}
    for top, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(top, name)
            status = os.lstat(path)
            relative = path[len(str(root)) + 1 :]
            found[relative] = status
            if stat.S_ISREG(status.st_mode):
                inodes.setdefault(status.st_ino, []).append(relative)
    nodes = {name: _node(f"{root}/{name}", status, inodes) for name, status in found.items()}
    if not with_our_modes:
        return nodes
    return {name: replace(node, mode=our_mode(node.mode)) for name, node in nodes.items()}


def our_mode(mode: int) -> int:
    if stat.S_ISLNK(mode):
        return mode
    return stat.S_IFMT(mode) | (0o755 if stat.S_ISDIR(mode) or mode & 0o111 else 0o644)


def _node(path: str, status: os.stat_result, inodes: dict[int, list[str]]) -> Node:
    if stat.S_ISLNK(status.st_mode):
        return Node(stat.S_IFLNK, os.readlink(path), None, ())
    if stat.S_ISREG(status.st_mode):
        if not status.st_mode & stat.S_IRUSR:
            os.chmod(path, 0o600)
        with open(path, "rb") as content:
            return Node(status.st_mode, content.read(), int(status.st_mtime), tuple(sorted(inodes[status.st_ino])))
    return Node(status.st_mode, None, None, ())


class Site:
    """A staging directory with a canary beside it, which nothing may ever touch."""

    def __init__(self, root: Path) -> None:
        self.staging = root / "staging"
        self.canary = root / "canary"
        self.tarball = root / "tarball"
        self.root = root
        self.staging.mkdir()
        (self.canary / "below").mkdir(parents=True)
        (self.canary / "file").write_bytes(b"canary\n")
        (self.canary / "below" / "program").write_bytes(b"#!/bin/sh\n")
        (self.canary / "below" / "program").chmod(0o755)
        (self.canary / "link").symlink_to("file")
        self._before = self._outside()

    def _outside(self) -> dict[str, tuple[int, ...] | Node]:
        seen: dict[str, tuple[int, ...] | Node] = dict(tree(self.canary))
        for path in (self.canary, *self.canary.rglob("*")):
            status = os.lstat(path)
            seen[f"{path} itself"] = (
                status.st_ino, status.st_mode, status.st_nlink, status.st_uid, status.st_mtime_ns, status.st_ctime_ns
            )  # fmt: skip
        seen["root"] = tuple(sorted(hash(name) for name in os.listdir(self.root) if name != "tarball"))
        return seen

    def assert_nothing_outside_changed(self) -> None:
        assert self._outside() == self._before

    def assert_tree_is_tame(self) -> None:
        """Whatever came of it, complete or not: plain modes and types, and no link that leads out."""
        root = os.path.realpath(self.staging)
        for top, directories, files in os.walk(self.staging):
            for name in directories + files:
                path = os.path.join(top, name)
                mode = os.lstat(path).st_mode
                if stat.S_ISLNK(mode):
                    assert Path(os.path.realpath(path)).is_relative_to(root), path
                else:
                    assert mode in (stat.S_IFREG | 0o600, stat.S_IFREG | 0o644, stat.S_IFREG | 0o755,
                                    stat.S_IFDIR | 0o755), path  # fmt: skip

    def extract(
        self,
        data: bytes,
        compression: Compression = Compression.NONE,
        *,
        strip: int | None = 0,
        limits: Limits = LIMITS,
        progress: Callable[[int], None] = lambda _: None,
        jailed: bool = False,
    ) -> Extracted:
        extract = extract_jailed if jailed else extract_archive
        self.tarball.write_bytes(data)
        with opened(self.tarball, os.O_RDONLY) as descriptor, opened(self.staging, os.O_DIRECTORY) as into:
            return extract(descriptor, compression, into, limits, strip_components=strip, progress=progress)


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Fails on a descriptor, a thread or a child that outlives the block."""
    descriptors = os.listdir("/proc/self/fd")
    threads = threading.enumerate()
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text()
    yield
    assert os.listdir("/proc/self/fd") == descriptors
    assert threading.enumerate() == threads
    assert children.read_text() == before

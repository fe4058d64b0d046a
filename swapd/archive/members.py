"""An archive's members in their order, and its end, read strictly.

A tarball must be the same tree for whoever looks at it before swapd does, so what programs read differently is
refused, and so is an archive that does not end as POSIX says: two blocks of zeros, and nothing but padding after them.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from swapd.archive.blocks import SIZE, UPLOAD_AGAIN, BlockReader
from swapd.archive.budget import Budget
from swapd.archive.extensions import PAX_GLOBAL, TYPES, Extension, check_global, contradiction
from swapd.archive.headers import PACK_AGAIN, Header, parse_header
from swapd.archive.limits import MAX_EXTENSION_BYTES, MAX_GLOBAL_HEADERS, MAX_PADDING_BYTES
from swapd.archive.names import shown
from swapd.model.errors import Rejected

ZEROS = bytes(SIZE)


class Kind(Enum):
    """What a member is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARD_LINK = "hard link"


class Member(NamedTuple):
    """One member, its name and target still as the archive has them. A tuple, as ``Header`` is."""

    kind: Kind
    name: bytes
    target: bytes
    size: int
    is_executable: bool
    mtime: int | None  # seconds; None where the header has none that a file can have


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,  # "contiguous", which no filesystem of ours knows
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"5": Kind.DIRECTORY,
}
_LEAVE_OUT = "A site has no use for it: leave it out."
_WITHOUT_SPARSE = "Pack without --sparse."
_REFUSED = {
    b"3": ("character-device", "a character device", _LEAVE_OUT),
    b"4": ("block-device", "a block device", _LEAVE_OUT),
    b"6": ("fifo", "a FIFO", _LEAVE_OUT),
    b"S": ("sparse-file", "a sparse file", _WITHOUT_SPARSE),
    b"M": ("multi-volume", "the continuation of a file from another volume", "Pack one tarball."),
    b"D": ("incremental-dump", "a directory of an incremental backup", "Pack without --listed-incremental."),
    b"V": ("volume-label", "a volume label", "Pack without --label."),
}


class MemberReader:
    """The members of an archive in their order; ``Rejected`` for everything that is not strictly in order.

    After ``next_member`` returned a file its content is read by ``body``, or skipped by the next call.
    """

    def __init__(self, reader: BlockReader, budget: Budget) -> None:
        self._reader = reader
        self._budget = budget
        self._is_first = True
        self._globals = 0
        self._last = b""  # the name that messages tell
        self._body = 0  # bytes of content that were not read yet, and of padding after them
        self._padding = 0

    def next_member(self) -> Member | None:
        """The next member; None when the archive ended as it must, and the stream with it."""
        extension = Extension()
        while True:
            self._finish_body()
            block = self._reader.header()
            if block == ZEROS:
                self._check_end(extension)
                return None
            header = self._parse(block)
            if header.type not in TYPES:
                return self._member(header, extension)
            content = self._extension_content(header)
            if header.type != PAX_GLOBAL:
                extension.add(header, content)
            elif extension.types:
                raise contradiction(header.name)
            else:
                self._count_global()
                check_global(content)

    def body(self) -> Iterable[memoryview]:
        """The content of the file that ``next_member`` returned last, to be read to its end."""
        count, self._body = self._body, 0
        return self._reader.pieces(count, self._last)

    def _finish_body(self) -> None:
        if self._body or self._padding:
            self._reader.skip(self._body + self._padding, self._last)
            self._body = self._padding = 0

    def _parse(self, block: bytes) -> Header:
        if len(block) < SIZE:
            after = f"after {shown(self._last)}" if self._last else "before its first member"
            if block:
                raise Rejected.because("truncated", f"the archive ends inside the header {after}", UPLOAD_AGAIN)
            raise Rejected.because(
                "missing-end-marker", f"the archive ends {after} without its end marker", UPLOAD_AGAIN
            )
        header = parse_header(block, self._last, is_first=self._is_first)
        self._is_first = False
        self._last = header.name
        return header

    def _member(self, header: Header, extension: Extension) -> Member:
        name = header.name if extension.name is None else extension.name
        size = header.size if extension.size is None else extension.size
        self._last = name
        self._budget.charge_member(name)
        kind = _kind(header, name)
        if kind is Kind.FILE:
            self._budget.charge_bytes(size, name)
            self._body, self._padding = size, -size % SIZE
        elif size:
            # GNU tar skips these bytes; bsdtar and Python do or do not, depending on the type.
            raise Rejected.because(
                "unexpected-content", f"{shown(name)} is a {kind.value} and claims {size} bytes of content", PACK_AGAIN
            )
        target = header.target if extension.target is None else extension.target
        return Member(kind, name, target, size, bool(header.mode & 0o111), header.mtime)

    def _extension_content(self, header: Header) -> bytes:
        if header.size > MAX_EXTENSION_BYTES:
            raise Rejected.because(
                "header-too-large",
                f"the extension header {shown(header.name)} has {header.size} bytes, "
                f"and {MAX_EXTENSION_BYTES} are allowed",
                "Pack without extended attributes.",
            )
        self._budget.charge_bytes(header.size, header.name)
        self._padding = -header.size % SIZE
        return b"".join(self._reader.pieces(header.size, header.name))

    def _count_global(self) -> None:
        self._globals += 1
        if self._globals > MAX_GLOBAL_HEADERS:
            raise Rejected.because(
                "too-many-headers", f"there are more than {MAX_GLOBAL_HEADERS} global headers", PACK_AGAIN
            )

    def _check_end(self, extension: Extension) -> None:
        """The second zero block, then nothing but padding up to the stream's verified end."""
        if extension.types:
            raise Rejected.because(
                "dangling-header", "the archive ends after a header that announces a member", UPLOAD_AGAIN
            )
        second = self._reader.header()
        if len(second) < SIZE:
            raise Rejected.because("missing-end-marker", "the archive's end marker is cut off", UPLOAD_AGAIN)
        if second != ZEROS:
            raise Rejected.because(
                "lone-zero-block",
                "after half an end marker the archive goes on",
                "Was another archive appended, or is a part missing? " + PACK_AGAIN,
            )
        padding = 0
        for chunk in self._reader.rest():
            padding += len(chunk)
            if chunk.count(0) != len(chunk) or padding > MAX_PADDING_BYTES:
                what = "zeros" if chunk.count(0) == len(chunk) else "other bytes"
                raise Rejected.because(
                    "trailing-garbage",
                    f"more {what} follow the archive's end than padding explains",
                    "Was something appended? " + PACK_AGAIN,
                )


def _kind(header: Header, name: bytes) -> Kind:
    kind = _KINDS.get(header.type)
    if kind is None:
        problem, what, hint = _REFUSED.get(
            header.type, ("unknown-type", f"a member of an unknown type, {shown(header.type)}", _LEAVE_OUT)
        )
        raise Rejected.because(problem, f"{shown(name)} is {what}", hint)
    if name.endswith(b"/") and kind is not Kind.DIRECTORY:
        # V7 had no type for directories and told them by their slash; later formats have one.
        if header.type == b"\0":
            return Kind.DIRECTORY
        raise Rejected.because(
            "slash-after-file", f"{shown(name)} is a {kind.value} named like a directory", PACK_AGAIN
        )
    return kind

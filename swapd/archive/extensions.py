"""What headers before a member say of it: pax records (POSIX.1-2017, "pax Extended Header") and GNU's long names.

Where programs disagree on which of two statements counts, neither does: the tarball is refused, because it would be
different trees for different readers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from swapd.archive.headers import PACK_AGAIN, Header
from swapd.archive.names import shown
from swapd.model.errors import Rejected

PAX, PAX_GLOBAL, LONG_NAME, LONG_TARGET = b"x", b"g", b"L", b"K"
TYPES = frozenset((PAX, PAX_GLOBAL, LONG_NAME, LONG_TARGET))

_LENGTH = re.compile(rb"([1-9][0-9]{0,6}) ")
_NUMBER = re.compile(rb"[0-9]{1,19}")
_MEANT = (b"path", b"linkpath", b"size")
# Each makes the member's content something else than the file's bytes.
_REFUSED_PREFIXES = {
    b"GNU.sparse.": ("sparse-file", "a sparse file", "Pack without --sparse."),
    b"SCHILY.realsize": ("sparse-file", "a sparse file", "Pack without -sparse."),
    b"SUN.holesdata": ("sparse-file", "a sparse file", "Pack it with another tar program."),
    b"GNU.volume.": ("multi-volume", "one volume of several", "Pack one tarball."),
}


@dataclass(slots=True)
class Extension:
    """Name, target and size that override the member's own header; None where that one counts."""

    name: bytes | None = None
    target: bytes | None = None
    size: int | None = None
    types: bytes = b""

    def add(self, header: Header, content: bytes) -> None:
        """Takes in an extension header of the coming member; ``Rejected`` when it is broken or contradicts another."""
        if header.type in self.types:
            raise contradiction(header.name)
        self.types += header.type
        if header.type == LONG_NAME:
            self.name = _once(self.name, _long_name(content))
        elif header.type == LONG_TARGET:
            self.target = _once(self.target, _long_name(content))
        else:
            self._add_pax(parse_pax(content))

    def _add_pax(self, records: dict[bytes, bytes]) -> None:
        if b"path" in records:
            self.name = _once(self.name, records[b"path"])
        if b"linkpath" in records:
            self.target = _once(self.target, records[b"linkpath"])
        if b"size" in records:
            if not _NUMBER.fullmatch(records[b"size"]):
                raise bad_pax(f"its size is {shown(records[b'size'])}")
            self.size = int(records[b"size"])


def parse_pax(content: bytes) -> dict[bytes, bytes]:
    """The records that tell a member's name, target or size. All others (times, owners, comments, extended
    attributes) are checked for their form and left out, and those that change what the content means are refused."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(content):
        length = _LENGTH.match(content, at)
        end = at + int(length[1]) if length else 0
        if length is None or content[end - 1 : end] != b"\n":
            raise bad_pax(f"its record at byte {at} has a wrong length")
        key, equals, value = content[length.end() : end - 1].partition(b"=")
        if not equals or not key:
            raise bad_pax(f"its record at byte {at} has no keyword")
        _refuse_prefix(key)
        if key in _MEANT:
            if key in records:
                raise bad_pax(f"it says {shown(key)} twice")
            if not value:
                raise bad_pax(f"its {shown(key)} is empty")
            records[key] = value
        at = end
    return records


def check_global(content: bytes) -> None:
    """``Rejected`` unless a global header says nothing of the members, as the comment of `git archive`."""
    records = parse_pax(content)
    if records:
        keys = ", ".join(shown(key) for key in records)
        raise Rejected.because("global-name", f"a global header sets {keys} for every member", PACK_AGAIN)


def contradiction(name: bytes) -> Rejected:
    """Headers that do not go together."""
    return Rejected.because(
        "conflicting-headers", f"the headers before {shown(name)} contradict each other", PACK_AGAIN
    )


def bad_pax(what: str) -> Rejected:
    """A pax header that is broken."""
    return Rejected.because("bad-pax-header", f"a pax header is broken: {what}", PACK_AGAIN)


def _refuse_prefix(key: bytes) -> None:
    for prefix, (problem, what, hint) in _REFUSED_PREFIXES.items():
        if key.startswith(prefix):
            raise Rejected.because(problem, f"a pax header says {shown(key)}: the member is {what}", hint)


def _long_name(content: bytes) -> bytes:
    name, _, rest = content.partition(b"\0")
    if rest.strip(b"\0"):
        raise Rejected.because("bad-long-name", f"bytes are hidden behind the long name {shown(name)}", PACK_AGAIN)
    return name


def _once(there: bytes | None, value: bytes) -> bytes:
    """``value``, unless another header of the same member set it already: programs disagree on which one counts."""
    if there is not None:
        raise Rejected.because(
            "conflicting-headers", f"two headers of one member name it: {shown(there)} and {shown(value)}", PACK_AGAIN
        )
    return value

"""What an uploader lays beside a tarball: digests as ``sha256sum`` prints them, and signatures."""

from __future__ import annotations

import os
import re
from collections.abc import Container

from swapd.model.control import is_control
from swapd.model.release import DIGEST, Digest, SidecarKind

_LINE = re.compile(rb"([0-9A-Fa-f]{64}) [ *](.+)")
_SHORTEST = 64 + len("  x")
_TAGGED = re.compile(rb"SHA256 \((.+)\) = ([0-9A-Fa-f]{64})")


def kinds_beside(tarball: str, names: Container[str], listed: Container[str]) -> list[SidecarKind]:
    """The sidecars of a tarball among the files of these names; ``listed`` are the tarballs that SHA256SUMS lists.

    A control file has no other than its signature.
    """
    if is_control(tarball):
        return [SidecarKind.SIGNATURE] if SidecarKind.SIGNATURE.file_name(tarball) in names else []
    kinds = [kind for kind in SidecarKind if "TARBALL" in kind.value and kind.file_name(tarball) in names]
    if tarball in listed and SidecarKind.DIGEST not in kinds:
        kinds += [kind for kind in (SidecarKind.SUMS, SidecarKind.SUMS_SIGNATURE) if kind.value in names]
    return kinds


def has_digest(kinds: frozenset[SidecarKind]) -> bool:
    """Whether sidecars of these kinds tell the tarball's digest."""
    return not kinds.isdisjoint((SidecarKind.DIGEST, SidecarKind.SUMS))


def has_signature(kinds: frozenset[SidecarKind]) -> bool:
    """Whether among sidecars of these kinds is a signature with what it signs."""
    return (
        SidecarKind.SIGNATURE in kinds
        or {SidecarKind.DIGEST, SidecarKind.DIGEST_SIGNATURE} <= kinds
        or {SidecarKind.SUMS, SidecarKind.SUMS_SIGNATURE} <= kinds
    )


def parse_sums(text: bytes) -> dict[str, Digest]:
    """The digests that ``sha256sum`` printed, with ``--tag`` too, by the last components of the files' names.

    What is no such line is left out. Of two lines for one name the first counts.
    """
    digests: dict[str, Digest] = {}
    for line in text.splitlines():
        if len(line) < _SHORTEST:  # of a megabyte of line ends, each would cost two looks
            continue
        match, tagged = _LINE.fullmatch(line), _TAGGED.fullmatch(line)
        digest, path = (match[1], match[2]) if match else (tagged[2], tagged[1]) if tagged else (b"", b"")
        if digest:
            digests.setdefault(os.fsdecode(path.rpartition(b"/")[2]), Digest(digest.decode().lower()))
    return digests


def parse_sidecar(text: bytes, file_name: str) -> Digest | None:
    """The digest that a tarball's own sidecar says, as ``sha256sum`` prints it, or alone; None where it says none."""
    for line in text.splitlines():
        if DIGEST.fullmatch(line.strip().decode("ascii", "replace").lower()):
            return Digest(line.strip().decode().lower())
        if (digest := parse_sums(line).get(file_name)) is not None:
            return digest
    return None

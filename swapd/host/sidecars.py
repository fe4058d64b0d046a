"""Sidecars on the disk of a drop directory, where any name may be anything."""

from __future__ import annotations

import errno
from pathlib import Path

from swapd.host.files import opened, opened_directory
from swapd.model.errors import Rejected
from swapd.model.release import SUMS, Digest
from swapd.model.sidecars import parse_sums

MAX_SIDECAR = 64 << 10
MAX_SUMS = 1 << 20


def read_beside(directory: int, name: str, limit: int = MAX_SIDECAR) -> bytes | None:
    """A sidecar's content, at most one byte more than ``limit``; None where there is none.

    ``Rejected`` (``not-a-regular-file``) where something else has its name; raises ``OSError``.
    """
    try:
        with opened(directory, name) as (descriptor, _), open(descriptor, "rb", closefd=False) as file:
            return file.read(limit + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return None


def read_sums(incoming: Path) -> dict[str, Digest]:
    """The digests that the directory's SHA256SUMS lists, by file name; none where there is none that can be read."""
    with opened_directory(incoming) as directory:
        return parse_sums(read_sums_text(directory) or b"")


def read_sums_text(directory: int) -> bytes | None:
    """The directory's SHA256SUMS; None where there is none that can be read.

    Whatever else has that name must not hold up the tarballs, which may never have been meant to be in it.
    """
    try:
        text = read_beside(directory, SUMS, MAX_SUMS)
    except (OSError, Rejected):
        return None
    return text if text is not None and len(text) <= MAX_SUMS else None

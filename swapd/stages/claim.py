"""Claim: from an upload that anybody may still change to a private copy that nobody can, and its digest.

Facts that this stage rests on:

- Its uploader can write to a file that was verified. So the bytes are copied once, while they are digested, and
  every later stage reads the copy through the descriptor that was digested.
- The drop directory is hostile: a name in it may be a FIFO, a device or a link, and may become one between a look
  and an open. O_PATH opens nothing but the name; what is then checked is what is read, through ``/proc/self/fd``.
- scp and sftp close a cut-off upload as they close a whole one. Only quiet, a sidecar and the archive's own end tell.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from swapd.host import linux
from swapd.host.files import closing_descriptor, fingerprint, opened
from swapd.host.refusals import explain
from swapd.host.room import RoomKeeper
from swapd.host.sidecars import MAX_SIDECAR, read_beside, read_sums_text
from swapd.host.users import user_name
from swapd.model.errors import Failed, NotComplete, Rejected
from swapd.model.release import (
    Digest,
    SidecarKind,
    Signature,
    Tarball,
    Upload,
    parse_tarball_name,
    printable,
)
from swapd.model.sidecars import parse_sidecar, parse_sums
from swapd.model.units import format_size

CHUNK = 1 << 20


@contextlib.contextmanager
def claim(upload: Upload, claims: str, max_tarball: int, progress: Callable[[int], None]) -> Iterator[Tarball]:
    """The tarball as a private copy, for as long as the context lasts; the upload itself stays as it is.

    ``claims`` is a directory of our own; the copy has no name there, so a crash leaves nothing. ``progress`` is told
    the bytes copied so far. Raises ``NotComplete`` while somebody writes to the upload, ``Rejected`` for what cannot
    be a tarball, ``Failed`` (``no-space``, ``cannot-claim`` …) when this host cannot make the copy.
    """
    name, compression = parse_tarball_name(upload.file_name)
    try:
        copy = os.open(claims, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _failed(upload, claims, error) from error
    with closing_descriptor(copy):
        try:
            directory = os.open(upload.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with closing_descriptor(directory), opened(directory, upload.file_name) as (source, before):
                _refuse_writer(upload, source)
                expected, signatures = _read_sidecars(upload, directory)
                digest, size = _copy(source, copy, max_tarball, _keeper(upload, claims, copy), progress)
                if fingerprint(os.fstat(source)) != fingerprint(before):
                    raise NotComplete("still-changing", f"{printable(upload.file_name)} changed while it was read")
        except BlockingIOError as error:  # its owner holds a write lease on it
            raise NotComplete("still-open", f"{printable(upload.file_name)} is still open for writing") from error
        except FileNotFoundError as error:
            raise NotComplete("vanished", f"{printable(upload.file_name)} is gone") from error
        except OSError as error:
            raise _failed(upload, claims, error) from error
        yield Tarball(
            upload,
            name,
            compression,
            digest,
            size,
            copy,
            fingerprint(before),
            expected,
            user_name(before.st_uid),
            signatures,
        )


def _failed(upload: Upload, claims: str, error: OSError) -> Failed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return explain(error, Path(claims))
    hint = "The upload and the live release are untouched."
    if error.errno == errno.EIO:
        hint += f" A disk is failing, under the upload or under {claims}: see the kernel's log, then touch the tarball."
    return Failed("cannot-claim", f"{printable(upload.file_name)} cannot be copied: {error.strerror}", hint)


def _keeper(upload: Upload, claims: str, copy: int) -> RoomKeeper:
    return RoomKeeper(copy, Path(claims), f"the private copy of {printable(upload.file_name)}")


def _refuse_writer(upload: Upload, descriptor: int) -> None:
    if upload.is_dropped and linux.has_writer(descriptor):
        raise NotComplete("still-open", f"{printable(upload.file_name)} is still open for writing")


def _copy(
    source: int, copy: int, limit: int, keeper: RoomKeeper, progress: Callable[[int], None]
) -> tuple[Digest, int]:
    """Copies and digests in one pass; where the filesystem shares blocks, only the digest is computed."""
    is_shared = linux.ficlone(copy, source)
    if not is_shared:
        keeper.refuse_lack(min(os.fstat(source).st_size, limit), 0)
    digest = hashlib.sha256()
    size = 0
    while chunk := os.read(copy if is_shared else source, CHUNK):
        size += len(chunk)
        if size > limit:
            raise Rejected.because(
                "tarball-too-large",
                f"the tarball is larger than max_tarball = {format_size(limit)}",
                "Make it smaller, or raise [verify] max_tarball in the site's configuration.",
            )
        digest.update(chunk)
        rest = memoryview(b"" if is_shared else chunk)
        while rest:
            rest = rest[os.write(copy, rest) :]
        if not is_shared:
            keeper.keep_room()
        progress(size)
    os.lseek(copy, 0, os.SEEK_SET)
    return Digest(digest.hexdigest()), size


def _read_sidecars(upload: Upload, directory: int) -> tuple[Digest | None, tuple[Signature, ...]]:
    """The digest that the tarball shall have, and its signatures."""
    name = upload.file_name
    own = SidecarKind.DIGEST.file_name(name)
    text = read_beside(directory, own)
    signed, expected = SidecarKind.DIGEST_SIGNATURE.file_name(name), None
    if text is not None:
        expected = _parse_own(upload, own, text)
    elif (text := read_sums_text(directory)) is not None:
        signed, expected = SidecarKind.SUMS_SIGNATURE.file_name(name), parse_sums(text).get(name)
    signatures = []
    for file_name, content in ((SidecarKind.SIGNATURE.file_name(name), None), (signed, text)):
        if file_name == signed and expected is None:
            continue
        signature = read_beside(directory, file_name)
        if signature is not None:
            signatures.append(Signature(file_name, signature, content))
    return expected, tuple(signatures)


def _parse_own(upload: Upload, name: str, text: bytes) -> Digest:
    if len(text) > MAX_SIDECAR or (digest := parse_sidecar(text, upload.file_name)) is None:
        if not upload.is_settled:
            raise NotComplete("sidecar-incomplete", f"{printable(name)} does not have the digest yet")
        raise Rejected.because(
            "bad-sidecar",
            f"{printable(name)} does not say the SHA-256 of {printable(upload.file_name)}",
            "Make it beside the tarball: sha256sum TARBALL > TARBALL.sha256",
        )
    return digest

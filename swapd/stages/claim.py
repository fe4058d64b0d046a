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
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from swapd.host import linux
from swapd.host.files import closing_descriptor, fingerprint, write_all
from swapd.host.refusals import AGAIN, explain
from swapd.host.room import RoomKeeper
from swapd.host.sidecars import MAX_SIDECAR, read_beside, read_sums_text
from swapd.host.uploads import reading
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
from swapd.model.room import UNTOUCHED
from swapd.model.sidecars import parse_sidecar, parse_sums
from swapd.model.units import format_size

CHUNK = 1 << 20
NAMED = ".claim-"  # a copy, for the instant in which it has a name


@contextlib.contextmanager
def claim(upload: Upload, claims: str, max_tarball: int, progress: Callable[[int], None]) -> Iterator[Tarball]:
    """The tarball as a private copy, for as long as the context lasts; the upload itself stays as it is.

    ``claims`` is a directory of our own; the copy has no name there, so a crash leaves nothing. ``progress`` is told
    the bytes copied so far. Raises ``NotComplete`` while somebody writes to the upload, ``Rejected`` for what cannot
    be a tarball, ``Failed`` (``no-space``, ``cannot-claim`` …) when this host cannot make the copy.
    """
    name, compression = parse_tarball_name(upload.file_name)
    try:
        copy = _open_nameless(claims)
    except OSError as error:
        raise _failed(upload, claims, error) from error
    with closing_descriptor(copy):
        try:
            with reading(upload) as (directory, source, before):
                _refuse_too_large(before.st_size, max_tarball)
                expected, signatures = _read_sidecars(upload, directory)
                digest, size = _copy(source, copy, max_tarball, _keeper(upload, claims, copy), progress)
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


def confirm(tarball: Tarball) -> None:
    """After what read the copy: ``Failed`` (``input-output-error``) where it may not have read what was digested.

    A page that could not be written to the disk may be dropped from memory, and is then read from the disk as it was.
    """
    try:
        linux.sync_file_range(tarball.descriptor, 0, 1, linux.SYNC_FILE_RANGE_WAIT_BEFORE)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS):
            return  # a filter of system calls that does not know it, as some containers have
        raise Failed(
            "input-output-error",
            f"the private copy of {printable(tarball.upload.file_name)} did not reach its disk: {error.strerror}",
            f"{UNTOUCHED} A disk is failing, that of swapd's own state: see the kernel's log (journalctl -k); then "
            f"{AGAIN}",
        ) from error


def _open_nameless(directory: str) -> int:
    """A new file without a name, so that nobody else finds it and a crash leaves nothing of it."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        # A filesystem that has none, such as many FUSE ones, says the first; a kernel that does not know it the second.
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
    path = os.path.join(directory, f"{NAMED}{secrets.token_hex(8)}")
    copy = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.unlink(path)
    except OSError:
        os.close(copy)
        raise
    return copy


def sweep_claims(claims: Path) -> None:
    """Removes what a crash left where a copy needs a name for an instant; under the site's lock."""
    for path in claims.glob(f"{NAMED}*"):
        path.unlink(missing_ok=True)


def _refuse_too_large(size: int, limit: int) -> None:
    if size > limit:
        raise Rejected.because(
            "tarball-too-large",
            f"the tarball has {format_size(size)} ({size} bytes), and max_tarball = {format_size(limit)}",
            "Make it smaller, or raise [verify] max_tarball in the site's configuration.",
        )


def _failed(upload: Upload, claims: str, error: OSError) -> Failed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return explain(error, Path(claims))
    hint = UNTOUCHED
    if error.errno == errno.EIO:
        hint += f" A disk is failing, under the upload or under {claims}: see the kernel's log, then {AGAIN}"
    return Failed("cannot-claim", f"{printable(upload.file_name)} cannot be copied: {error.strerror}", hint)


def _keeper(upload: Upload, claims: str, copy: int) -> RoomKeeper:
    return RoomKeeper(copy, Path(claims), f"the private copy of {printable(upload.file_name)}")


def _copy(
    source: int, copy: int, limit: int, keeper: RoomKeeper, progress: Callable[[int], None]
) -> tuple[Digest, int]:
    """Copies and digests in one pass; where the filesystem shares blocks, only the digest is computed."""
    is_shared = linux.ficlone(copy, source)
    if not is_shared:
        keeper.refuse_lack(os.fstat(source).st_size, 0)
    digest = hashlib.sha256()
    size = 0
    for chunk in _pieces(copy) if is_shared else _copied_pieces(source, copy):
        size += len(chunk)
        _refuse_too_large(size, limit)  # one that grows while it is read
        digest.update(chunk)
        if not is_shared:
            keeper.keep_room()
        progress(size)
    os.lseek(copy, 0, os.SEEK_SET)
    return Digest(digest.hexdigest()), size


def _pieces(descriptor: int) -> Iterator[bytes]:
    while chunk := os.read(descriptor, CHUNK):
        yield chunk


def _copied_pieces(source: int, copy: int) -> Iterator[bytes]:
    """The bytes as they come to be in the copy: put there by the kernel and read from it, or by us where that cannot.

    On one machine's disks either takes as long as the other; a file server copies without sending.
    """
    at = 0
    while done := linux.copy_file_range(source, copy, CHUNK):
        yield os.pread(copy, done, at)
        at += done
    for chunk in _pieces(source):
        write_all(copy, chunk)
        yield chunk


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

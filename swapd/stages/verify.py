"""Verify: a tarball's bytes are what the site's ``[verify] require`` asks for.

Integrity has two halves: that the file is of the kind that its name says is seen here, on its first bytes; that the
stream and the archive are whole to their last byte is seen by ``extract``, which reads them once, strictly, and
gives no tree otherwise. Decompressing twice would double the time of a deployment and prove nothing more.

A signature is ssh-keygen's to judge, in a jail, over the private copy that is extracted afterwards: its uploader can
change nothing of that, nor of the signature and the digest file, which were read when the copy was made.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

from swapd.host.signatures import Signed, check, in_memory, read_signers
from swapd.model.config import Require, Site
from swapd.model.errors import Issue, NotComplete, Rejected
from swapd.model.release import Compression, Signature, Tarball, VerifiedTarball, printable
from swapd.model.sshsig import NAMESPACE

# The magic numbers of RFC 1952, RFC 8878, the .xz file format 1.1, bzip2's, and POSIX ustar at offset 257.
MAGIC = {
    Compression.GZIP: (0, b"\x1f\x8b\x08"),
    Compression.ZSTD: (0, b"\x28\xb5\x2f\xfd"),
    Compression.XZ: (0, b"\xfd7zXZ\x00"),
    Compression.BZIP2: (0, b"BZh"),
    Compression.NONE: (257, b"ustar"),
}

# What may be wrong with a signature only because it, or the tarball, has not arrived as a whole yet.
UNFINISHED = {"bad-signature", "signature-mismatch"}


def verify(tarball: Tarball, site: Site, keep_going: Callable[[], None] = lambda: None) -> VerifiedTarball:
    """The tarball as one that may be extracted, with its signer where the site requires one.

    ``Rejected`` says what it lacks. Raises ``NotComplete`` instead of a digest's or a signature's rejection while the
    upload may still be going on, and ``Failed`` where this host's list of signers, or its ssh-keygen, cannot serve.
    ``keep_going`` is called while a large tarball's signature is verified, and may raise. ssh-keygen is a child process
    without rights, which dies with this one; this one must have no threads.
    """
    require = site.verify.require
    _check_digest(tarball, is_required=require is Require.DIGEST)
    signer = _find_signer(tarball, site, keep_going) if require is Require.SIGNATURE else ""
    offset, magic = MAGIC[tarball.compression]
    if os.pread(tarball.descriptor, len(magic), offset) != magic:
        name = printable(tarball.upload.file_name)
        if tarball.size == 0:
            raise Rejected.because("empty-file", f"{name} is empty", "Upload it again.")
        raise Rejected.because(
            "wrong-format",
            f"{name} is not the {tarball.compression.value} tarball that its name says",
            "Name it after what it is, or pack it again: swapd pack DIR",
        )
    return VerifiedTarball(tarball, signer)


def _check_digest(tarball: Tarball, *, is_required: bool) -> None:
    name = printable(tarball.upload.file_name)
    if tarball.expected is None and is_required:
        hint = f"Upload {name}.sha256 beside it, as sha256sum prints."
        if tarball.upload.is_dropped:
            raise NotComplete("waits-for-sidecar", f"{name} waits for its sidecar {name}.sha256", hint)
        raise Rejected.because("digest-missing", f"{name} has no sidecar {name}.sha256", hint)
    if tarball.expected is not None and tarball.expected != tarball.digest:
        if not tarball.upload.is_settled:
            raise NotComplete("digest-differs-yet", f"{name} does not have its digest yet")
        raise Rejected.because(
            "digest-mismatch",
            f"{name} has the digest {tarball.digest}, and its sidecar says {tarball.expected}",
            "The upload was cut off or changed, or the sidecar is another tarball's: upload both again.",
        )


def _find_signer(tarball: Tarball, site: Site, keep_going: Callable[[], None]) -> str:
    """Who signed the tarball, or its digest: one signature that holds is enough."""
    name = printable(tarball.upload.file_name)
    if not tarball.signatures:
        hint = f"Sign it with a key of its own: ssh-keygen -Y sign -n {NAMESPACE} -f KEY {name}, and upload {name}.sig."
        if tarball.upload.is_dropped:
            raise NotComplete("waits-for-signature", f"{name} waits for its signature {name}.sig", hint)
        raise Rejected.because("signature-missing", f"{name} has no signature {name}.sig", hint)
    signers = read_signers(site.verify.allowed_signers)
    issues: list[Issue] = []
    for signature in tarball.signatures:
        with _signed(tarball, signature) as data:
            signed = Signed(data, signature.content, keep_going)
            checked = check(signed, signers, (NAMESPACE, f"{NAMESPACE}:{site.name}"))
        if not isinstance(checked, Issue):
            return printable(checked)
        issues.append(replace(checked, message=f"{printable(signature.file_name)}: {checked.message}"))
    if not tarball.upload.is_settled and {issue.problem for issue in issues} & UNFINISHED:
        raise NotComplete("signature-differs-yet", f"{name} does not have its signature yet")
    raise Rejected(issues)


@contextlib.contextmanager
def _signed(tarball: Tarball, signature: Signature) -> Iterator[int]:
    """What the signature is to be one of: our copy of the tarball, or of the digest file, which says its digest."""
    if signature.signed is None:
        yield tarball.descriptor
    else:
        with in_memory(signature.signed) as descriptor:
            yield descriptor

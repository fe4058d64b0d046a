"""Verify: a tarball's bytes are what the site's ``[verify] require`` asks for.

Integrity has two halves: that the file is of the kind that its name says is seen here, on its first bytes; that the
stream and the archive are whole to their last byte is seen by ``extract``, which reads them once, strictly, and
gives no tree otherwise. Decompressing twice would double the time of a deployment and prove nothing more.
"""

from __future__ import annotations

import os

from swapd.model.config import Require, Verify
from swapd.model.errors import NotComplete, Rejected
from swapd.model.release import Compression, Tarball, VerifiedTarball, printable

# The magic numbers of RFC 1952, RFC 8878, the .xz file format 1.1, bzip2's, and POSIX ustar at offset 257.
MAGIC = {
    Compression.GZIP: (0, b"\x1f\x8b\x08"),
    Compression.ZSTD: (0, b"\x28\xb5\x2f\xfd"),
    Compression.XZ: (0, b"\xfd7zXZ\x00"),
    Compression.BZIP2: (0, b"BZh"),
    Compression.NONE: (257, b"ustar"),
}


def verify(tarball: Tarball, rules: Verify) -> VerifiedTarball:
    """The tarball as one that may be extracted; ``Rejected`` says what it lacks.

    Raises ``NotComplete`` instead of a digest's rejection while the upload may still be going on.
    """
    upload = tarball.upload
    name = printable(upload.file_name)
    if tarball.expected is None and rules.require is not Require.INTEGRITY:
        hint = f"Upload {name}.sha256 beside it, as sha256sum prints."
        if upload.is_dropped:
            raise NotComplete("waits-for-sidecar", f"{name} waits for its sidecar {name}.sha256", hint)
        raise Rejected.because("digest-missing", f"{name} has no sidecar {name}.sha256", hint)
    if tarball.expected is not None and tarball.expected != tarball.digest:
        if not upload.is_settled:
            raise NotComplete("digest-differs-yet", f"{name} does not have its digest yet")
        raise Rejected.because(
            "digest-mismatch",
            f"{name} has the digest {tarball.digest}, and its sidecar says {tarball.expected}",
            "The upload was cut off or changed, or the sidecar is another tarball's: upload both again.",
        )
    offset, magic = MAGIC[tarball.compression]
    if os.pread(tarball.descriptor, len(magic), offset) != magic:
        if tarball.size == 0:
            raise Rejected.because("empty-file", f"{name} is empty", "Upload it again.")
        raise Rejected.because(
            "wrong-format",
            f"{name} is not the {tarball.compression.value} tarball that its name says",
            "Name it after what it is, or pack it again: swapd pack DIR",
        )
    return VerifiedTarball(tarball)

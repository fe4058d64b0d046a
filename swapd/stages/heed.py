"""Heed: from a control file that anybody may still change to a request, and to who may make it.

The drop directory is as hostile to it as to a tarball: what is read is the file that was checked, and where a
signature is required, ssh-keygen judges the very bytes that were read.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

from swapd.host.files import fingerprint
from swapd.host.sidecars import read_beside
from swapd.host.signatures import Signed, check, in_memory, read_signers
from swapd.host.uploads import reading
from swapd.host.users import user_name
from swapd.model.config import Require, Site
from swapd.model.control import MAX_CONTROL, RollbackRequest, parse_wanted, parse_words
from swapd.model.errors import Failed, Issue, NotComplete, Rejected
from swapd.model.release import Digest, SidecarKind, Upload, printable
from swapd.model.sshsig import NAMESPACE

# What may be wrong with a signature only because it, or the file, has not arrived as a whole yet.
UNFINISHED = {"bad-signature", "signature-mismatch"}


def heed(upload: Upload, site: Site) -> RollbackRequest:
    """What the control file asks for; the file itself stays as it is.

    Raises ``NotComplete`` while somebody writes to it or its signature is to come, ``Rejected`` for what is no regular
    file, too large, or not signed by somebody who may, ``Failed`` when this host cannot read it.
    """
    name = printable(upload.file_name)
    try:
        with reading(upload) as (directory, source, before):
            content = os.read(source, MAX_CONTROL + 1)
            signature = read_beside(directory, SidecarKind.SIGNATURE.file_name(upload.file_name))
    except OSError as error:
        raise Failed("cannot-read", f"{name}: {error.strerror}", "The live release is untouched.") from error
    if len(content) > MAX_CONTROL:
        raise Rejected.because(
            "control-file-too-large", f"{name} is larger than {MAX_CONTROL} bytes", "An empty file is enough."
        )
    request = RollbackRequest(
        wanted=parse_wanted(upload.file_name),
        upload=upload,
        words=parse_words(content),
        fingerprint=fingerprint(before),
        sidecars=upload.sidecars,
        uploader=user_name(before.st_uid),
    )
    if site.verify.require is not Require.SIGNATURE:
        return request
    signer = _find_signer(upload, content, signature, site)
    return replace(request, signer=signer, signed=Digest(hashlib.sha256(content).hexdigest()))


def _find_signer(upload: Upload, content: bytes, signature: bytes | None, site: Site) -> str:
    name = printable(upload.file_name)
    if signature is None:
        raise NotComplete("waits-for-signature", f"{name} waits for its signature {name}.sig")
    with in_memory(content) as data:
        signers = read_signers(site.verify.allowed_signers)
        checked = check(Signed(data, signature), signers, (NAMESPACE, f"{NAMESPACE}:{site.name}"))
    if not isinstance(checked, Issue):
        return printable(checked)
    if not upload.is_settled and checked.problem in UNFINISHED:
        raise NotComplete("signature-differs-yet", f"{name} does not have its signature yet")
    raise Rejected([replace(checked, message=f"{name}.sig: {checked.message}")])

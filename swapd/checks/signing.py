"""Whether signatures can be verified here, for a site that asks for them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator

from swapd.host.signatures import read_signers
from swapd.model.config import Require, Site
from swapd.model.errors import Failed
from swapd.model.findings import AS_ROOT, Finding, Severity
from swapd.model.layout import Layout
from swapd.model.release import printable
from swapd.model.sshsig import NAMESPACE, parse_signers


def find_signers(site: Site, _: Layout) -> Iterator[Finding]:
    """What each deployment of the site would fail by."""
    if site.verify.require is not Require.SIGNATURE:
        return
    if shutil.which("ssh-keygen") is None:
        yield Finding(
            site.name,
            Severity.ERROR,
            "no-ssh-keygen",
            'every tarball is refused: require = "signature", and none can be verified',
            "there is no program ssh-keygen",
            "Install it (on Fedora and EL it is in openssh):",
            commands=("apt-get install openssh-client",),
        )
    path = site.verify.allowed_signers
    what = 'every tarball is refused: require = "signature", and nobody\'s counts'
    try:
        signers = read_signers(path)
    except Failed as error:
        if os.geteuid() != 0 and isinstance(error.__cause__, PermissionError):
            why = error.message
            unseen = "who may sign is not known to you"
            yield Finding(site.name, Severity.UNKNOWN, "signers-unseen", unseen, why, AS_ROOT)
        else:
            yield Finding.of(site.name, what, error)
        return
    lines = parse_signers(signers.allowed)
    namespaces = (NAMESPACE, f"{NAMESPACE}:{site.name}")
    serving = [line for line in lines if any(line.allows(name) for name in namespaces)]
    troubles = [line.find_trouble_with_time(time.time()) for line in serving]
    if not lines:
        why = f"{path} has no line with a name and a public key"
    elif not serving:
        why = f"each line of {path} is for other namespaces than {' and '.join(namespaces)}"
    elif all(troubles):
        why = f"{path}: the key of {printable(serving[0].principals)} {troubles[0]}, and no other line counts"
    else:
        return
    remedy = "Write a line for each who may sign: NAME, then the content of KEY.pub."
    yield Finding(site.name, Severity.ERROR, "nobody-may-sign", what, why, remedy)

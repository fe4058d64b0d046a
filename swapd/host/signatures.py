"""ssh-keygen, which decides whether a signature holds, and the signers file that it goes by.

What it is given was read once, by us, from a checked descriptor, and lies in memory: nothing that it opens has a path
that anybody else could turn elsewhere meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swapd.host.files import closing_descriptor
from swapd.host.ssh_keygen import ask
from swapd.model.errors import Failed, Issue
from swapd.model.refused import SIGNATURE_MISMATCH, SIGNATURE_REFUSED, bad_signature, explain, key_revoked
from swapd.model.sshsig import SshSignature, is_revocation_list, parse_signature, parse_signers

REVOKED = "revoked_keys"  # a KRL or public keys, beside the signers file
MAX_SIZE = 16 << 20


@dataclass(frozen=True, slots=True)
class Signers:
    """Who may sign, and whose keys are revoked (None: there is no such list)."""

    allowed: bytes
    revoked: bytes | None


def read_signers(path: Path) -> Signers:
    """The signers file and the revocation list beside it, as ssh-keygen gets them.

    ``Failed``: ``no-signers`` where the file is missing, ``unsafe-signers`` where others could have written one of
    them (ssh-keygen does not look), ``bad-revoked-keys`` where ssh-keygen would refuse everybody for the list.
    """
    allowed = _read_safely(path)
    if allowed is None:
        raise Failed(
            "no-signers",
            f"there is no signers file {path}",
            "Write into it who may sign, a line for each: NAME, then the content of KEY.pub. "
            "See ALLOWED SIGNERS in ssh-keygen(1).",
        )
    place = path.with_name(REVOKED)
    revoked = _read_safely(place)
    if revoked is not None and not is_revocation_list(revoked):
        raise Failed(
            "bad-revoked-keys",
            f"{place} has a line that is no public key, and is no KRL either",
            "Let it have one public key a line, or make it with ssh-keygen -k. Until then, nothing can be verified.",
        )
    return Signers(allowed, revoked)


def _read_safely(path: Path) -> bytes | None:
    """The file's content where only root and we can have written it; None where it is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failed("unsafe-signers", f"{path}: {error.strerror}", "Make it a file of root's, mode 0644.") from error
    with closing_descriptor(descriptor):
        real = Path(os.path.realpath(path))
        # Whoever may write to the directory could have put another file of root's there.
        for status, what in ((os.fstat(descriptor), path), (real.parent.stat(), real.parent)):
            is_sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
            if status.st_uid not in (0, os.geteuid()) or (status.st_mode & 0o022 and not is_sticky):
                raise Failed(
                    "unsafe-signers",
                    f"{what} belongs to uid {status.st_uid} and has mode {stat.S_IMODE(status.st_mode):04o}: "
                    "others could say who may sign",
                    f"chown root {what}; chmod go-w {what}",
                )
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Failed("unsafe-signers", f"{path} is not a regular file", "Make it a file of root's, mode 0644.")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_SIZE + 1)
        if len(content) > MAX_SIZE:
            raise Failed("unsafe-signers", f"{path} is larger than {MAX_SIZE} bytes", "Remove what is not needed.")
        return content


@dataclass(frozen=True, slots=True)
class Signed:
    """What ``data`` is open for, with a signature file's content; ``keep_going`` may end what takes long by raising."""

    data: int
    signature: bytes
    keep_going: Callable[[], None] = lambda: None


def check(signed: Signed, signers: Signers, namespaces: Sequence[str]) -> str | Issue:
    """Who signed it, for one of ``namespaces``; an ``Issue`` says why the signature is refused.

    What counts is ssh-keygen's word alone; what the signature and the signers file say is read for the reason.
    """
    try:
        signature = parse_signature(signed.signature)
    except ValueError as error:
        return bad_signature(str(error))
    if signature.namespace in namespaces and (signer := _find_signer(signed, signature, signers)):
        return signer
    if not is_intact(signed, signature.namespace):
        return SIGNATURE_MISMATCH
    if issue := explain(signature, parse_signers(signers.allowed), namespaces, time.time()):
        return issue
    if signers.revoked is not None and _find_signer(signed, signature, replace(signers, revoked=None)):
        return key_revoked(signature)
    return SIGNATURE_REFUSED


def _find_signer(signed: Signed, signature: SshSignature, signers: Signers) -> str:
    """A principal for whom ssh-keygen verifies the signature; empty where there is none.

    ``find-principals`` stops at the first line that has the key, and does not look at its namespaces. Where that line
    does not serve, each line of the key is tried as if it were the only one: what any of them allows, all of them do.
    """
    lines = [line.text for line in parse_signers(signers.allowed) if line.key == signature.anchor]
    for allowed in (signers.allowed, *(lines if len(lines) > 1 else ())):
        for principal in find_principals(signed.signature, allowed):
            if is_verified(signed, replace(signers, allowed=allowed), principal, signature.namespace):
                return principal
    return ""


def find_principals(signature: bytes, allowed: bytes) -> list[str]:
    """Who the signers file says has the signature's key now; nothing is verified yet."""
    with in_memory(signature) as sig, in_memory(allowed) as signers:
        return ask("find-principals", None, ["-s", sig, "-f", signers]) or []


def is_verified(signed: Signed, signers: Signers, principal: str, namespace: str) -> bool:
    """Whether ssh-keygen finds that ``principal`` signed it for ``namespace``."""
    with contextlib.ExitStack() as stack:
        sig, allowed = (stack.enter_context(in_memory(content)) for content in (signed.signature, signers.allowed))
        options: list[str | int] = ["-s", sig, "-f", allowed, "-I", principal, "-n", namespace]
        if signers.revoked is not None:
            options += ["-r", stack.enter_context(in_memory(signers.revoked))]
        return ask("verify", signed.data, options, signed.keep_going) is not None


def is_intact(signed: Signed, namespace: str) -> bool:
    """Whether the signature is one of these very bytes, whoever made it."""
    with in_memory(signed.signature) as sig:
        return ask("check-novalidate", signed.data, ["-s", sig, "-n", namespace], signed.keep_going) is not None


@contextlib.contextmanager
def in_memory(content: bytes) -> Iterator[int]:
    """A file without a name that has this content."""
    with closing_descriptor(os.memfd_create("swapd-signature", os.MFD_CLOEXEC)) as descriptor:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield descriptor

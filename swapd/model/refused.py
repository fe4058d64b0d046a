"""Why ssh-keygen refused a signature that is one of the right bytes: the first thing that its signer can mend."""

from __future__ import annotations

from collections.abc import Sequence

from swapd.model.errors import Issue
from swapd.model.release import printable
from swapd.model.sshsig import Certificate, SignerLine, SshSignature, describe_time, key_fingerprint, matches

SIGNATURE_MISMATCH = Issue(
    "signature-mismatch",
    "it is a signature of other bytes",
    "The upload was changed or cut off, or the signature is another file's: sign it again, and upload both again.",
)
SIGNATURE_REFUSED = Issue(
    "signature-refused",
    "ssh-keygen does not accept it, for a reason that it does not say",
    "Try it where the signers file is: ssh-keygen -vvv -Y verify",
)


def bad_signature(why: str) -> Issue:
    return Issue(
        "bad-signature",
        f"it is not an SSH signature: {why}",
        "Make it with: ssh-keygen -Y sign -n swapd -f KEY TARBALL. Beside an old one, that leaves the old one.",
    )


def key_revoked(signature: SshSignature) -> Issue:
    return Issue(
        "key-revoked",
        f"{_describe_key(signature)} is revoked",
        "Sign with another key; the list of revoked keys lies beside the signers file.",
    )


def explain(
    signature: SshSignature, lines: Sequence[SignerLine], namespaces: Sequence[str], now: float
) -> Issue | None:
    """What of the signers file's lines, or of a certificate, does not serve; None where nothing of it is seen."""
    key = _describe_key(signature)
    certificate = signature.certificate
    lines = [line for line in lines if line.key == signature.anchor and line.is_authority == bool(certificate)]
    if not lines:
        return Issue(
            "unknown-key",
            f"{key} is not in the signers file",
            "Sign with a key that is there, or have this one added to it, with the name of whoever signs.",
        )
    who = printable(", ".join(line.principals for line in lines))
    serving = [line for line in lines if any(line.allows(namespace) for namespace in namespaces)]
    if certificate is not None:
        serving = [line for line in serving if any(matches(name, line.principals) for name in certificate.principals)]
    if not serving:
        names = f", and the certificate names {', '.join(certificate.principals) or 'nobody'}" if certificate else ""
        return Issue(
            "signer-not-allowed",
            f"{key}, of {who}, may not sign for this site{printable(names)}",
            f'The signers file would have to allow it: namespaces="{namespaces[-1]}".',
        )
    return _explain_namespace(signature, serving, namespaces) or _explain_time(key, certificate, serving, now)


def _explain_namespace(signature: SshSignature, lines: Sequence[SignerLine], namespaces: Sequence[str]) -> Issue | None:
    if signature.namespace in namespaces and any(line.allows(signature.namespace) for line in lines):
        return None
    right = [namespace for namespace in namespaces if any(line.allows(namespace) for line in lines)]
    return Issue(
        "wrong-namespace",
        f"it was made for the namespace {printable(signature.namespace)}, and here counts {' or '.join(right)}",
        f"Sign it again with: ssh-keygen -Y sign -n {right[0]}, or swapd pack --sign KEY --namespace {right[0]}",
    )


def _explain_time(key: str, certificate: Certificate | None, lines: Sequence[SignerLine], now: float) -> Issue | None:
    troubles = [line.find_trouble_with_time(now) for line in lines]
    trouble = "" if "" in troubles else f"{key} {troubles[0]}"
    if not trouble and certificate is not None:
        if now < certificate.valid_after:
            trouble = f"the certificate of {key} is valid only from {describe_time(certificate.valid_after)} on"
        elif now >= certificate.valid_before:
            trouble = f"the certificate of {key} was valid until {describe_time(certificate.valid_before)}"
    if not trouble:
        return None
    hint = "Sign with a key that is valid now, or have its times changed in the signers file."
    return Issue("signer-expired", trouble, hint)


def _describe_key(signature: SshSignature) -> str:
    if signature.certificate is not None:
        name = printable(signature.certificate.key_id)
        return f"the authority {key_fingerprint(signature.anchor)}, which certified {name},"
    return f"the key {key_fingerprint(signature.key)}"

"""SSH signatures, public keys and allowed-signers files, read for one purpose: to say why ssh-keygen refused.

Whether a signature holds is ssh-keygen's decision alone. It ends every refusal with status 255 and mostly in silence,
so the reason is looked for here, in PROTOCOL.sshsig's blob, PROTOCOL.certkeys's, and the signers file's lines.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

NAMESPACE = "swapd"  # of signatures for every site; for one site alone it is swapd:SITE
_ARMOUR = re.compile(
    rb"-----BEGIN SSH SIGNATURE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END SSH SIGNATURE-----\s*", re.ASCII
)
# How many fields of a certificate's blob are the certified key, by the key's type.
_KEY_FIELDS = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519": 2,
    "sk-ecdsa-sha2-nistp256": 3,
}


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says of the key that it certifies; times in seconds since the epoch."""

    authority: bytes
    key_id: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int


@dataclass(frozen=True, slots=True)
class SshSignature:
    """What a signature says of itself: nothing of it is proven."""

    namespace: str
    key: bytes
    certificate: Certificate | None

    @property
    def anchor(self) -> bytes:
        """The key that the signers file must have: its own, or that of the authority that certified it."""
        return self.certificate.authority if self.certificate else self.key


@dataclass(frozen=True, slots=True)
class SignerLine:
    """One line of an allowed-signers file."""

    number: int
    text: bytes
    principals: str
    key: bytes
    options: dict[str, str] = field(default_factory=dict)  # by lower-case name; quotes are off

    @property
    def is_authority(self) -> bool:
        return "cert-authority" in self.options

    def allows(self, namespace: str) -> bool:
        """Whether the line is for signatures of this namespace."""
        return "namespaces" not in self.options or matches(namespace, self.options["namespaces"])

    def find_trouble_with_time(self, now: float) -> str:
        """Why the line does not count now; empty where it does."""
        after, before = (parse_time(self.options.get(name, "")) for name in ("valid-after", "valid-before"))
        if after is not None and now < after:
            return f"is valid only from {describe_time(after)} on"
        if before is not None and now > before:
            return f"was valid until {describe_time(before)}"
        return ""


def describe_time(seconds: float) -> str:
    """For a message; a certificate may have any time of 64 bits."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError):
        return f"{seconds:.0f} s after 1970"


def key_fingerprint(key: bytes) -> str:
    """The key as ``ssh-keygen -l`` names it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


class _Blob:
    """SSH's wire format; ``ValueError`` where it ends too early."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def take(self, length: int) -> bytes:
        if length > len(self._content):
            raise ValueError("it is cut off")
        taken, self._content = self._content[:length], self._content[length:]
        return taken

    def number(self, length: int = 4) -> int:
        return int.from_bytes(self.take(length), "big")

    def text(self) -> bytes:
        return self.take(self.number())

    def texts(self) -> Iterator[bytes]:
        while self._content:
            yield self.text()


def parse_signature(content: bytes) -> SshSignature:
    """What the signature file says of itself; ``ValueError`` says why it is none."""
    armour = _ARMOUR.fullmatch(content.lstrip())
    if armour is None:
        raise ValueError("it is not what ssh-keygen -Y sign writes")
    try:
        blob = _Blob(base64.b64decode(armour[1].translate(None, b"\r\n"), validate=True))
    except binascii.Error:
        raise ValueError("it is not whole") from None
    if blob.take(6) != b"SSHSIG" or blob.number() != 1:
        raise ValueError("it is of another kind or version")
    key, namespace = blob.text(), os.fsdecode(blob.text())
    if not namespace or "\0" in namespace:
        raise ValueError("it has no namespace")
    return SshSignature(namespace, key, parse_certificate(key))


def parse_certificate(key: bytes) -> Certificate | None:
    """What the certificate says that this key is; None where it is a plain key. ``ValueError`` where it is cut off."""
    blob = _Blob(key)
    kind, is_certificate, _ = blob.text().decode("ascii", "replace").partition("-cert-v01@")
    if not is_certificate or kind not in _KEY_FIELDS:
        return None
    for _ in range(1 + _KEY_FIELDS[kind]):  # after the nonce, the certified key
        blob.text()
    blob.number(8)  # serial
    blob.number()  # of a user or a host
    key_id = blob.text().decode("utf-8", "replace")
    principals = tuple(item.decode("utf-8", "replace") for item in _Blob(blob.text()).texts())
    valid_after, valid_before = blob.number(8), blob.number(8)
    for _ in range(3):  # critical options, extensions, reserved
        blob.text()
    return Certificate(blob.text(), key_id, principals, valid_after, valid_before)


_FIELD = re.compile(rb'((?:"[^"]*"|[^\s"])+)\s*')
_OPTION = re.compile(r'([^=,"]+)(?:="([^"]*)")?(?:,|$)')


def parse_signers(text: bytes) -> list[SignerLine]:
    """The lines of an allowed-signers file that have a key, in their order; what is none is left out."""
    lines = []
    for number, raw in enumerate(text.splitlines(), 1):
        if raw.lstrip().startswith(b"#"):
            continue
        fields = _FIELD.findall(raw.strip())
        for position in (1, 2):  # of the key's type: options may stand before it
            key = parse_key(fields[position : position + 2])
            if key is not None:
                given = fields[1].decode("utf-8", "replace") if position == 2 else ""
                options = {name.lower(): value for name, value in _OPTION.findall(given)}
                principals = fields[0].decode("utf-8", "replace").strip('"')
                lines.append(SignerLine(number, raw, principals, key, options))
                break
    return lines


def parse_key(fields: list[bytes]) -> bytes | None:
    """The blob of a public key that is written as its type and base64."""
    if len(fields) < 2:
        return None
    try:
        key = base64.b64decode(fields[1], validate=True)
        return key if _Blob(key).text() == fields[0] else None
    except (binascii.Error, ValueError):
        return None


def is_revocation_list(text: bytes) -> bool:
    """Whether ssh-keygen can use it: a KRL, or nothing but public keys. With one bad line, it refuses every signer."""
    if text.startswith(b"SSHKRL\n\0"):
        return True
    lines = [line.split() for line in text.splitlines()]
    return all(parse_key(fields) is not None for fields in lines if fields and not fields[0].startswith(b"#"))


def matches(text: str, patterns: str) -> bool:
    """Whether the text matches ssh_config(5)'s pattern-list: one with ``!`` that matches rules it out."""
    is_matched = False
    for pattern in patterns.split(","):
        if _matches_one(text, pattern.removeprefix("!")):
            if pattern.startswith("!"):
                return False
            is_matched = True
    return is_matched


def _matches_one(text: str, pattern: str) -> bool:
    """``*`` is anything, ``?`` any one character; no longer than length times length, as a signer chooses the text.

    A regular expression, and ssh-keygen, try all ways in which several stars can share the text out.
    """
    at = place = 0
    star = resumed = -1  # the last star, and where the text goes on when that takes one character more
    while at < len(text):
        if pattern[place : place + 1] == "*":
            star, resumed, place = place, at, place + 1
        elif place < len(pattern) and pattern[place] in ("?", text[at]):
            at, place = at + 1, place + 1
        elif star >= 0:
            resumed += 1
            at, place = resumed, star + 1
        else:
            return False
    return pattern[place:].strip("*") == ""


def parse_time(text: str) -> float | None:
    """A time of a signers file: YYYYMMDD[HHMM[SS]], of the system's zone unless Z follows. None where it is none."""
    match = re.fullmatch(r"(\d{8}(?:\d{4}(?:\d{2})?)?)(Z?)", text)
    if match is None:
        return None
    digits = match[1].ljust(14, "0")
    try:
        moment = datetime.strptime(digits, "%Y%m%d%H%M%S")
        return (moment.replace(tzinfo=UTC) if match[2] else moment).timestamp()
    except (ValueError, OverflowError):  # no such day, or not one of the system's clock
        return None

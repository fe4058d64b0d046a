"""What an uploader's signature says of itself, and a signers file: read, or said to be none, in time for its length."""

from __future__ import annotations

import base64
import os
import re
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swapd.host.sidecars import MAX_SIDECAR
from swapd.model.errors import Issue
from swapd.model.refused import explain
from swapd.model.sshsig import (
    SshSignature,
    describe_time,
    is_revocation_list,
    matches,
    parse_certificate,
    parse_signature,
    parse_signers,
    parse_time,
)

FACTOR = int(os.environ.get("SWAPD_FUZZ", "1"))
SETTINGS = settings(max_examples=300 * FACTOR, deadline=None, database=None)
FOR_EVER = (1 << 64) - 1
KINDS = [b"ssh-ed25519", b"ssh-rsa", b"ecdsa-sha2-nistp256", b"sk-ssh-ed25519@openssh.com"]
CERTIFIED = [b"ssh-ed25519-cert-v01@openssh.com", b"sk-ssh-ed25519-cert-v01@openssh.com", b"x-cert-v01@openssh.com"]


def text(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def armoured(blob: bytes) -> bytes:
    return b"-----BEGIN SSH SIGNATURE-----\n" + base64.encodebytes(blob) + b"-----END SSH SIGNATURE-----\n"


def plain(kind: bytes, *fields: bytes) -> bytes:
    return text(kind) + b"".join(map(text, fields))


def certificate(kind: bytes, names: list[bytes], times: tuple[int, int], authority: bytes, key_id: bytes) -> bytes:
    fields = b"".join(map(text, (b"nonce", b"key", b"ssh:")[: 3 if kind.startswith(b"sk") else 2]))
    principals = text(b"".join(map(text, names)))
    rest = b"".join(map(text, (b"", b"", b""))) + text(authority)
    return (
        text(kind) + fields + struct.pack(">QI", 1, 1) + text(key_id) + principals + struct.pack(">QQ", *times) + rest
    )


def signature(key: bytes, namespace: bytes) -> bytes:
    return b"SSHSIG" + struct.pack(">I", 1) + b"".join(map(text, (key, namespace, b"", b"sha512", b"signed")))


SMALL = st.binary(max_size=12)
TIMES = st.tuples(*[st.integers(0, FOR_EVER) | st.sampled_from([0, 1, 253402300800, 1 << 63, FOR_EVER])] * 2)
AUTHORITY = plain(b"ssh-ed25519", b"a" * 32)
PLAIN = st.builds(plain, st.sampled_from(KINDS), SMALL, SMALL)
CERTIFICATE = st.builds(
    certificate, st.sampled_from(CERTIFIED), st.lists(SMALL, max_size=4), TIMES, st.just(AUTHORITY) | PLAIN, SMALL
)
NAMESPACE = st.sampled_from([b"swapd", b"swapd:shop", b"file", b""]) | SMALL
BLOB = st.builds(signature, PLAIN | CERTIFICATE, NAMESPACE)
DAMAGE = st.lists(st.tuples(st.integers(0, 400), SMALL), max_size=3)
OPTION = st.sampled_from(
    [
        "cert-authority",
        'namespaces="swapd*"',
        'namespaces="!swapd,*"',
        'valid-before="20200101"',
        'valid-after="20990101Z"',
        'valid-after="00000000"',
        "nonsense",
        '"',
        "=",
        ",",
    ]
)
LINE = st.builds(
    lambda who, options, key: b" ".join((who, ",".join(options).encode(), base64_line(key))),
    st.sampled_from([b"*", b"a*", b"!a,*", b'"a b"']) | SMALL,
    st.lists(OPTION, max_size=3),
    st.just(AUTHORITY) | PLAIN,
)


def base64_line(key: bytes) -> bytes:
    return key[4 : 4 + int.from_bytes(key[:4], "big")] + b" " + base64.b64encode(key)


def damaged(content: bytes, damage: list[tuple[int, bytes]]) -> bytes:
    for at, put in damage:
        content = content[:at] + put + content[at + len(put) :]
    return content


def parsed(content: bytes) -> SshSignature | None:
    """The signature; None where it is said to be none, in our words and not in Python's."""
    try:
        return parse_signature(content)
    except ValueError as error:
        why = str(error)
    assert why.startswith("it "), why
    return None


@SETTINGS
@given(BLOB, DAMAGE, st.lists(LINE | SMALL, max_size=4), st.sampled_from([0.0, 1.6e9, 1e12]))
def test_a_reason_is_found_or_none_is(
    blob: bytes, damage: list[tuple[int, bytes]], lines: list[bytes], now: float
) -> None:
    signers = parse_signers(b"\n".join(lines))
    found = parsed(armoured(damaged(blob, damage)))
    issue = explain(found, signers, ("swapd", "swapd:shop"), now) if found else None
    if issue is not None:
        assert isinstance(issue, Issue)
        assert issue.message.isprintable()
        assert issue.hint


@SETTINGS
@given(st.binary(max_size=300))
def test_whatever_is_read_for_the_reason_breaks_nothing(content: bytes) -> None:
    for line in parse_signers(content):
        assert line.allows("swapd") in (True, False)
        assert isinstance(line.find_trouble_with_time(0), str)
    assert is_revocation_list(content) in (True, False)
    for signed in (content, armoured(content), armoured(b"SSHSIG\0\0\0\1" + content)):
        parsed(signed)


@SETTINGS
@given(st.text(max_size=16) | st.from_regex(r"[0-9]{8}([0-9]{4}([0-9]{2})?)?Z?", fullmatch=True))
@example("00010101")
@example("99991231235959")
def test_times(written: str) -> None:
    found = parse_time(written)
    assert found is None or isinstance(describe_time(found), str)


@pytest.mark.parametrize("seconds", [0, 1.6e9, 253402300799, 253402300800, 1 << 63, FOR_EVER])
def test_a_certificate_may_have_any_time(seconds: int) -> None:
    assert describe_time(seconds)


# Pattern lists


@pytest.mark.parametrize(
    ("name", "patterns", "is_match"),
    [("a", "a", True), ("a", "b,a", True), ("ab", "a?", True), ("ab", "*,!ab", False), ("a.b", "a?b", True),
     ("", "*", True), ("", "", True), ("ab", "a", False), ("abcab", "*ab", True), ("b", "!a", False)],
)  # fmt: skip
def test_pattern_lists(name: str, patterns: str, is_match: bool) -> None:
    assert matches(name, patterns) is is_match


@SETTINGS
@given(st.text("ab*?", max_size=8), st.text("ab*?", max_size=8))
def test_patterns_match_what_they_say(name: str, pattern: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(letter, letter) for letter in pattern)
    assert matches(name, pattern) is bool(re.fullmatch(expression, name))


# In time. What is too slow here takes days, so the limit says nothing about how quick the machine is.


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pattern", ["*-*-*-*@*.example.com", "*?*?*?*?*x", "*" * 50 + "x"])
def test_a_long_name_against_many_stars(pattern: str) -> None:
    assert not matches("-" * MAX_SIDECAR, pattern)


@pytest.mark.timeout(120)
def test_the_longest_signatures() -> None:
    many = text(b"") * (MAX_SIDECAR // 6)
    found = parse_certificate(certificate(CERTIFIED[0], [b""] * (MAX_SIDECAR // 6), (0, 1), AUTHORITY, b""))
    assert found is not None
    assert len(found.principals) == MAX_SIDECAR // 6
    for content in (armoured(many), b"\n" * MAX_SIDECAR, b"-----BEGIN SSH SIGNATURE-----\n" + b"=\r\n" * MAX_SIDECAR):
        with pytest.raises(ValueError, match=r"^it "):
            parse_signature(content)

"""ssh-keygen in its jail: it can verify there, it can do nothing else, and each way in which it ends is told apart.

What a program that was taken over could do is tried by programs of our own under its name.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from swapd.host import landlock, ssh_keygen
from swapd.host.signatures import Signed, Signers, check, in_memory
from swapd.host.ssh_keygen import ask
from swapd.model.errors import Failed, Interrupted, Issue
from tests.support.signing import Key
from tests.unit.archives import nothing_left_behind
from tests.unit.jails import SETTINGS, Setting, as_in_the_unit, as_nobody, as_we_are, is_root

CONTENT = b"the bytes of a tarball"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Key]:
    directory = tmp_path_factory.mktemp("keys")
    kinds = {"alice": "ed25519", "rivest": "rsa", "authority": "ed25519"}
    return {name: Key(directory / name, kind) for name, kind in kinds.items()}


def checked(signature: bytes, signers: str, revoked: bytes | None = None) -> str:
    """The signer, or the problem."""
    with in_memory(CONTENT) as data, nothing_left_behind():
        found = check(Signed(data, signature), Signers(signers.encode(), revoked), ("swapd",))
    return found.problem if isinstance(found, Issue) else found


@pytest.mark.parametrize("setting", SETTINGS)
def test_verifies_with_whatever_layers_there_are(
    setting: Setting, keys: dict[str, Key], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, authority = keys["alice"], keys["authority"]
    certified = alice.certified(authority, "carol")
    krl = tmp_path / "krl"
    subprocess.run(["ssh-keygen", "-q", "-k", "-f", krl, alice.path.with_name("alice.pub")], check=True)
    setting(monkeypatch)
    assert checked(alice.sign(CONTENT), alice.line()) == "alice"
    assert checked(keys["rivest"].sign(CONTENT), keys["rivest"].line(), krl.read_bytes()) == "rivest"
    assert checked(certified.sign(CONTENT), authority.line("car*", "cert-authority")) == "carol"
    assert checked(alice.sign(CONTENT), alice.line(), krl.read_bytes()) == "key-revoked"
    assert checked(alice.sign(CONTENT), alice.line(options='valid-before="20200101"')) == "signer-expired"
    assert checked(alice.sign(CONTENT + b"!"), alice.line()) == "signature-mismatch"
    assert checked(alice.sign(CONTENT), authority.line()) == "unknown-key"


def text(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def test_a_key_on_a_token(tmp_path: Path) -> None:
    """Such as ``ssh-keygen -t ed25519-sk`` makes: what the token signs has a counter and its own idea of the data."""
    kind, application = b"sk-ssh-ed25519@openssh.com", b"ssh:"
    private, message = tmp_path / "key", tmp_path / "message"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    asked = ["openssl", "pkey", "-in", private, "-pubout", "-outform", "DER"]
    point = subprocess.run(asked, check=True, capture_output=True).stdout[-32:]
    public = text(kind) + text(point) + text(application)
    blob = b"SSHSIG" + text(b"swapd") + text(b"") + text(b"sha512") + text(hashlib.sha512(CONTENT).digest())
    presence = struct.pack(">BI", 1, 7)
    message.write_bytes(hashlib.sha256(application).digest() + presence + hashlib.sha256(blob).digest())
    asked = ["openssl", "pkeyutl", "-sign", "-inkey", private, "-rawin", "-in", message]
    made = text(kind) + text(subprocess.run(asked, check=True, capture_output=True).stdout) + presence
    whole = b"SSHSIG" + struct.pack(">I", 1) + text(public) + text(b"swapd") + text(b"") + text(b"sha512") + text(made)
    signature = (
        b"-----BEGIN SSH SIGNATURE-----\n" + base64.encodebytes(whole) + b"-----END SSH SIGNATURE-----\n"
    )  # fmt: skip
    assert checked(signature, f"dora {kind.decode()} {base64.b64encode(public).decode()}\n") == "dora"


@pytest.mark.parametrize("operation", ["verify", "check-novalidate"])
def test_what_was_signed_is_not_held_in_memory(operation: str, keys: dict[str, Key], tmp_path: Path) -> None:
    large = tmp_path / "large"
    signature, signers = keys["alice"].sign(CONTENT), keys["alice"].line().encode()
    with large.open("w+b") as file, in_memory(signature) as sig, in_memory(signers) as allowed:
        file.truncate(ssh_keygen.ADDRESS_SPACE + (1 << 20))
        more: list[str | int] = ["-f", allowed, "-I", "alice"] if operation == "verify" else []
        assert ask(operation, file.fileno(), ["-s", sig, "-n", "swapd", *more]) is None


# What a program could do there that was taken over


Fake = Callable[[str], None]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Has a shell script run in ssh-keygen's place."""
    place = tmp_path / "bin"
    place.mkdir()
    for directory in (place, tmp_path, *tmp_path.parents[:2]):
        directory.chmod(directory.stat().st_mode | 0o111)

    def put(script: str) -> None:
        program = place / "ssh-keygen"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(place), prepend=os.pathsep)

    return put


@pytest.mark.skipif(not landlock.is_available(), reason="it is Landlock that keeps it away from files")
@pytest.mark.parametrize(
    "setting", [as_we_are, *(pytest.param(each, marks=is_root) for each in (as_in_the_unit, as_nobody))]
)
def test_nothing_can_be_done_in_it(
    setting: Setting, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    canary.mkdir(mode=0o777)
    canary.chmod(0o777)
    (canary / "file").write_text("canary")
    (canary / "file").chmod(0o666)
    attempts = {
        "read": f"cat {canary}/file",
        "read shadow": "cat /etc/shadow",
        "list": f"ls {canary}",
        "write": f"echo x > {canary}/file",
        "make": f"echo x > {canary}/new",
        "remove": f"rm -f {canary}/file; test ! -e {canary}/file",
        "fifo": f"mkfifo {canary}/fifo",
        "mode": "test $(awk '/CapEff/ { print $2 }' /proc/self/status) != 0000000000000000",
        "parent": f"kill -0 {os.getpid()}",
        "core": "test $(ulimit -c) != 0",
        "privileges": "setpriv --reuid 12345 true",
        "file of its own": "cp /bin/true /tmp/swapd-own && /tmp/swapd-own",
    }
    fake("\n".join(f"({attempt}) > /dev/null 2>&1 && echo {name}" for name, attempt in attempts.items()) + "\necho end")
    setting(monkeypatch)
    with in_memory(CONTENT) as data:
        assert ask("verify", data, []) == ["end"]
    assert (canary / "file").read_text() == "canary"
    assert os.listdir(canary) == ["file"]


def test_what_it_is_lent_is_all_that_it_gets(fake: Fake, tmp_path: Path) -> None:
    fake("ls /proc/self/fd/ > /dev/null 2>&1 && echo listed; cat; cat $3; echo; env | cut -d= -f1 | sort")
    with (tmp_path / "secret").open("w+") as secret, in_memory(b"data ") as data, in_memory(b"lent") as lent:
        os.set_inheritable(secret.fileno(), True)
        said = ask("verify", data, [lent])
    assert said is not None
    assert said[0] == "data lent"
    assert set(said[1:]) <= {"LC_ALL", "PATH", "PWD", "OLDPWD", "_", "SHLVL", "TZ"}


# How it ends


def failure(operation: str = "verify") -> Failed:
    with in_memory(CONTENT) as data, nothing_left_behind(), pytest.raises(Failed) as caught:
        ask(operation, data, [])
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -SEGV $$", "SIGSEGV"),
        ("kill -KILL $$", "SIGKILL"),
        ("echo broken >&2; exit 1", "ended with 1: broken"),
        ("echo 'No user exists for uid 17' >&2; exit 255", "No user exists"),
        ("exit 255", "ended with 255"),
        ("echo \"Couldn't read signature file: Permission denied\" >&2; echo 'Could not verify signature.'; exit 255",
         "Permission denied"),
        ("exec cat /dev/zero", "ended with 1"),
        ("while :; do echo 0123456789012345678901234567890123456789; done", "SIGXFSZ"),
    ],
)  # fmt: skip
def test_no_answer_is_this_hosts_fault(fake: Fake, script: str, words: str) -> None:
    """Never a verdict on the tarball."""
    fake(script)
    failed = failure()
    assert failed.problem == "ssh-keygen-failed"
    assert words in failed.message


@pytest.mark.parametrize(
    ("operation", "script"),
    [
        ("verify", "echo 'Could not verify signature.'; exit 255"),
        ("find-principals", "echo 'No principal matched.' >&2; exit 255"),
    ],
)
def test_a_refusal_is_one(fake: Fake, operation: str, script: str) -> None:
    fake(script)
    with in_memory(CONTENT) as data:
        assert ask(operation, data, []) is None


@is_root
def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why it keeps its user: the real one refuses everybody, as if the signature were wrong."""
    entering = ssh_keygen.jail.enter

    def enter(confinement: ssh_keygen.jail.Confinement, parent: int) -> ssh_keygen.jail.Layers:
        os.setresuid(2_000_000_123, 2_000_000_123, 2_000_000_123)
        return entering(confinement, parent)

    monkeypatch.setattr(ssh_keygen.jail, "enter", enter)
    failed = failure("check-novalidate")
    assert failed.problem == "ssh-keygen-failed"
    assert "No user exists" in failed.message


def test_one_that_hangs_is_ended(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_keygen, "PATIENCE", 0.1)
    fake("head -c 5 > /dev/null; sleep 1000")
    assert failure().problem == "ssh-keygen-hangs"


def test_a_stop_ends_it(fake: Fake) -> None:
    fake("sleep 1000")

    def stop() -> None:
        raise Interrupted("verify")

    with in_memory(CONTENT) as data, nothing_left_behind(), pytest.raises(Interrupted):
        ask("verify", data, [], stop)


def test_none_that_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert failure().problem == "no-ssh-keygen"


def test_says_once_that_nothing_confines_it(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake("exit 0")
    monkeypatch.setattr(ssh_keygen.landlock, "is_available", lambda: False)
    ssh_keygen._tell_if_free.cache_clear()
    try:
        for _ in range(2):
            assert ask("find-principals", None, []) == []
    finally:
        ssh_keygen._tell_if_free.cache_clear()
    assert sum("no Landlock" in record.message for record in caplog.records) == 1

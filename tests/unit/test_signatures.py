"""Whose signature holds, and why another does not: decided by the real ssh-keygen, with keys made here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swapd.host.signatures import Signed, Signers, check, in_memory, read_signers
from swapd.model.errors import Failed, Issue
from tests.support.signing import Key

CONTENT = b"the bytes of a tarball"
NAMESPACES = ("swapd", "swapd:shop")
FOR_SHOP, FOR_BLOG = 'namespaces="swapd:shop"', 'namespaces="swapd:blog"'


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Key]:
    directory = tmp_path_factory.mktemp("keys")
    return {name: Key(directory / name) for name in ("alice", "bob", "authority")}


def checked(signature: bytes, signers: str, content: bytes = CONTENT, revoked: str | None = None) -> str | Issue:
    with in_memory(content) as data:
        allowed = Signers(signers.encode(), None if revoked is None else revoked.encode())
        return check(Signed(data, signature), allowed, NAMESPACES)


def problem(signature: bytes, signers: str, content: bytes = CONTENT, revoked: str | None = None) -> str:
    issue = checked(signature, signers, content, revoked)
    assert isinstance(issue, Issue), f"it was accepted, of {issue}"
    assert issue.message
    assert issue.hint
    return issue.problem


class TestAccepted:
    def test_a_key_of_the_signers_file(self, keys: dict[str, Key]) -> None:
        alice, bob = keys["alice"], keys["bob"]
        signers = f"# who may\n\n{bob.line()}{alice.line('alice@example.com')}"
        assert checked(alice.sign(CONTENT), signers) == "alice@example.com"
        assert checked(bob.sign(CONTENT), signers, revoked=alice.public) == "bob"

    @pytest.mark.parametrize("namespace", NAMESPACES)
    @pytest.mark.parametrize("options", ["", 'namespaces="swapd,swapd:*"', 'valid-after="20200101Z"'])
    def test_both_namespaces_of_a_site(self, keys: dict[str, Key], namespace: str, options: str) -> None:
        alice = keys["alice"]
        assert checked(alice.sign(CONTENT, namespace), alice.line(options=options)) == "alice"

    def test_a_key_for_one_site(self, keys: dict[str, Key]) -> None:
        alice = keys["alice"]
        assert checked(alice.sign(CONTENT, "swapd:shop"), alice.line(options=FOR_SHOP)) == "alice"

    def test_the_second_line_of_a_key_counts_too(self, keys: dict[str, Key]) -> None:
        # find-principals alone says the first line's name, which is not for this namespace.
        alice = keys["alice"]
        signers = alice.line("blogger", FOR_BLOG) + keys["bob"].line() + alice.line("shopper", FOR_SHOP)
        assert checked(alice.sign(CONTENT, "swapd:shop"), signers) == "shopper"
        assert problem(alice.sign(CONTENT, "swapd:shop"), signers, revoked=alice.public) == "key-revoked"

    @pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
    def test_other_kinds_of_keys(self, tmp_path: Path, kind: str) -> None:
        key = Key(tmp_path / "carol", kind)
        assert checked(key.sign(CONTENT), key.line()) == "carol"

    def test_a_certificate(self, keys: dict[str, Key]) -> None:
        authority = keys["authority"]
        certified = keys["alice"].certified(authority, "alice@example.com")
        signers = authority.line("*@example.com", "cert-authority," + 'namespaces="swapd"')
        assert checked(certified.sign(CONTENT), signers) == "alice@example.com"

    def test_the_offset_of_the_data_is_left_alone(self, keys: dict[str, Key], tmp_path: Path) -> None:
        alice = keys["alice"]
        (tmp_path / "copy").write_bytes(CONTENT)
        descriptor = os.open(tmp_path / "copy", os.O_RDONLY)
        try:
            os.lseek(descriptor, 5, os.SEEK_SET)
            allowed = Signers(alice.line().encode(), None)
            assert check(Signed(descriptor, alice.sign(CONTENT)), allowed, NAMESPACES) == "alice"
            assert os.lseek(descriptor, 0, os.SEEK_CUR) == 5
        finally:
            os.close(descriptor)


class TestRefused:
    """One problem code for each thing that a signer can mend."""

    def test_other_bytes(self, keys: dict[str, Key]) -> None:
        alice = keys["alice"]
        assert problem(alice.sign(CONTENT), alice.line(), CONTENT + b"!") == "signature-mismatch"

    def test_a_key_that_is_nobodys(self, keys: dict[str, Key]) -> None:
        assert problem(keys["alice"].sign(CONTENT), keys["bob"].line()) == "unknown-key"
        assert problem(keys["alice"].sign(CONTENT), "") == "unknown-key"
        assert problem(keys["alice"].sign(CONTENT), "alice nonsense\n\xff \xfe\n") == "unknown-key"

    def test_a_key_for_another_site(self, keys: dict[str, Key]) -> None:
        alice = keys["alice"]
        for namespace in ("swapd", "swapd:shop", "swapd:blog"):
            assert problem(alice.sign(CONTENT, namespace), alice.line(options=FOR_BLOG)) == "signer-not-allowed"

    @pytest.mark.parametrize(("namespace", "options"), [("file", ""), ("swapd:blog", ""), ("swapd", FOR_SHOP)])
    def test_another_namespace(self, keys: dict[str, Key], namespace: str, options: str) -> None:
        alice = keys["alice"]
        assert problem(alice.sign(CONTENT, namespace), alice.line(options=options)) == "wrong-namespace"

    @pytest.mark.parametrize(
        "options",
        [
            'valid-before="20200101"',
            'valid-before="202001011200Z"',
            'valid-after="20991231"',
            'namespaces="swapd",VALID-BEFORE="20200101120000Z"',
        ],
    )
    def test_out_of_its_time(self, keys: dict[str, Key], options: str) -> None:
        alice = keys["alice"]
        assert problem(alice.sign(CONTENT), alice.line(options=options)) == "signer-expired"

    def test_a_revoked_key(self, keys: dict[str, Key]) -> None:
        alice = keys["alice"]
        assert problem(alice.sign(CONTENT), alice.line(), revoked=alice.public + "\n") == "key-revoked"

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"alice",
            b"-----BEGIN PGP SIGNATURE-----\n\niQ==\n-----END PGP SIGNATURE-----\n",
            b"-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n",
            b"-----BEGIN SSH SIGNATURE-----\n=U1NIU0lH\n-----END SSH SIGNATURE-----\n",
        ],
    )
    def test_no_signature_at_all(self, keys: dict[str, Key], content: bytes) -> None:
        assert problem(content, keys["alice"].line()) == "bad-signature"

    def test_one_that_is_cut_off(self, keys: dict[str, Key]) -> None:
        alice = keys["alice"]
        whole = alice.sign(CONTENT)
        for length in range(0, len(whole) - 30, 40):
            assert problem(whole[:length], alice.line()) == "bad-signature"

    def test_certificates(self, keys: dict[str, Key]) -> None:
        alice, authority = keys["alice"], keys["authority"]
        line = authority.line("*@example.com", "cert-authority")
        assert problem(alice.certified(authority, "eve").sign(CONTENT), line) == "signer-not-allowed"
        late = alice.certified(authority, "a@example.com", "-2d:-1d").sign(CONTENT)
        assert problem(late, line) == "signer-expired"
        good = alice.certified(authority, "a@example.com").sign(CONTENT)
        assert checked(good, line) == "a@example.com"
        assert problem(good, keys["bob"].line("*", "cert-authority")) == "unknown-key"
        assert problem(good, line, revoked=authority.public) == "key-revoked"
        # An authority's key does not sign itself, and a plain line is no authority's.
        assert problem(authority.sign(CONTENT), line) == "unknown-key"
        assert problem(good, authority.line()) == "unknown-key"


class TestSignersFile:
    """Who could have written it is looked at on the descriptor that is read."""

    def put(self, directory: Path, text: str = "alice ssh-ed25519 AAAA\n", mode: int = 0o644) -> Path:
        path = directory / "allowed_signers"
        path.write_text(text)
        path.chmod(mode)
        return path

    def failure(self, path: Path) -> str:
        with pytest.raises(Failed) as caught:
            read_signers(path)
        assert caught.value.hint
        return caught.value.problem

    def test_one_that_serves(self, tmp_path: Path, keys: dict[str, Key]) -> None:
        path = self.put(tmp_path)
        assert read_signers(path) == Signers(b"alice ssh-ed25519 AAAA\n", None)
        revoked = f"# gone\n\n{keys['bob'].public}\n"
        (tmp_path / "revoked_keys").write_text(revoked)
        assert read_signers(path).revoked == revoked.encode()

    def test_a_krl(self, tmp_path: Path, keys: dict[str, Key]) -> None:
        alice = keys["alice"]
        path = self.put(tmp_path, alice.line())
        krl = tmp_path / "revoked_keys"
        os.system(f"ssh-keygen -q -k -f {krl} {alice.path}.pub")  # noqa: S605 - our own paths
        signers = read_signers(path)
        with in_memory(CONTENT) as data:
            issue = check(Signed(data, alice.sign(CONTENT)), signers, NAMESPACES)
        assert isinstance(issue, Issue)
        assert issue.problem == "key-revoked"

    def test_none(self, tmp_path: Path) -> None:
        assert self.failure(tmp_path / "allowed_signers") == "no-signers"

    @pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
    def test_one_that_others_may_write(self, tmp_path: Path, mode: int) -> None:
        assert self.failure(self.put(tmp_path, mode=mode)) == "unsafe-signers"

    def test_one_in_a_directory_that_others_may_write(self, tmp_path: Path) -> None:
        place = tmp_path / "place"
        place.mkdir()
        place.chmod(0o777)
        path = self.put(place)
        assert self.failure(path) == "unsafe-signers"
        (tmp_path / "link").symlink_to(path)
        assert self.failure(tmp_path / "link") == "unsafe-signers"
        place.chmod(0o1777)
        assert read_signers(path).allowed

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_one_of_somebody_elses(self, tmp_path: Path) -> None:
        path = self.put(tmp_path)
        os.chown(path, 65534, 65534)
        assert self.failure(path) == "unsafe-signers"
        os.chown(path, 0, 0)
        (tmp_path / "revoked_keys").touch()
        os.chown(tmp_path / "revoked_keys", 65534, 65534)
        assert self.failure(path) == "unsafe-signers"

    def test_things_that_are_no_file(self, tmp_path: Path) -> None:
        (tmp_path / "allowed_signers").mkdir()
        assert self.failure(tmp_path / "allowed_signers") == "unsafe-signers"
        (tmp_path / "allowed_signers").rmdir()
        os.mkfifo(tmp_path / "allowed_signers")
        assert self.failure(tmp_path / "allowed_signers") == "unsafe-signers"

    def test_a_list_of_revoked_keys_for_which_ssh_keygen_would_refuse_everybody(self, tmp_path: Path) -> None:
        path = self.put(tmp_path)
        (tmp_path / "revoked_keys").write_text("SHA256:what-ssh-keygen-l-prints\n")
        assert self.failure(path) == "bad-revoked-keys"

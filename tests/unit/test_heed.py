"""Control files in a hostile drop directory: what is read, from whom, and what is refused."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from swapd.model.config import Site
from swapd.model.control import MAX_CONTROL
from swapd.model.errors import Failed, NotComplete, Rejected
from swapd.model.release import Upload
from swapd.stages.heed import heed
from tests.support.signing import Key
from tests.support.sites import make_site

NAME = "rollback@shop-41"
LINE = b"shop-42@222222222222 shop-41@111111111111\n"


@pytest.fixture(scope="module")
def alice(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("keys") / "alice")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_incoming(make_site(tmp_path))


@pytest.fixture
def signed(tmp_path: Path, alice: Key) -> Site:
    """A site that requires a signature."""
    signers = tmp_path / "signers"
    signers.write_text(alice.line("alice@example.com"))
    return make_incoming(make_site(tmp_path, verify={"require": "signature", "allowed_signers": str(signers)}))


def make_incoming(site: Site) -> Site:
    site.incoming.mkdir(parents=True)
    return site


def upload(site: Site, name: str = NAME, *, is_settled: bool = True) -> Upload:
    return Upload(site.incoming, name, True, is_settled)


def problem(site: Site, name: str = NAME, *, is_settled: bool = True) -> tuple[type[Exception], str]:
    with pytest.raises((Rejected, NotComplete, Failed)) as caught:
        heed(upload(site, name, is_settled=is_settled), site)
    return caught.type, caught.value.problem


def test_an_empty_file_is_a_request(site: Site) -> None:
    (site.incoming / "rollback").touch()
    request = heed(upload(site, "rollback"), site)
    assert (request.wanted, request.words, request.signer, request.signed) == ("", (), "", None)
    assert request.uploader
    assert request.fingerprint is not None


def test_its_name_and_its_words(site: Site) -> None:
    (site.incoming / NAME).write_bytes(LINE)
    request = heed(upload(site), site)
    assert request.wanted == "shop-41"
    assert request.words == ("shop-42@222222222222", "shop-41@111111111111")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives the file to somebody else")
def test_its_owner_is_who_asks(site: Site) -> None:
    (site.incoming / NAME).touch()
    os.chown(site.incoming / NAME, 4_123_456, -1)
    assert heed(upload(site), site).uploader == "4123456"


@pytest.mark.parametrize("kind", ["directory", "link", "FIFO", "socket"])
def test_nothing_but_a_regular_file_and_nothing_blocks(site: Site, kind: str) -> None:
    place = site.incoming / "rollback"
    match kind:
        case "directory":
            place.mkdir()
        case "link":
            place.symlink_to("/etc/hostname")
        case "FIFO":
            os.mkfifo(place)
        case "socket":
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(str(place))
    assert problem(site, "rollback") == (Rejected, "not-a-regular-file")


def test_one_that_is_large(site: Site) -> None:
    (site.incoming / NAME).write_bytes(b"x" * (MAX_CONTROL + 1))
    assert problem(site) == (Rejected, "control-file-too-large")


def test_one_that_is_open_for_writing(site: Site) -> None:
    with (site.incoming / NAME).open("wb"):
        assert problem(site) == (NotComplete, "still-open")


def test_one_that_is_gone(site: Site) -> None:
    assert problem(site) == (NotComplete, "vanished")


class TestSigned:
    def test_by_somebody_who_may(self, signed: Site, alice: Key) -> None:
        (signed.incoming / NAME).write_bytes(LINE)
        alice.sign_file(signed.incoming / NAME, "swapd:shop")
        request = heed(upload(signed), signed)
        assert request.signer == "alice@example.com"
        assert request.signed is not None

    def test_it_waits_for_its_signature(self, signed: Site) -> None:
        (signed.incoming / NAME).write_bytes(LINE)
        assert problem(signed) == (NotComplete, "waits-for-signature")

    def test_by_somebody_else(self, signed: Site, tmp_path: Path) -> None:
        (signed.incoming / NAME).write_bytes(LINE)
        Key(tmp_path / "mallory").sign_file(signed.incoming / NAME)
        assert problem(signed) == (Rejected, "unknown-key")

    def test_for_another_purpose(self, signed: Site, alice: Key) -> None:
        (signed.incoming / NAME).write_bytes(LINE)
        alice.sign_file(signed.incoming / NAME, "file")
        assert problem(signed) == (Rejected, "wrong-namespace")

    def test_of_other_bytes(self, signed: Site, alice: Key) -> None:
        (signed.incoming / NAME).write_bytes(LINE)
        alice.sign_file(signed.incoming / NAME)
        (signed.incoming / NAME).write_bytes(LINE[:-9])
        # It may be on its way as long as it has not settled.
        assert problem(signed, is_settled=False) == (NotComplete, "signature-differs-yet")
        assert problem(signed) == (Rejected, "signature-mismatch")

    @pytest.mark.parametrize("kind", ["FIFO", "link"])
    def test_a_signature_that_is_no_regular_file(self, signed: Site, kind: str) -> None:
        (signed.incoming / NAME).write_bytes(LINE)
        place = signed.incoming / f"{NAME}.sig"
        os.mkfifo(place) if kind == "FIFO" else place.symlink_to("/etc/hostname")
        assert problem(signed) == (Rejected, "not-a-regular-file")

    def test_without_a_list_of_signers(self, signed: Site, alice: Key) -> None:
        (signed.incoming / NAME).write_bytes(LINE)
        alice.sign_file(signed.incoming / NAME)
        signed.verify.allowed_signers.unlink()
        assert problem(signed) == (Failed, "no-signers")

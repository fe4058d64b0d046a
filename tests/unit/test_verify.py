"""What a tarball must prove."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from swapd.model.config import Site
from swapd.model.errors import Failed, NotComplete, Rejected
from swapd.model.release import Compression, Digest, Fingerprint, Signature, Tarball, Upload
from swapd.stages.verify import verify
from tests.support.signing import Key
from tests.support.sites import make_site
from tests.support.tarballs import pack, site_content

INTEGRITY = make_site(Path("/scratch"))
DIGEST = make_site(Path("/scratch"), verify={"require": "digest"})
RIGHT, WRONG = Digest("1" * 64), Digest("2" * 64)
SUFFIXES = {
    Compression.NONE: ".tar",
    Compression.GZIP: ".tar.gz",
    Compression.XZ: ".tar.xz",
    Compression.BZIP2: ".tar.bz2",
}
CONTENTS = {compression: pack(site_content("one"), f"shop{suffix}") for compression, suffix in SUFFIXES.items()}
CONTENTS[Compression.ZSTD] = b"\x28\xb5\x2f\xfd" + b"what follows is the reader's"


class Claimed:
    """Tarballs as the stage before hands them over."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.descriptors: list[int] = []

    def make(
        self,
        content: bytes = CONTENTS[Compression.GZIP],
        compression: Compression = Compression.GZIP,
        expected: Digest | None = None,
        *,
        is_dropped: bool = True,
        is_settled: bool = True,
        signatures: tuple[Signature, ...] = (),
    ) -> Tarball:
        path = self.directory / f"copy{len(self.descriptors)}"
        path.write_bytes(content)
        self.descriptors.append(os.open(path, os.O_RDONLY))
        upload = Upload(self.directory, "shop.tar.gz", is_dropped, is_settled)
        state = Fingerprint(1, 2, 3, 4, 5)
        copy = self.descriptors[-1]
        return Tarball(upload, "shop", compression, RIGHT, len(content), copy, state, expected, "me", signatures)


@pytest.fixture
def claimed(tmp_path: Path) -> Iterator[Claimed]:
    claimed = Claimed(tmp_path)
    yield claimed
    for descriptor in claimed.descriptors:
        os.close(descriptor)


@pytest.mark.parametrize("compression", CONTENTS)
def test_a_tarball_that_is_what_its_name_says(claimed: Claimed, compression: Compression) -> None:
    tarball = claimed.make(CONTENTS[compression], compression)
    assert verify(tarball, INTEGRITY).tarball is tarball
    assert os.lseek(tarball.descriptor, 0, os.SEEK_CUR) == 0, "it is read from its beginning afterwards"


@pytest.mark.parametrize("compression", CONTENTS)
@pytest.mark.parametrize("content", CONTENTS)
def test_one_that_is_something_else(claimed: Claimed, compression: Compression, content: Compression) -> None:
    if compression is content:
        return
    with pytest.raises(Rejected) as caught:
        verify(claimed.make(CONTENTS[content], compression), INTEGRITY)
    assert caught.value.problem == "wrong-format"
    assert compression.value in caught.value.message


@pytest.mark.parametrize("content", [b"\x1f", b"PK\x03\x04" * 99, b"\0" * 1024, b"<!DOCTYPE html>"])
def test_one_that_is_nothing_of_the_kind(claimed: Claimed, content: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        verify(claimed.make(content), INTEGRITY)
    assert caught.value.problem == "wrong-format"


def test_an_empty_file(claimed: Claimed) -> None:
    with pytest.raises(Rejected) as caught:
        verify(claimed.make(b""), INTEGRITY)
    assert caught.value.problem == "empty-file"


@pytest.mark.parametrize("site", [INTEGRITY, DIGEST])
class TestDigest:
    def test_one_that_matches(self, claimed: Claimed, site: Site) -> None:
        assert verify(claimed.make(expected=RIGHT), site).signer == ""

    def test_one_that_differs_may_still_be_uploaded(self, claimed: Claimed, site: Site) -> None:
        with pytest.raises(NotComplete) as caught:
            verify(claimed.make(expected=WRONG, is_settled=False), site)
        assert caught.value.problem == "digest-differs-yet"

    @pytest.mark.parametrize("is_dropped", [True, False])
    def test_one_that_differs_at_the_end_is_rejected(self, claimed: Claimed, site: Site, is_dropped: bool) -> None:
        with pytest.raises(Rejected) as caught:
            verify(claimed.make(expected=WRONG, is_dropped=is_dropped), site)
        assert caught.value.problem == "digest-mismatch"
        assert RIGHT in caught.value.message
        assert WRONG in caught.value.message

    def test_a_wrong_digest_is_told_before_a_wrong_format(self, claimed: Claimed, site: Site) -> None:
        # A file that was cut off is not what it says, either: the upload is the reason.
        with pytest.raises(Rejected) as caught:
            verify(claimed.make(b"", expected=WRONG), site)
        assert caught.value.problem == "digest-mismatch"


def test_a_digest_that_is_asked_for_and_missing(claimed: Claimed) -> None:
    with pytest.raises(NotComplete) as waits:
        verify(claimed.make(), DIGEST)
    assert waits.value.problem == "waits-for-sidecar"
    with pytest.raises(Rejected) as rejected:
        verify(claimed.make(is_dropped=False), DIGEST)
    assert rejected.value.problem == "digest-missing"
    assert "shop.tar.gz.sha256" in rejected.value.hint


class TestSignature:
    """``require = "signature"``; why ssh-keygen refuses one is test_signatures.py's."""

    @pytest.fixture
    def key(self, tmp_path: Path) -> Key:
        return Key(tmp_path / "alice")

    @pytest.fixture
    def site(self, tmp_path: Path, key: Key) -> Site:
        signers = tmp_path / "signers"
        signers.write_text(key.line())
        return make_site(tmp_path, verify={"require": "signature", "allowed_signers": str(signers)})

    def over_tarball(self, key: Key, content: bytes = CONTENTS[Compression.GZIP]) -> Signature:
        return Signature("shop.tar.gz.sig", key.sign(content), None)

    def over_digest(self, key: Key) -> Signature:
        text = f"{RIGHT}  shop.tar.gz\n".encode()
        return Signature("shop.tar.gz.sha256.sig", key.sign(text), text)

    def test_one_over_the_tarball_needs_no_digest(self, claimed: Claimed, key: Key, site: Site) -> None:
        tarball = claimed.make(signatures=(self.over_tarball(key),))
        assert verify(tarball, site).signer == "alice"
        assert os.lseek(tarball.descriptor, 0, os.SEEK_CUR) == 0, "it is read from its beginning afterwards"

    def test_one_over_the_digest(self, claimed: Claimed, key: Key, site: Site) -> None:
        tarball = claimed.make(expected=RIGHT, signatures=(self.over_digest(key),))
        assert verify(tarball, site).signer == "alice"

    def test_a_digest_that_contradicts_rejects_all_the_same(self, claimed: Claimed, key: Key, site: Site) -> None:
        signatures = (self.over_tarball(key), self.over_digest(key))
        with pytest.raises(Rejected) as caught:
            verify(claimed.make(expected=WRONG, signatures=signatures), site)
        assert caught.value.problem == "digest-mismatch"

    def test_one_of_two_that_holds_is_enough(self, claimed: Claimed, key: Key, site: Site) -> None:
        stale = self.over_tarball(key, b"something else")
        assert verify(claimed.make(expected=RIGHT, signatures=(stale, self.over_digest(key))), site).signer == "alice"
        with pytest.raises(Rejected) as caught:
            verify(claimed.make(expected=RIGHT, signatures=(stale, stale)), site)
        assert caught.value.problem == "signature-mismatch"
        assert "shop.tar.gz.sig" in caught.value.message

    def test_none(self, claimed: Claimed, site: Site) -> None:
        with pytest.raises(NotComplete) as waits:
            verify(claimed.make(expected=RIGHT), site)
        assert waits.value.problem == "waits-for-signature"
        with pytest.raises(Rejected) as rejected:
            verify(claimed.make(expected=RIGHT, is_dropped=False), site)
        assert rejected.value.problem == "signature-missing"

    @pytest.mark.parametrize("content", [b"-----BEGIN SSH", b""])
    def test_one_that_does_not_fit_may_still_be_uploaded(
        self, claimed: Claimed, key: Key, site: Site, content: bytes
    ) -> None:
        for signature in (Signature("s", content, None), self.over_tarball(key, b"the next")):
            with pytest.raises(NotComplete) as caught:
                verify(claimed.make(is_settled=False, signatures=(signature,)), site)
            assert caught.value.problem == "signature-differs-yet"

    def test_without_signers_the_host_is_at_fault(self, claimed: Claimed, key: Key, tmp_path: Path) -> None:
        site = make_site(tmp_path, verify={"require": "signature"})
        with pytest.raises(Failed) as caught:
            verify(claimed.make(signatures=(self.over_tarball(key),)), site)
        assert caught.value.problem == "no-signers"

    def test_where_none_is_asked_for_none_is_looked_at(self, claimed: Claimed) -> None:
        assert verify(claimed.make(signatures=(Signature("s", b"no signature", None),)), INTEGRITY).signer == ""

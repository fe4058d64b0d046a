"""What a tarball must prove."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from swapd.model.config import Require, Verify
from swapd.model.errors import NotComplete, Rejected
from swapd.model.release import Compression, Digest, Fingerprint, Tarball, Upload
from swapd.stages.verify import verify
from tests.support.sites import make_site
from tests.support.tarballs import pack, site_content

INTEGRITY: Verify = make_site(Path("/scratch")).verify
DIGEST: Verify = replace(INTEGRITY, require=Require.DIGEST)
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
    ) -> Tarball:
        path = self.directory / f"copy{len(self.descriptors)}"
        path.write_bytes(content)
        self.descriptors.append(os.open(path, os.O_RDONLY))
        upload = Upload(self.directory, "shop.tar.gz", is_dropped, is_settled)
        state = Fingerprint(1, 2, 3, 4, 5)
        return Tarball(upload, "shop", compression, RIGHT, len(content), self.descriptors[-1], state, expected, "me")


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


@pytest.mark.parametrize("rules", [INTEGRITY, DIGEST])
class TestDigest:
    def test_one_that_matches(self, claimed: Claimed, rules: Verify) -> None:
        assert verify(claimed.make(expected=RIGHT), rules).signer == ""

    def test_one_that_differs_may_still_be_uploaded(self, claimed: Claimed, rules: Verify) -> None:
        with pytest.raises(NotComplete) as caught:
            verify(claimed.make(expected=WRONG, is_settled=False), rules)
        assert caught.value.problem == "digest-differs-yet"

    @pytest.mark.parametrize("is_dropped", [True, False])
    def test_one_that_differs_at_the_end_is_rejected(self, claimed: Claimed, rules: Verify, is_dropped: bool) -> None:
        with pytest.raises(Rejected) as caught:
            verify(claimed.make(expected=WRONG, is_dropped=is_dropped), rules)
        assert caught.value.problem == "digest-mismatch"
        assert RIGHT in caught.value.message
        assert WRONG in caught.value.message

    def test_a_wrong_digest_is_told_before_a_wrong_format(self, claimed: Claimed, rules: Verify) -> None:
        # A file that was cut off is not what it says, either: the upload is the reason.
        with pytest.raises(Rejected) as caught:
            verify(claimed.make(b"", expected=WRONG), rules)
        assert caught.value.problem == "digest-mismatch"


def test_a_digest_that_is_asked_for_and_missing(claimed: Claimed) -> None:
    with pytest.raises(NotComplete) as waits:
        verify(claimed.make(), DIGEST)
    assert waits.value.problem == "waits-for-sidecar"
    with pytest.raises(Rejected) as rejected:
        verify(claimed.make(is_dropped=False), DIGEST)
    assert rejected.value.problem == "digest-missing"
    assert "shop.tar.gz.sha256" in rejected.value.hint

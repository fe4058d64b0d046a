"""What a tarball says of itself refuses it before a byte is extracted; nothing that it says admits it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from swapd.model.errors import Rejected
from swapd.model.release import Compression, Digest, Fingerprint, Tarball, Upload, VerifiedTarball
from swapd.stages.admit import admit
from tests.support.sites import make_site
from tests.unit.archives import compress, file, symlink, tar

CONTENT = os.urandom(3 << 20)
DATA = tar(file(b"a", CONTENT), file(b"b", b""), symlink(b"l", b"a"))
DIGEST = Digest("0" * 64)


def refused(tmp_path: Path, data: bytes, compression: Compression = Compression.NONE, **limits: Any) -> Rejected | None:
    """Why it is rejected, or None."""
    site = make_site(tmp_path, verify=limits)
    site.releases.mkdir(parents=True, exist_ok=True)
    descriptor = os.memfd_create("tarball")
    try:
        os.write(descriptor, data)
        upload = Upload(site.incoming, "shop-1.tar", True)
        state = Fingerprint(1, 2, 3, 4, 5)
        tarball = Tarball(upload, "shop-1", compression, DIGEST, len(data), descriptor, state, DIGEST, "somebody")
        admit(VerifiedTarball(tarball), site)
    except Rejected as rejected:
        return rejected
    finally:
        os.close(descriptor)
    assert os.listdir(site.releases) == []
    return None


def test_more_bytes_than_are_allowed(tmp_path: Path) -> None:
    assert refused(tmp_path, DATA, max_extracted="3MiB") is None
    rejected = refused(tmp_path, DATA, max_extracted="2MiB")
    assert rejected is not None
    assert rejected.problem == "too-large"
    assert rejected.message == "it holds at least 3.0 MiB (3145728 bytes), and max_extracted = 2.0 MiB"


def test_more_entries_than_are_allowed(tmp_path: Path) -> None:
    assert refused(tmp_path, DATA, max_entries=3) is None
    rejected = refused(tmp_path, DATA, max_entries=2)
    assert rejected is not None
    assert rejected.problem == "too-many-entries"
    assert "more than 2 entries" in rejected.message


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.XZ])
def test_a_stream_that_says_its_size(tmp_path: Path, compression: Compression) -> None:
    data = compress(DATA, compression)
    rejected = refused(tmp_path, data, compression, max_extracted="1MiB", max_entries=10)
    assert rejected is not None
    assert rejected.problem == "too-large"
    # With so many entries it might be made of nothing but headers.
    assert refused(tmp_path, data, compression, max_extracted="1MiB", max_entries=10_000) is None
    assert refused(tmp_path, data, compression, max_extracted="3MiB", max_entries=10) is None

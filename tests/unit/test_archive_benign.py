"""Odd but right archives become the tree that GNU tar makes of them, byte for byte."""

from __future__ import annotations

import os
import stat
import subprocess
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from swapd.archive import Extracted, decoders
from swapd.model.errors import Rejected
from swapd.model.release import Compression
from tests.unit.archives import (
    LIMITS,
    MTIME,
    Node,
    Site,
    base256,
    compress,
    directory,
    file,
    nothing_left_behind,
    symlink,
    tar,
    tree,
)
from tests.unit.archives_benign import CASES, JOINED, SITE, SKIPPABLE_FRAME, WRAPPED

NOW = int(time.time())  # a later time is one that is still to come, or that of the extraction


def by_gnu_tar(data: bytes, scratch: Path, *options: str) -> dict[str, Node]:
    """The tree that GNU tar makes, with the modes that swapd gives."""
    scratch.mkdir()
    subprocess.run(
        ["tar", "-x", "-f", "-", "-C", scratch, "--no-same-owner", *options],
        input=data,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        check=True,
    )
    return tree(scratch, with_our_modes=True)


@pytest.mark.parametrize("jailed", [False, True], ids=["", "jailed"])
@pytest.mark.parametrize("name", CASES)
def test_equals_gnu_tar(name: str, jailed: bool, tmp_path: Path) -> None:
    site = Site(tmp_path)

    with nothing_left_behind():
        extracted = site.extract(CASES[name], jailed=jailed)

    found = tree(site.staging)
    site.assert_nothing_outside_changed()
    site.assert_tree_is_tame()
    assert found == by_gnu_tar(CASES[name], tmp_path / "gnu")
    assert extracted == counted(found)


def counted(found: dict[str, Node]) -> Extracted:
    """What an extraction should have said of this tree."""
    regular = [node for node in found.values() if stat.S_ISREG(node.mode)]
    firsts = {node.twins[0]: node for node in regular}
    return Extracted(
        files=len(firsts),
        directories=sum(stat.S_ISDIR(node.mode) for node in found.values()),
        links=len(regular) - len(firsts) + sum(stat.S_ISLNK(node.mode) for node in found.values()),
        bytes=sum(len(node.content or b"") for node in firsts.values()),
        newest=max(
            (node.mtime for node in firsts.values() if node.mtime is not None and node.mtime <= NOW), default=None
        ),
    )


@pytest.mark.parametrize("count", [0, 1, 2, 3])
@pytest.mark.parametrize("name", ["site", "dotted_names", "directories_in_turns", "utf8_names", "deep_tree"])
def test_strips_components_as_gnu_tar_does(name: str, count: int, tmp_path: Path) -> None:
    expected = by_gnu_tar(CASES[name], tmp_path / "gnu", f"--strip-components={count}")
    site = Site(tmp_path)

    if any(stat.S_ISREG(node.mode) for node in expected.values()):
        extracted = site.extract(CASES[name], strip=count)
        assert tree(site.staging) == expected
        assert extracted == counted(expected)
    else:
        with pytest.raises(Rejected, match="no file is left"):
            site.extract(CASES[name], strip=count)


@pytest.mark.parametrize("jailed", [False, True], ids=["", "jailed"])
@pytest.mark.parametrize("name", WRAPPED)
def test_unwraps_a_single_directory(name: str, jailed: bool, tmp_path: Path) -> None:
    data, wrapper = WRAPPED[name]
    by_gnu_tar(data, tmp_path / "gnu")
    site = Site(tmp_path)

    extracted = site.extract(data, strip=None, jailed=jailed)

    found = tree(site.staging)
    assert found == tree(tmp_path / "gnu" / wrapper, with_our_modes=True)
    assert extracted == counted(found)


def test_a_link_to_what_the_site_allows_is_made_as_it_is(tmp_path: Path) -> None:
    """Whether or not there is anything; links of the release may lead through it."""
    data = tar(
        file(b"good"), symlink(b"media", b"/srv/media"), symlink(b"a/photo", b"../media/2024/1.jpg"), file(b"a/b")
    )
    site = Site(tmp_path)
    site.extract(data, limits=replace(LIMITS, allow_links_to=("/srv",)))
    assert tree(site.staging) == by_gnu_tar(data, tmp_path / "gnu")
    assert os.readlink(site.staging / "media") == "/srv/media"


@pytest.mark.parametrize("jailed", [False, True], ids=["", "jailed"])
@pytest.mark.parametrize("compression", Compression)
def test_reads_every_compression(compression: Compression, jailed: bool, tmp_path: Path) -> None:
    site = Site(tmp_path)

    with nothing_left_behind():
        site.extract(compress(SITE, compression), compression, jailed=jailed)

    assert tree(site.staging) == by_gnu_tar(SITE, tmp_path / "gnu")


def test_reads_gzip_without_isal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "igzip", None)
    site = Site(tmp_path)
    site.extract(b"".join(JOINED[Compression.GZIP]), Compression.GZIP)
    assert tree(site.staging) == by_gnu_tar(SITE, tmp_path / "gnu")


@pytest.mark.parametrize("compression", JOINED)
def test_reads_several_streams_as_one(compression: Compression, tmp_path: Path) -> None:
    site = Site(tmp_path)

    site.extract(b"".join(JOINED[compression]), compression)

    assert tree(site.staging) == by_gnu_tar(SITE, tmp_path / "gnu")


def test_reads_zstd_that_begins_with_a_skippable_frame(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.extract(SKIPPABLE_FRAME + compress(SITE, Compression.ZSTD), Compression.ZSTD)
    assert tree(site.staging) == by_gnu_tar(SITE, tmp_path / "gnu")


def plant(root: Path) -> None:
    """A tree that every format of tar can hold."""
    (root / "lib" / "deep" / "er").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "index.php").write_text("<?php")
    (root / "lib" / "run").write_text("#!/bin/sh\n")
    (root / "lib" / "run").chmod(0o750)
    (root / "lib" / "deep" / "er" / "a.css").write_bytes(bytes(100_000))
    os.link(root / "index.php", root / "lib" / "twin.php")
    (root / "lib" / "link").symlink_to("deep/er")
    for path in root.rglob("*"):
        os.utime(path, (MTIME, MTIME), follow_symlinks=False)


@pytest.mark.parametrize("kind", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_reads_what_gnu_tar_writes(kind: str, tmp_path: Path) -> None:
    plant(tmp_path / "source")
    made = subprocess.run(
        ["tar", "-c", f"--format={kind}", "-C", tmp_path / "source", "."], stdout=subprocess.PIPE, check=True
    )
    site = Site(tmp_path)

    site.extract(made.stdout, strip=None)

    assert tree(site.staging) == by_gnu_tar(made.stdout, tmp_path / "gnu")


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_what_python_writes(kind: int, tmp_path: Path) -> None:
    plant(tmp_path / "source")
    with tarfile.open(tmp_path / "made.tar", "w", format=kind) as made:
        made.add(tmp_path / "source", "shop")
    site = Site(tmp_path)

    site.extract((tmp_path / "made.tar").read_bytes(), strip=None)

    by_gnu_tar((tmp_path / "made.tar").read_bytes(), tmp_path / "gnu")
    assert tree(site.staging) == tree(tmp_path / "gnu" / "shop", with_our_modes=True)


def test_keeps_times_that_a_file_can_have_and_leaves_out_the_others(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.extract(tar(file(b"then", mtime=MTIME), file(b"never", mtime=b"-1"), file(b"far", mtime=base256(1 << 33))))
    found = tree(site.staging)
    assert found["then"].mtime == MTIME
    start = int(site.tarball.stat().st_mtime)
    assert all(abs(int(found[name].mtime or 0) - start) < 60 for name in ("never", "far"))


@pytest.mark.parametrize("mask", [0, 0o022, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(mask: int, tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.tarball.touch()
    before = os.umask(mask)
    try:
        site.extract(
            tar(directory(b"a/b"), file(b"a/b/c", mode=0o700), file(b"d/e", mode=0o4640), symlink(b"f", b"d/e"))
        )
    finally:
        os.umask(before)
    assert {name: stat.filemode(node.mode) for name, node in tree(site.staging).items() if name != "f"} == {
        "a": "drwxr-xr-x",
        "a/b": "drwxr-xr-x",
        "a/b/c": "-rwxr-xr-x",
        "d": "drwxr-xr-x",
        "d/e": "-rw-r--r--",
    }


def test_extracts_into_a_directory_with_the_group_bit(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.staging.chmod(0o2755)
    site.extract(tar(file(b"a/b")))
    assert stat.S_IMODE((site.staging / "a").stat().st_mode) == 0o755

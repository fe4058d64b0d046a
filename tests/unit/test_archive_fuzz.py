"""Mutated and invented archives: refused or extracted, never anything else, and never a change outside."""

from __future__ import annotations

import contextlib
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swapd.model.errors import Rejected
from swapd.model.release import Compression
from tests.unit import archives_benign
from tests.unit.archives import (
    END,
    Site,
    compress,
    directory,
    file,
    hard_link,
    header,
    long_name,
    nothing_left_behind,
    pax,
    symlink,
)
from tests.unit.archives_mutated import (
    COMPRESSED,
    INTERESTING,
    KINDS,
    LIMITS,
    SEEDS,
    SMALL,
    Mutation,
    mutated,
    with_checksums,
)

MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.integers(0, SMALL),
        st.integers(0, SMALL),
        st.sampled_from(INTERESTING) | st.binary(min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """One for all examples; ``check`` empties its staging directory."""
    return Site(tmp_path_factory.mktemp("fuzz"))


def check(site: Site, data: bytes, compression: Compression, strip: int | None, *, jailed: bool = False) -> None:
    with nothing_left_behind(), contextlib.suppress(Rejected):
        site.extract(data, compression, strip=strip, limits=LIMITS, jailed=jailed)
    site.assert_nothing_outside_changed()
    site.assert_tree_is_tame()
    shutil.rmtree(site.staging)
    site.staging.mkdir()


# No database of earlier failures: the suite writes nothing beside its scratch directories. SWAPD_FUZZ=100 takes a
# hundred times as long.
FACTOR = int(os.environ.get("SWAPD_FUZZ", "1"))
SETTINGS = settings(
    max_examples=200 * FACTOR,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
STRIP = st.sampled_from([0, None, 1, 2])


@SETTINGS
@given(st.sampled_from(SEEDS), MUTATIONS, st.booleans(), STRIP)
def test_mutated_archives(
    site: Site, seed: bytes, mutations: list[Mutation], is_summed: bool, strip: int | None
) -> None:
    data = mutated(seed, mutations)
    check(site, with_checksums(data) if is_summed else data, Compression.NONE, strip)


@SETTINGS
@given(st.sampled_from(sorted(COMPRESSED, key=lambda kind: kind.value)), st.integers(0, 1), MUTATIONS)
def test_mutated_compressed_archives(site: Site, kind: Compression, seed: int, mutations: list[Mutation]) -> None:
    data = COMPRESSED[kind][seed]
    check(site, data[:8] + mutated(data[8:], mutations), kind, None)


@settings(SETTINGS, max_examples=20 * FACTOR)
@given(MUTATIONS)
def test_mutated_zstd_archives(site: Site, mutations: list[Mutation]) -> None:
    data = compress(archives_benign.SITE, Compression.ZSTD)
    check(site, data[:4] + mutated(data[4:], mutations), Compression.ZSTD, None)


@settings(SETTINGS, max_examples=40 * FACTOR)
@given(st.sampled_from(SEEDS), MUTATIONS, STRIP)
def test_mutated_archives_in_the_jail(site: Site, seed: bytes, mutations: list[Mutation], strip: int | None) -> None:
    check(site, with_checksums(mutated(seed, mutations)), Compression.NONE, strip, jailed=True)


@settings(SETTINGS, max_examples=20 * FACTOR)
@given(st.sampled_from(sorted(COMPRESSED, key=lambda kind: kind.value)), st.integers(0, 1), MUTATIONS)
def test_mutated_compressed_archives_in_the_jail(
    site: Site, kind: Compression, seed: int, mutations: list[Mutation]
) -> None:
    data = COMPRESSED[kind][seed]
    check(site, data[:8] + mutated(data[8:], mutations), kind, None, jailed=True)


# Archives of valid headers with names that meet each other.

COMPONENT = st.sampled_from([b"a", b"b", b"c", b"..", b".", b"", "é".encode(), "e\u0301".encode(), b"staging"])
ODD_NAME = st.lists(COMPONENT, min_size=1, max_size=4).map(b"/".join)
PLAIN_NAME = st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), min_size=1, max_size=3).map(b"/".join)
SEEN_NAME = st.sampled_from([b"a", b"b", b"a/b", b"c/d"])
TARGET = st.sampled_from([b"..", b"../..", b"../../canary", b"../a", b"../b/c", b"../../c", b".", b"a", b"b/c", b"d/e"])
MEMBER = st.one_of(
    st.builds(file, PLAIN_NAME | SEEN_NAME, st.binary(max_size=600), kind=st.sampled_from([b"0", b"\0", b"7"])),
    st.builds(directory, PLAIN_NAME),
    st.builds(symlink, PLAIN_NAME, TARGET),
    st.builds(symlink, PLAIN_NAME, TARGET),
    st.builds(hard_link, PLAIN_NAME, SEEN_NAME),
    st.builds(lambda name, content: pax((b"path", name)) + file(b"x", content), PLAIN_NAME, st.binary(max_size=9)),
)
ODD_MEMBER = st.one_of(
    st.builds(file, ODD_NAME),
    st.builds(symlink, PLAIN_NAME, ODD_NAME),
    st.builds(hard_link, PLAIN_NAME, ODD_NAME),
    st.builds(long_name, ODD_NAME, st.sampled_from([b"L", b"K"])),
    st.builds(lambda key, name: pax((key, name)), st.sampled_from([b"path", b"linkpath"]), ODD_NAME),
    st.builds(header, PLAIN_NAME, st.sampled_from([b"3", b"6", b"g", b"S", b"1", b"5"]), st.integers(0, 1024)),
)
MEMBERS = st.lists(MEMBER, min_size=1, max_size=8)


@settings(SETTINGS, max_examples=400 * FACTOR)
@given(MEMBERS | MEMBERS | st.lists(MEMBER | ODD_MEMBER, min_size=1, max_size=4), STRIP)
def test_invented_archives(site: Site, members: list[bytes], strip: int | None) -> None:
    check(site, b"".join(members) + file(b"last") + END, Compression.NONE, strip)

"""Names, ids, and text from outside."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapd.model.errors import Rejected
from swapd.model.release import (
    MARKER_SUFFIXES,
    SIDECAR_SUFFIXES,
    TARBALL_SUFFIXES,
    Compression,
    Digest,
    is_release_id,
    is_tarball,
    parse_tarball_name,
    printable,
    release_id,
)

# What terminals, editors and log viewers have been fooled with.
TRICKS = [
    "\n",
    "\r",
    "\x1b[2J",
    "\x9b",
    "\u2028",
    "\u2029",
    "\u202e",
    "\u2066",
    "\u200b",
    "\ufeff",
    "\x00",
    "\x7f",
    "\xa0",
    "\U000e0041",
]


@pytest.mark.parametrize(("suffix", "compression"), TARBALL_SUFFIXES.items())
def test_a_tarball_is_named_after_its_release(suffix: str, compression: Compression) -> None:
    assert parse_tarball_name(f"shop-42{suffix}") == ("shop-42", compression)
    assert is_tarball(f"shop-42{suffix}")


@pytest.mark.parametrize("name", ["a", "0", "v1.2.3+build~4_x-y", "x" * 200, "shop.tar", "a.sha256"])
def test_names_that_a_release_may_have(name: str) -> None:
    assert parse_tarball_name(f"{name}.tar.gz")[0] == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-rf",
        ".hidden",
        "_x",
        "~x",
        "a b",
        "a/b",
        "a@b",
        "a:b",
        "a\n",
        "\na",
        "ä",
        "a\u202e",
        "x" * 201,
        "a\udcff",
        "a'",
    ],
)
def test_names_that_no_release_may_have(name: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_tarball_name(f"{name}.tar.gz")
    assert caught.value.problem == "bad-release-name"
    assert caught.value.message.isprintable()


def test_the_name_of_what_was_there_before_is_kept() -> None:
    with pytest.raises(Rejected) as caught:
        parse_tarball_name("adopted.tar")
    assert caught.value.problem == "reserved-release-name"


@pytest.mark.parametrize(
    "name", ["shop.zip", "shop", "shop.tar.gz.sha256", "shop.tar.lz4", "shop.TAR.GZ", "tar.gz\n", ""]
)
def test_what_is_no_tarball(name: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_tarball_name(name)
    assert caught.value.problem == "not-a-tarball"
    assert ".tar.zst" in caught.value.hint
    assert not is_tarball(name)


def test_a_release_has_room_for_every_name_that_is_made_of_it() -> None:
    longest = "x" * 200
    suffixes = [f"{suffix}{more}" for suffix in TARBALL_SUFFIXES for more in (*MARKER_SUFFIXES, *SIDECAR_SUFFIXES)]
    assert max(len(longest + suffix) for suffix in suffixes) <= 255
    assert len(release_id(longest, Digest("0" * 64))) <= 255


def test_release_ids() -> None:
    made = release_id("shop-42", Digest("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"))
    assert made == "shop-42@9f86d081884c"
    assert is_release_id(made)
    for text in (
        "",
        "shop-42",
        "@9f86d081884c",
        "shop@9f86d081884",
        "shop@9f86d081884c0",
        "shop@9F86D081884C",
        "a/b@9f86d081884c",
    ):
        assert not is_release_id(text)
    assert not is_release_id(made + "\n")


@given(st.text(alphabet=st.characters(codec=None, categories=None), max_size=300))
def test_printable_text_is_one_line_of_visible_characters(text: str) -> None:
    # No control, format, surrogate, private or unassigned character, no separator but the blank.
    shown = printable(text)
    assert all(character == " " or unicodedata.category(character)[0] not in "CZ" for character in shown)
    assert len(shown) <= 201
    shown.encode("utf-8")


@pytest.mark.parametrize("trick", TRICKS, ids=ascii)
def test_printable_text_shows_what_was_hidden(trick: str) -> None:
    shown = printable(f"a{trick}b")
    assert shown.isprintable()
    assert shown.startswith("a\\")
    assert shown.endswith("b")


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "M"]), max_size=200))
def test_what_is_printable_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_long_text_is_cut() -> None:
    assert printable("x" * 300) == "x" * 200 + "…"
    assert printable("\x00" * 300, 8) == "\\x00\\x00…"


@given(st.binary(max_size=60))
def test_every_file_name_can_be_shown(name: bytes) -> None:
    assert printable(name.decode("utf-8", "surrogateescape")).isprintable()

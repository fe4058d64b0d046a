"""The rules for names, numbers and links, as values."""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swapd.archive.extensions import parse_pax
from swapd.archive.headers import parse_header, parse_number
from swapd.archive.names import LinkResolver, parse_name, parse_target
from swapd.model.errors import Rejected
from tests.unit.archives import header, record, summed

# No database of earlier failures: the suite writes nothing beside its scratch directories.
SETTINGS = settings(max_examples=100, deadline=None, database=None)


@pytest.mark.parametrize(
    ("raw", "parts", "is_dotted", "is_slashed"),
    [
        (b"a", ("a",), False, False),
        (b"a/b/", ("a", "b"), False, True),
        (b"./a", ("a",), True, False),
        (b".", (), True, False),
        (b"./", (), True, True),
        (b"...", ("...",), False, False),
    ],
)
def test_names_become_components(raw: bytes, parts: tuple[str, ...], is_dotted: bool, is_slashed: bool) -> None:
    name = parse_name(raw, 128)
    assert (name.parts, name.is_dotted, name.is_slashed) == (parts, is_dotted, is_slashed)


@SETTINGS
@given(st.binary(max_size=40) | st.text(alphabet="./\\a é\n\0", max_size=12).map(str.encode))
def test_a_name_is_plain_or_rejected(raw: bytes) -> None:
    try:
        name = parse_name(raw, 128)
    except Rejected:
        return
    joined = "/".join(name.parts)
    assert (
        raw == b"./" * (name.is_dotted and bool(name.parts)) + joined.encode() + b"/" * name.is_slashed
        or not name.parts
    )
    assert os.path.normpath(joined or ".") == (joined or ".")
    assert not re.search(r"[\0-\x1f\x7f]", joined)
    assert not set(name.parts) & {"", ".", ".."}


@SETTINGS
@given(st.binary(min_size=12, max_size=12) | st.text(alphabet="01789 \0-_x", min_size=12, max_size=12).map(str.encode))
def test_a_number_is_what_its_digits_say_or_none(field: bytes) -> None:
    number = parse_number(field)
    digits = field.replace(b"\0", b" ").split()
    if number is not None and field[0] != 0x80:
        assert len(digits) == 1
        assert number == int(digits[0].decode(), 8)
        assert set(digits[0]) <= set(b"01234567")


def test_a_base256_number_begins_with_its_mark_alone() -> None:
    assert parse_number(b"\x80" + bytes(10) + b"\x07") == 7
    assert parse_number(b"\x81" + bytes(10) + b"\x07") is None
    assert parse_number(b"\xff" * 12) is None


@SETTINGS
@given(st.binary(min_size=512, max_size=512))
def test_the_checksum_is_the_sum_of_all_bytes(block: bytes) -> None:
    block = block[:124] + b"00000000000\0" + block[136:257] + b"ustar\x0000" + block[265:]
    good = summed(block)
    assert parse_header(good, b"", is_first=True).size == 0
    at = block[0] + 300 if block[0] + 300 < 512 else 5
    with pytest.raises(Rejected):
        parse_header(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :], b"", is_first=False)


def test_the_checksum_holds_for_the_largest_sum() -> None:
    block = summed(
        header(b"\xff" * 100, prefix=b"\xff" * 155)[:265] + b"\xff" * 64 + header(b"a", prefix=b"\xff" * 155)[329:]
    )
    assert parse_header(block, b"", is_first=True).name == b"\xff" * 155 + b"/" + b"\xff" * 100


@SETTINGS
@given(
    st.dictionaries(st.sampled_from([b"path", b"linkpath", b"comment", b"mtime"]), st.binary(min_size=1, max_size=200))
)
def test_pax_records_are_read_back(records: dict[bytes, bytes]) -> None:
    content = b"".join(record(key, value) for key, value in records.items())
    assert parse_pax(content) == {key: value for key, value in records.items() if key in (b"path", b"linkpath")}


def test_a_target_keeps_the_form_it_has() -> None:
    assert parse_target(b"./a//b/", b"link", 128) == "./a//b/"


ALLOWED = ("/srv/media", "/srv/other/deep")


@pytest.mark.parametrize(
    "target", ["/srv/media", "/srv/media/", "/srv/media/2024/photo.jpg", "/srv/media/..x", "/srv/other/deep/er"]
)
def test_an_absolute_target_that_is_allowed(target: str) -> None:
    assert parse_target(target.encode(), b"link", 128, ALLOWED) == target
    with pytest.raises(Rejected) as refusal:
        parse_target(target.encode(), b"link", 128)
    assert refusal.value.problem == "symlink-absolute"


@SETTINGS
@given(st.lists(st.sampled_from(["srv", "media", "other", "deep", "mediax", "..", ".", ""]), max_size=6))
def test_an_allowed_target_stays_below_what_is_allowed(parts: list[str]) -> None:
    target = "/" + "/".join(parts)
    try:
        parse_target(target.encode(), b"link", 128, ALLOWED)
    except Rejected:
        return
    assert os.path.normpath(target) == (target.rstrip("/") or "/")
    assert any(Path(target).is_relative_to(top) for top in ALLOWED)


def test_links_may_lead_through_one_that_is_allowed() -> None:
    links = {"media": "/srv/media", "a/photos": "../media/photos", "all": "a/photos/2024"}
    resolver = LinkResolver(links, 128)
    resolver.check_all(lambda: None)
    assert resolver.resolve("all") == (("/", "srv", "media", "photos", "2024"), 3)


def test_no_link_leads_up_from_what_is_allowed() -> None:
    """``parse_target`` lets no such target pass; nor would the resolver."""
    with pytest.raises(Rejected) as refusal:
        LinkResolver({"media": "/srv/media", "up": "media/../../etc"}, 128).check_all(lambda: None)
    assert refusal.value.problem == "symlink-outside"


NAMES = st.sampled_from(["a", "b", "c"])
TARGETS = st.lists(st.sampled_from(["..", "..", ".", "a", "b", "c", "l0", "l1", "l2", ""]), min_size=1, max_size=5).map(
    "/".join
)


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """One tree of directories for all examples."""
    with tempfile.TemporaryDirectory() as name:
        for top, below in itertools.product("abc", repeat=2):
            Path(name, "outer", "root", top, below).mkdir(parents=True)
        yield Path(name, "outer", "root").resolve()


@settings(SETTINGS, max_examples=300)
@given(st.lists(st.tuples(st.lists(NAMES, max_size=2), TARGETS), min_size=1, max_size=5))
def test_what_the_resolver_lets_pass_the_kernel_keeps_inside(root: Path, links: list[tuple[list[str], str]]) -> None:
    """The very links, made on a disk: none of those that pass leads out of the root."""
    planned: dict[str, str] = {}
    for at, (above, target) in enumerate(links):
        try:
            planned["/".join([*above, f"l{at}"])] = parse_target(target.encode(), b"link", 128)
        except Rejected:
            continue
    try:
        LinkResolver(planned, 128).check_all(lambda: None)
    except Rejected:
        return
    for path, target in planned.items():
        os.symlink(target, root / path)
    try:
        for path in planned:
            end = os.path.realpath(root / path)
            assert f"{end}/".startswith(f"{root}/")
            assert not os.path.islink(end), "a loop"
    finally:
        for path in planned:
            os.unlink(root / path)

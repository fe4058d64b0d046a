"""Archives that must be refused, each a function named by what it attacks, with the problem code that is due."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from dataclasses import dataclass, replace

from swapd.archive import Limits
from swapd.model.release import Compression
from tests.unit.archives import (
    END,
    LIMITS,
    base256,
    compress,
    directory,
    file,
    hard_link,
    header,
    long_name,
    octal,
    padded,
    pax,
    raw_pax,
    record,
    symlink,
    tar,
    xz_wanting,
    zstd_wanting,
)


@dataclass(frozen=True)
class Hostile:
    """One case; ``build`` gets the absolute path of the canary, which stands beside the staging directory."""

    name: str
    problem: str
    build: Callable[[bytes], bytes]
    compression: Compression
    strip: int | None
    limits: Limits


CASES: list[Hostile] = []
NONE, GZIP, ZSTD, XZ, BZIP2 = Compression


def hostile(
    problem: str, compression: Compression = NONE, *, strip: int | None = 0, limits: Limits = LIMITS
) -> Callable[[Callable[[bytes], bytes]], None]:
    def register(build: Callable[[bytes], bytes]) -> None:
        CASES.append(Hostile(build.__name__, problem, build, compression, strip, limits))

    return register


def each(problem: str, limits: Limits = LIMITS, **archives: bytes) -> None:
    """Several archives that want no more than a line."""
    for name, data in archives.items():
        CASES.append(Hostile(name, problem, lambda _, data=data: data, NONE, 0, limits))  # type: ignore[misc]


GOOD = file(b"good")
OUTSIDE = b"../canary/pwned"
MEDIA_ALLOWED = replace(LIMITS, allow_links_to=("/srv/media", "/srv/other/deep"))
NFC, NFD = "caf\u00e9".encode(), "cafe\u0301".encode()


# Names that lead elsewhere


@hostile("absolute-name")
def name_is_absolute(canary: bytes) -> bytes:
    return tar(file(canary + b"/pwned"))


@hostile("absolute-name")
def pax_path_is_absolute(canary: bytes) -> bytes:
    return tar(pax((b"path", canary + b"/pwned")), file(b"harmless"))


@hostile("absolute-name")
def long_name_is_absolute(canary: bytes) -> bytes:
    return tar(long_name(canary + b"/pwned"), file(b"harmless"))


@hostile("absolute-name")
def prefix_is_absolute(canary: bytes) -> bytes:
    return tar(file(b"pwned", prefix=canary))


@hostile("absolute-name", strip=3)
def absolute_name_is_stripped(canary: bytes) -> bytes:
    return tar(GOOD, file(canary + b"/pwned"))


@hostile("parent-name", strip=1)
def parent_name_is_stripped(_: bytes) -> bytes:
    return tar(file(b"a/b"), file(b"a/../../canary/pwned"))


each(
    "parent-name",
    name_begins_with_parent=tar(file(OUTSIDE)),
    name_has_parent_inside=tar(file(b"a/../../canary/pwned")),
    name_ends_in_parent=tar(directory(b"a/..")),
    name_is_parent=tar(directory(b"..")),
    dotted_parent=tar(file(b"./../canary/pwned")),
    pax_path_has_parent=tar(pax((b"path", OUTSIDE)), file(b"harmless")),
    long_name_has_parent=tar(long_name(OUTSIDE), file(b"harmless")),
    prefix_is_parent=tar(file(b"canary/pwned", prefix=b"..")),
)
each(
    "not-a-plain-name",
    empty_component=tar(file(b"a//b")),
    dot_component=tar(file(b"a/./b")),
    two_leading_dots=tar(file(b"././a")),
    two_trailing_slashes=tar(directory(b"a//")),
    dot_is_a_file=tar(file(b".")),
    dot_is_a_symlink=tar(symlink(b".", b"x"), GOOD),
)
each("empty-name", empty_name=tar(file(b"")), empty_long_name=tar(long_name(b""), file(b"harmless")))
each(
    "control-character",
    newline_in_name=tar(file(b"a\nb")),
    terminal_escape_in_name=tar(file(b"\x1b[2J")),
    delete_in_name=tar(file(b"a\x7f")),
    c1_control_in_name=tar(file("a\x9bb".encode())),
    line_separator_in_name=tar(file("a\u2028b".encode())),
    zero_byte_in_pax_path=tar(pax((b"path", b"a\0b")), file(b"harmless")),
    newline_in_symlink_target=tar(symlink(b"link", b"a\nb")),
    newline_in_hard_link_target=tar(GOOD, hard_link(b"link", b"good\n")),
)
each(
    "name-not-utf8",
    latin1_name=tar(file(b"caf\xe9")),
    overlong_utf8_name=tar(file(b"\xc0\xae\xc0\xae/pwned")),
    surrogate_in_name=tar(file(b"\xed\xb3\xbf")),
    latin1_symlink_target=tar(GOOD, symlink(b"link", b"caf\xe9")),
)
each(
    "name-too-long",
    component_of_256_bytes=tar(long_name(b"a" * 256), file(b"harmless")),
    wide_component_of_256_bytes=tar(pax((b"path", "é".encode() * 128)), file(b"harmless")),
    path_of_4096_bytes=tar(pax((b"path", (b"a" * 255 + b"/") * 16)), directory(b"harmless")),
    symlink_target_of_4096_bytes=tar(GOOD, pax((b"linkpath", b"./" * 2048)), symlink(b"link", b"")),
)
each(
    "too-deep",
    tree_of_129_levels=tar(pax((b"path", b"/".join([b"d"] * 129))), file(b"harmless")),
    tree_of_2000_levels=tar(pax((b"path", b"/".join([b"d"] * 2000))), directory(b"harmless")),
    symlink_target_of_200_levels=tar(GOOD, pax((b"linkpath", b"d/" * 200)), symlink(b"link", b"")),
    symlink_target_of_200_parents=tar(GOOD, pax((b"linkpath", b"../" * 200)), symlink(b"link", b"")),
    symlinks_that_pile_up=tar(
        GOOD,
        pax((b"linkpath", b"e/" * 100)) + symlink(b"one", b""),
        pax((b"linkpath", b"one/" + b"f/" * 100)) + symlink(b"two", b""),
    ),
)


# Names that are there already

each(
    "duplicate-name",
    file_twice=tar(file(b"a"), file(b"b"), file(b"a")),
    file_twice_once_dotted=tar(file(b"a"), file(b"./a")),
    non_ascii_file_twice=tar(file(NFC), file(NFC)),
    file_then_directory=tar(file(b"a"), directory(b"a/")),
    directory_then_file=tar(directory(b"a/"), file(b"a")),
    file_then_symlink=tar(file(b"a"), symlink(b"a", b"b")),
    directory_then_symlink=tar(file(b"a/b"), symlink(b"a", b"b")),
    symlink_then_file=tar(symlink(b"a", OUTSIDE[:9]), file(b"a")),
    symlink_then_directory=tar(symlink(b"a", b"b"), directory(b"a"), GOOD),
    symlink_twice=tar(GOOD, symlink(b"a", b"good"), symlink(b"a", b"../canary")),
    symlink_then_hard_link=tar(GOOD, symlink(b"a", b"b"), hard_link(b"a", b"good")),
    file_then_hard_link=tar(GOOD, file(b"a"), hard_link(b"a", b"good")),
    hard_link_then_file=tar(GOOD, hard_link(b"a", b"good"), file(b"a", b"changes good too")),
    hard_link_to_itself=tar(GOOD, hard_link(b"good", b"good")),
)
CASES.append(
    Hostile("stripped_to_the_same_name", "duplicate-name", lambda _: tar(file(b"a/x"), file(b"b/x")), NONE, 1, LIMITS)
)
each(
    "name-collision",
    normal_forms_of_files=tar(file(NFC), file(NFD)),
    normal_forms_of_directories=tar(file(NFC + b"/a"), file(NFD + b"/a")),
    normal_forms_of_file_and_symlink=tar(file(NFC), symlink(NFD, b"x")),
    normal_forms_of_hard_links=tar(GOOD, hard_link(NFD, b"good"), hard_link(NFC, b"good")),
    kelvin_sign=tar(file(b"K"), file("\u212a".encode())),
)


# Paths through what is not a directory

each(
    "path-through-file",
    path_through_file=tar(file(b"a"), file(b"a/b")),
    path_through_hard_link=tar(GOOD, hard_link(b"a", b"good"), file(b"a/b")),
)
each(
    "path-through-symlink",
    file_through_symlink=tar(symlink(b"a", b"../canary"), file(b"a/pwned")),
    directory_through_symlink=tar(symlink(b"a", b"../canary"), directory(b"a/pwned")),
    deep_file_through_symlink=tar(symlink(b"a/b", b"../../canary"), file(b"a/b/c/d")),
    file_through_symlink_inside=tar(directory(b"real"), symlink(b"a", b"real"), file(b"a/x")),
    symlink_through_symlink=tar(symlink(b"a", b"."), symlink(b"a/b", b"..")),
    hard_link_target_through_symlink=tar(GOOD, symlink(b"a", b"."), hard_link(b"b", b"a/good")),
    hard_link_outside_through_symlink=tar(GOOD, symlink(b"a", b"../canary"), hard_link(b"b", b"a/file")),
)


# Symlinks that lead elsewhere


@hostile("symlink-absolute")
def symlink_to_absolute_path(canary: bytes) -> bytes:
    return tar(GOOD, symlink(b"link", canary))


@hostile("symlink-absolute")
def pax_linkpath_is_absolute(canary: bytes) -> bytes:
    return tar(GOOD, pax((b"linkpath", canary)), symlink(b"link", b"good"))


@hostile("symlink-absolute")
def long_target_is_absolute(canary: bytes) -> bytes:
    return tar(GOOD, long_name(canary, b"K"), symlink(b"link", b"good"))


@hostile("symlink-outside", strip=None)
def symlink_outside_only_once_unwrapped(_: bytes) -> bytes:
    return tar(directory(b"shop/"), file(b"shop/good"), symlink(b"shop/link", b"../canary"))


@hostile("symlink-outside", strip=None)
def symlink_back_into_the_wrapper(_: bytes) -> bytes:
    return tar(file(b"shop/good"), symlink(b"shop/link", b"../shop/good"))


@hostile("symlink-outside", strip=1)
def symlink_outside_only_once_stripped(_: bytes) -> bytes:
    return tar(file(b"shop/good"), symlink(b"shop/link", b"../canary"))


each(
    "symlink-outside",
    symlink_to_parent=tar(GOOD, symlink(b"link", b"..")),
    symlink_to_canary=tar(GOOD, symlink(b"link", b"../canary/file")),
    symlink_dangling_outside=tar(GOOD, symlink(b"link", b"../nothing")),
    deep_symlink_outside=tar(GOOD, symlink(b"a/b/link", b"../../../canary")),
    symlink_outside_by_chain=tar(
        GOOD, directory(b"a/b"), symlink(b"a/b/up", b"../.."), symlink(b"x", b"a/b/up/up"), symlink(b"up", b"..")
    ),
    symlink_through_symlinked_directory=tar(
        file(b"a/b/c"), symlink(b"d", b"a/b"), symlink(b"a/b/e", b"../../.."), symlink(b"f", b"d/e/canary")
    ),
    symlink_outside_and_back=tar(GOOD, symlink(b"link", b"../staging/good")),
)
each(
    "symlink-not-plain",
    symlink_down_and_up=tar(GOOD, symlink(b"link", b"a/../../canary")),
    symlink_up_behind_a_shared_path=tar(GOOD, directory(b"shared"), symlink(b"link", b"shared/../good")),
    symlink_up_behind_symlink=tar(GOOD, directory(b"a/b"), symlink(b"l", b"a/b"), symlink(b"m", b"l/../../../canary")),
)
# The same where a site allows links to /srv/media: these are not below it, or only seem to be.
each(
    "symlink-absolute",
    MEDIA_ALLOWED,
    symlink_up_from_what_is_allowed=tar(GOOD, symlink(b"link", b"/srv/media/../../etc")),
    symlink_up_and_back_to_what_is_allowed=tar(GOOD, symlink(b"link", b"/srv/media/../media")),
    symlink_beside_what_is_allowed=tar(GOOD, symlink(b"link", b"/srv/mediax")),
    symlink_above_what_is_allowed=tar(GOOD, symlink(b"link", b"/srv")),
    symlink_halfway_to_what_is_allowed=tar(GOOD, symlink(b"link", b"/srv/other")),
    symlink_to_the_whole_machine=tar(GOOD, symlink(b"link", b"/")),
    symlink_in_another_case=tar(GOOD, symlink(b"link", b"/srv/Media")),
    symlink_by_two_slashes=tar(GOOD, symlink(b"link", b"//srv/media")),
    symlink_by_an_empty_component=tar(GOOD, symlink(b"link", b"/srv//media")),
    symlink_by_a_dot=tar(GOOD, symlink(b"link", b"/srv/media/./x")),
    symlink_that_ends_upwards=tar(GOOD, symlink(b"link", b"/srv/media/..")),
)
each(
    "symlink-outside",
    MEDIA_ALLOWED,
    relative_symlink_to_what_is_allowed=tar(GOOD, symlink(b"link", b"../../../../../../../../srv/media")),
)
each(
    "symlink-not-plain",
    MEDIA_ALLOWED,
    symlink_up_through_one_that_is_allowed=tar(
        GOOD, symlink(b"media", b"/srv/media"), symlink(b"link", b"media/../../etc")
    ),
)
each(
    "path-through-symlink",
    MEDIA_ALLOWED,
    file_through_symlink_that_is_allowed=tar(GOOD, symlink(b"media", b"/srv/media"), file(b"media/pwned")),
    symlink_through_symlink_that_is_allowed=tar(
        GOOD, symlink(b"media", b"/srv/media"), symlink(b"media/link", b"../etc")
    ),
)
each(
    "symlink-loop",
    MEDIA_ALLOWED,
    chain_of_41_symlinks_to_what_is_allowed=tar(
        GOOD, *(symlink(b"l%d" % at, b"l%d" % (at + 1)) for at in range(40)), symlink(b"l40", b"/srv/media")
    ),
)
each("symlink-empty", symlink_to_nothing=tar(GOOD, symlink(b"link", b"")))
each(
    "symlink-loop",
    symlink_to_itself=tar(GOOD, symlink(b"a", b"a")),
    symlink_below_itself=tar(GOOD, symlink(b"a", b"a/b")),
    two_symlinks_in_a_ring=tar(GOOD, symlink(b"a", b"b"), symlink(b"b", b"a")),
    chain_of_41_symlinks=tar(GOOD, *(symlink(b"l%d" % at, b"l%d" % (at + 1)) for at in range(41))),
    chain_of_41_symlinks_backwards=tar(GOOD, *(symlink(b"l%d" % at, b"l%d" % (at - 1)) for at in range(1, 42))),
    chain_of_thousands=tar(GOOD, *(symlink(b"l%d" % at, b"l%d" % (at + 1)) for at in range(3000))),
    symlinks_that_double=tar(
        GOOD, *(symlink(b"l%d" % at, b"/".join([b"l%d" % (at + 1)] * 9)) for at in range(30)), symlink(b"l30", b".")
    ),
)


# Hard links


@hostile("absolute-name")
def hard_link_to_absolute_path(canary: bytes) -> bytes:
    return tar(GOOD, hard_link(b"link", canary + b"/file"))


@hostile("hard-link-to-missing", strip=2)
def hard_link_target_is_stripped_away(_: bytes) -> bytes:
    return tar(file(b"a/b"), file(b"a/b2/c"), hard_link(b"a/b2/d", b"a/b"))


each("parent-name", hard_link_to_parent=tar(GOOD, hard_link(b"link", b"../canary/file")))
each(
    "hard-link-to-symlink",
    hard_link_to_symlink=tar(GOOD, symlink(b"a", b"good"), hard_link(b"b", b"a")),
    hard_link_to_symlink_outside_then_written=tar(symlink(b"a", b"../canary/file"), hard_link(b"b", b"a"), file(b"b")),
)
each(
    "hard-link-to-missing",
    hard_link_to_missing=tar(GOOD, hard_link(b"link", b"bad")),
    hard_link_to_later_file=tar(hard_link(b"link", b"good"), GOOD),
    hard_link_into_missing_directory=tar(GOOD, hard_link(b"link", b"a/b/c")),
    hard_link_through_file=tar(GOOD, hard_link(b"link", b"good/b")),
)
each(
    "hard-link-to-directory",
    hard_link_to_directory=tar(GOOD, directory(b"a"), hard_link(b"link", b"a")),
    hard_link_to_directory_by_name=tar(GOOD, hard_link(b"link", b"good/")),
    hard_link_to_root=tar(GOOD, hard_link(b"link", b".")),
)


# Types

each("character-device", character_device=tar(header(b"a", b"3")))
each("block-device", block_device=tar(header(b"a", b"4")))
each("fifo", fifo=tar(GOOD, header(b"a", b"6")))
each(
    "multi-volume",
    continued_file=tar(file(b"a", kind=b"M")),
    volume_in_pax=tar(pax((b"GNU.volume.offset", b"9")), GOOD),
)
each("incremental-dump", dumped_directory=tar(file(b"a", b"Yx\0\0", kind=b"D")))
each("volume-label", volume_label=tar(header(b"label", b"V"), GOOD))
each(
    "unknown-type",
    unknown_type=tar(GOOD, header(b"a", b"Z")),
    solaris_acl=tar(file(b"a", kind=b"A")),
    solaris_pax=tar(raw_pax(record(b"path", b"b"), b"X"), GOOD),
    old_gnu_long_name=tar(file(b"a", kind=b"N")),
    socket_of_some_tar=tar(header(b"a", b"s")),
    high_byte_type=tar(header(b"a", b"\xff")),
)
each(
    "sparse-file",
    old_gnu_sparse=tar(file(b"a", kind=b"S", magic=b"ustar  \0")),
    pax_sparse_0_1=tar(pax((b"GNU.sparse.map", b"0,8"), (b"GNU.sparse.size", b"8")), GOOD),
    pax_sparse_1_0=tar(pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.name", b"x")), GOOD),
    star_sparse=tar(pax((b"SCHILY.realsize", b"8")), GOOD),
    solaris_sparse=tar(pax((b"SUN.holesdata", b"8")), GOOD),
    global_sparse=tar(pax((b"GNU.sparse.major", b"1"), kind=b"g"), GOOD),
)
each(
    "unexpected-content",
    directory_with_content=tar(header(b"a", b"5", 512), padded(b"x"), GOOD),
    symlink_with_content=tar(header(b"a", b"2", 512, target=b"x"), file(b"hidden"), GOOD),
    hard_link_with_content=tar(GOOD, header(b"a", b"1", 512, target=b"good"), file(b"hidden")),
    directory_with_pax_size=tar(pax((b"size", b"512")), directory(b"a"), file(b"hidden"), GOOD),
    slashed_v7_file_with_content=tar(file(b"a/", kind=b"\0"), GOOD),
)
each(
    "slash-after-file",
    slash_after_file=tar(file(b"a/")),
    slash_after_symlink=tar(GOOD, symlink(b"a/", b"good")),
    slash_after_pax_path=tar(pax((b"path", b"a/")), file(b"b")),
)


# Headers


def signed(block: bytes) -> bytes:
    """The block with the checksum that old Sun programs wrote: its bytes are signed."""
    above = sum(byte >= 0x80 for byte in block[:512])
    return block[:148] + b"%06o\0 " % (int(block[148:154], 8) - 256 * above) + block[156:]


each(
    "not-a-tarball",
    not_a_tarball=b"<?php phpinfo();" * 64,
    zip_file=b"PK\x03\x04" + bytes(1000),
    first_checksum_is_wrong=tar(b"x" + GOOD[1:]),
    first_checksum_is_signed=tar(signed(header(NFC))),
    checksum_field_is_empty=tar(GOOD[:148] + bytes(8) + GOOD[156:]),
)
each(
    "bad-checksum",
    later_checksum_is_wrong=tar(GOOD, b"x" + GOOD[1:]),
    size_was_changed=tar(GOOD, GOOD[:124] + octal(511, 12) + GOOD[136:]),
    header_is_text=tar(GOOD, b"no header at all" * 32),
)
each("unknown-format", unknown_magic=tar(file(b"a", magic=b"newtar  ")))
each(
    "bad-number",
    size_is_a_word=tar(header(b"a", size=b"many")),
    size_is_blank=tar(header(b"a", size=b"")),
    size_is_negative=tar(header(b"a", size=b"-0000000010")),
    size_is_base256_negative=tar(header(b"a", size=base256(-512))),
    size_is_astronomical=tar(header(b"a", size=base256(1 << 80))),
    size_is_hexadecimal=tar(header(b"a", size=b"0x000000010")),
    size_has_underscore=tar(header(b"a", size=b"0000_000010")),
    size_goes_on_after_a_blank=tar(header(b"a", size=b"00000 00010")),
)
each(
    "bad-pax-header",
    pax_length_too_short=tar(raw_pax(b"3 path=x\n"), GOOD),
    pax_length_too_long=tar(raw_pax(b"99 path=x\n"), GOOD),
    pax_length_missing=tar(raw_pax(b"path=x\n"), GOOD),
    pax_length_is_zero=tar(raw_pax(b"0 path=x\n"), GOOD),
    pax_length_has_a_sign=tar(raw_pax(b"+9 path=x\n"), GOOD),
    pax_length_is_huge=tar(raw_pax(b"99999999999999999999 path=x\n"), GOOD),
    pax_length_has_leading_zero=tar(raw_pax(b"010 path=x\n"), GOOD),
    pax_newline_missing=tar(raw_pax(b"9 path=xy"), GOOD),
    pax_keyword_missing=tar(raw_pax(b"6 =x\n\n"), GOOD),
    pax_equals_missing=tar(raw_pax(b"8 pathx\n"), GOOD),
    pax_path_twice=tar(pax((b"path", b"a"), (b"path", b"b")), GOOD),
    pax_path_empty=tar(pax((b"path", b"")), GOOD),
    pax_size_empty=tar(pax((b"size", b"")), GOOD),
    pax_size_negative=tar(pax((b"size", b"-1")), GOOD),
    pax_size_is_a_fraction=tar(pax((b"size", b"1.5")), GOOD),
    pax_size_in_arabic_digits=tar(pax((b"size", "٨".encode())), GOOD),
    pax_zeros_after_records=tar(raw_pax(record(b"path", b"x") + bytes(8)), GOOD),
)
each(
    "conflicting-headers",
    two_pax_headers=tar(pax((b"path", b"a")), pax((b"path", b"b")), GOOD),
    two_pax_headers_that_do_not_meet=tar(pax((b"path", b"a")), pax((b"comment", b"b")), GOOD),
    pax_and_long_name=tar(long_name(b"a"), pax((b"path", b"b")), GOOD),
    two_long_names=tar(long_name(b"a"), long_name(b"b"), GOOD),
    two_long_targets=tar(GOOD, long_name(b"good", b"K"), pax((b"linkpath", b"b")), symlink(b"a", b"")),
    global_header_inside_a_member=tar(pax((b"path", b"a")), pax((b"comment", b"x"), kind=b"g"), GOOD),
)
each(
    "global-name",
    global_path=tar(pax((b"path", OUTSIDE), kind=b"g"), GOOD),
    global_linkpath=tar(pax((b"linkpath", b".."), kind=b"g"), GOOD),
    global_size=tar(pax((b"size", b"0"), kind=b"g"), GOOD),
)
each("too-many-headers", global_headers_without_end=tar(*[pax((b"comment", b"x"), kind=b"g")] * 65, GOOD))
each(
    "dangling-header",
    pax_header_at_the_end=tar(GOOD, pax((b"path", b"a"))),
    long_name_at_the_end=tar(GOOD, long_name(b"a")),
)
each(
    "header-too-large",
    pax_header_of_8_gib=tar(header(b"pax", b"x", 0o77777777777)),
    long_name_of_1_mib=tar(long_name(b"a" * (1 << 20)), GOOD),
    global_header_of_1_mib=tar(raw_pax(record(b"comment", b"x" * (1 << 20)), b"g"), GOOD),
)
each("bad-long-name", name_behind_long_name=tar(long_name(b"a\0../b"), GOOD))


# Ends

each(
    "truncated",
    nothing_at_all=b"",
    ends_inside_header=tar(GOOD, GOOD)[:1300],
    ends_inside_content=tar(file(b"a", bytes(2000)))[:1500],
    ends_before_content=GOOD[:512],
    ends_inside_padding=GOOD[:700],
    ends_inside_pax_header=tar(pax((b"path", b"a" * 600)))[:900],
)
each(
    "missing-end-marker",
    ends_between_members=tar(GOOD, GOOD.replace(b"good", b"good"), end=b"")[:1024],
    ends_after_extension=tar(GOOD, pax((b"path", b"a")), end=b""),
    half_an_end_marker=tar(GOOD, end=bytes(512)),
    end_marker_is_cut=tar(GOOD, end=bytes(1023)),
)
each(
    "lone-zero-block",
    goes_on_after_half_an_end_marker=tar(GOOD, bytes(512), file(b"hidden")),
    garbage_after_half_an_end_marker=tar(GOOD, bytes(512), b"x" * 512),
)
each(
    "trailing-garbage",
    second_archive=tar(GOOD) + tar(file(b"hidden")),
    garbage_after_the_end=tar(GOOD) + b"x",
    garbage_after_padding=tar(GOOD) + bytes(10240) + b"<?php",
    zeros_without_end=tar(GOOD) + bytes((1 << 20) + 1),
)
each(
    "empty-archive",
    only_an_end_marker=END,
    only_directories=tar(directory(b"a/"), directory(b"b/")),
    only_a_symlink=tar(symlink(b"a", b"b")),
    only_dot=tar(directory(b"./")),
)
CASES.append(Hostile("everything_stripped_away", "empty-archive", lambda _: tar(GOOD, file(b"a/b")), NONE, 5, LIMITS))


# Too much of it

SMALL = Limits(max_extracted=10_000, max_entries=20)


@hostile("too-large", limits=SMALL)
def file_over_the_limit(_: bytes) -> bytes:
    return tar(file(b"a", bytes(10_001)))


@hostile("too-large", limits=SMALL)
def files_over_the_limit_together(_: bytes) -> bytes:
    return tar(*(file(b"%d" % at, bytes(3000)) for at in range(4)))


@hostile("too-large")
def file_that_claims_exabytes(_: bytes) -> bytes:
    return tar(header(b"a", size=base256(1 << 61)))


@hostile("too-large")
def pax_size_that_claims_exabytes(_: bytes) -> bytes:
    return tar(pax((b"size", b"9" * 19)), GOOD)


@hostile("too-large", limits=SMALL, strip=1)
def stripped_files_over_the_limit(_: bytes) -> bytes:
    return tar(*(file(b"%d" % at, bytes(3000)) for at in range(4)))


@hostile("too-large", limits=SMALL)
def extension_headers_over_the_limit(_: bytes) -> bytes:
    return tar(*(pax((b"comment", b"x" * 3000), (b"path", b"%d" % at)) + GOOD for at in range(4)))


@hostile("too-many-entries", limits=SMALL)
def files_over_the_count(_: bytes) -> bytes:
    return tar(*(file(b"%d" % at) for at in range(21)))


@hostile("too-many-entries", limits=SMALL)
def directories_that_no_member_announces(_: bytes) -> bytes:
    return tar(file(b"a/" * 20 + b"b"))


@hostile("too-many-entries", limits=SMALL)
def one_directory_again_and_again(_: bytes) -> bytes:
    return tar(GOOD, *[directory(b"a/")] * 20)


@hostile("too-many-entries", limits=SMALL, strip=1)
def members_that_are_stripped_away(_: bytes) -> bytes:
    return tar(*[GOOD] * 21)


@hostile("too-many-entries", limits=Limits(1 << 30, 70))
def symlinks_over_the_count(_: bytes) -> bytes:
    return tar(GOOD, *(symlink(b"%d" % at, b"good") for at in range(70)))


@hostile("too-many-symlinks", limits=Limits(1 << 30, 20_000))
def symlinks_with_long_targets(_: bytes) -> bytes:
    member = pax((b"linkpath", b"./" * 2000))
    return tar(GOOD, *(member + symlink(b"%d" % at, b"") for at in range(4200)))


@hostile("compression-bomb", GZIP, limits=Limits(1 << 40, 100, free_bytes=1 << 20))
def gzip_bomb(_: bytes) -> bytes:
    return compress(tar(*(file(b"%d" % at, bytes(1 << 20)) for at in range(4))), GZIP)


@hostile("compression-bomb", XZ, limits=Limits(1 << 62, 100))
def xz_that_claims_terabytes(_: bytes) -> bytes:
    return compress(tar(header(b"a", size=base256(1 << 40))), XZ)


# Compression

PLAIN = tar(file(b"a", bytes(range(256)) * 40))


def broken(data: bytes, at: int) -> bytes:
    """The data with one bit turned over."""
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def register_compressed() -> None:
    for kind in (GZIP, XZ, BZIP2, ZSTD):
        good = compress(PLAIN, kind)
        truncated = "truncated" if kind is not ZSTD else "corrupt-compression"
        garbage = "trailing-garbage" if kind is not ZSTD else "corrupt-compression"
        for problem, name, data in (
            (truncated, "cut_in_the_middle", good[: len(good) // 2]),
            (truncated, "cut_by_one_byte", good[:-1]),
            (truncated, "cut_in_the_head", good[:8]),
            (garbage, "with_garbage_after_it", good + b"<?php garbage"),
            (garbage, "with_one_zero_after_it", good + b"\0"),
            (truncated, "with_a_truncated_one_after_it", good + compress(bytes(4096), kind)[:-1]),
            ("corrupt-compression", "with_a_bit_turned_over", broken(good, len(good) // 2)),
            ("trailing-garbage", "with_a_second_archive", good + compress(tar(file(b"hidden")), kind)),
            ("missing-end-marker", "of_an_archive_without_end", compress(PLAIN[:-1024], kind)),
            ("empty-archive", "of_an_empty_archive", compress(END, kind)),
            ("missing-end-marker", "of_nothing", compress(b"", kind)),
        ):
            CASES.append(Hostile(f"{kind.value}_{name}", problem, lambda _, data=data: data, kind, 0, LIMITS))  # type: ignore[misc]


register_compressed()


@hostile("corrupt-compression", GZIP)
def gzip_with_wrong_crc(_: bytes) -> bytes:
    return broken(gzip.compress(PLAIN), -8)


@hostile("corrupt-compression", GZIP)
def gzip_with_wrong_size(_: bytes) -> bytes:
    return broken(gzip.compress(PLAIN), -4)


@hostile("corrupt-compression", GZIP)
def gzip_with_reserved_flags(_: bytes) -> bytes:
    data = gzip.compress(PLAIN)
    return data[:3] + b"\xe0" + data[4:]


@hostile("corrupt-compression", XZ)
def xz_with_wrong_check(_: bytes) -> bytes:
    return broken(lzma.compress(PLAIN), -29)


@hostile("corrupt-compression", BZIP2)
def bzip2_with_wrong_crc(_: bytes) -> bytes:
    return broken(compress(PLAIN, BZIP2), -4)


@hostile("corrupt-compression", ZSTD)
def zstd_with_wrong_checksum(_: bytes) -> bytes:
    return broken(compress(PLAIN, ZSTD), -1)


@hostile("needs-too-much-memory", XZ)
def xz_with_a_dictionary_of_2_gib(_: bytes) -> bytes:
    return xz_wanting(31, PLAIN)


@hostile("corrupt-compression", ZSTD)
def zstd_with_a_window_of_1_gib(_: bytes) -> bytes:
    return zstd_wanting(30, PLAIN)


@hostile("wrong-compression")
def gzip_named_tar(_: bytes) -> bytes:
    return gzip.compress(PLAIN)


@hostile("wrong-compression", GZIP)
def tar_named_gzip(_: bytes) -> bytes:
    return PLAIN


@hostile("wrong-compression", ZSTD)
def xz_named_zstd(_: bytes) -> bytes:
    return lzma.compress(PLAIN)


@hostile("wrong-compression", XZ)
def text_named_xz(_: bytes) -> bytes:
    return b"nothing of the kind"

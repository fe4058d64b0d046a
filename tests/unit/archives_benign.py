"""Archives that are odd and right: each must become the very tree that GNU tar makes of it."""

from __future__ import annotations

from swapd.model.release import Compression
from tests.unit.archives import (
    END,
    base256,
    compress,
    directory,
    file,
    hard_link,
    header,
    long_name,
    padded,
    pax,
    raw_pax,
    summed,
    symlink,
    tar,
)

GOOD = file(b"good")
PROGRAM = header(b"program", size=10, mode=0o4711) + padded(b"#!/bin/sh\n")
SITE = tar(
    directory(b"shop/"),
    file(b"shop/index.php", b"<?php require 'lib/a.php';"),
    directory(b"shop/lib/"),
    file(b"shop/lib/a.php", b"<?php"),
    hard_link(b"shop/lib/b.php", b"shop/lib/a.php"),
    symlink(b"shop/current", b"lib/a.php"),
    file(b"shop/bin/run", b"#!/bin/sh\n", mode=0o755),
)


def ended_by(count: int) -> bytes:
    return bytes(512 * count)


CASES: dict[str, bytes] = {
    "gnu_long_name": tar(long_name(b"d/" * 60 + b"n" * 200), file(b"short")),
    "gnu_long_target": tar(
        long_name(b"d/" * 60 + b"f"), GOOD, long_name(b"d/" * 60 + b"f", b"K"), symlink(b"link", b"cut")
    ),
    "gnu_long_name_and_target": tar(
        long_name(b"d/" * 60 + b"f"),
        GOOD,
        long_name(b"l" * 200),
        long_name(b"d/" * 60 + b"f", b"K"),
        hard_link(b"a", b"b"),
    ),
    "pax_long_name": tar(pax((b"path", b"d/" * 60 + b"n" * 255)), file(b"short")),
    "pax_long_target": tar(
        pax((b"path", b"d/" * 60 + b"f")), GOOD, pax((b"linkpath", b"d/" * 60 + b"f")), hard_link(b"link", b"cut")
    ),
    "pax_records_that_say_nothing_of_the_tree": tar(
        pax(
            (b"atime", b"1.5"),
            (b"uname", "jürgen".encode()),
            (b"gid", b"33"),
            (b"comment", b"two\nlines = one comment"),
            (b"comment", b""),
            (b"SCHILY.xattr.user.x", b"\x00\xff"),
            (b"LIBARCHIVE.creationtime", b"1"),
        ),
        GOOD,
    ),
    "pax_size": tar(pax((b"size", b"8")), header(b"a", size=b"00000000010") + padded(b"content\n"), GOOD),
    "pax_record_whose_length_grows_a_digit": tar(pax((b"comment", b"x" * 88), (b"path", b"y" * 93)), GOOD),
    "empty_pax_header": tar(raw_pax(b""), GOOD),
    "global_comment_of_git": tar(pax((b"comment", b"9f86d081" * 5), kind=b"g"), GOOD),
    "hard_links": tar(
        file(b"a/b", b"one"), hard_link(b"c", b"a/b"), hard_link(b"d/e", b"c"), hard_link(b"a/f", b"d/e")
    ),
    "hard_link_to_empty_file": tar(file(b"a", b""), hard_link(b"b", b"./a")),
    "dotted_names": tar(directory(b"./"), directory(b"./a/"), file(b"./a/b"), file(b"./c")),
    "record_padding": tar(GOOD, end=ended_by(20)),
    "padding_of_a_megabyte": tar(GOOD, end=ended_by(2048)),
    "padding_that_is_not_whole_blocks": tar(GOOD, end=END + bytes(100)),
    "utf8_names": tar(file("søk/日本語/naïve café.php".encode()), file("🛒/👩‍💻".encode()), file("نام‌ها".encode())),
    "names_in_decomposed_form": tar(file("cafe\u0301".encode()), file("re\u0301sume\u0301/a".encode())),
    "one_name_in_several_directories": tar(file("a/é".encode()), file("b/é".encode()), file("b/c/é".encode())),
    "names_that_differ_by_case": tar(file(b"README"), file(b"readme"), file(b"Lib/a"), file(b"lib/a")),
    "names_that_shells_dislike": tar(
        file(b"-rf"),
        file(b"a b"),
        file(b"back\\slash"),
        file(b"quote'\""),
        file(b"$HOME;`id`"),
        file(b"*?["),
        file(b"c:d"),
    ),
    "names_of_many_dots": tar(file(b"..."), file(b"..a"), file(b"a.."), file(b".a/..b/.c"), file(b"a./b")),
    "name_of_100_bytes": tar(file(b"n" * 100), file(b"m" * 99)),
    "name_with_prefix": tar(file(b"n" * 100, prefix=b"p" * 155), file(b"x", prefix=b"q/r")),
    "component_of_255_bytes": tar(pax((b"path", b"a/" + b"n" * 255 + b"/b")), GOOD),
    "empty_files": tar(file(b"a", b""), file(b"b/c", b""), header(b"d", size=b"0"), file(b"e")),
    "empty_directories": tar(directory(b"a/"), directory(b"b/c/"), directory(b"d"), GOOD),
    "directories_again_and_again": tar(directory(b"a/"), file(b"a/b"), directory(b"a/"), file(b"a/c"), directory(b"a")),
    "directories_after_their_content": tar(file(b"a/b/c"), directory(b"a/b/"), directory(b"a/"), file(b"d")),
    "directories_that_no_member_announces": tar(file(b"a/b/c/d"), file(b"a/b/e"), file(b"f/g")),
    "directories_in_turns": tar(*(file(b"%d/%d/f%d" % (at % 3, at % 7, at)) for at in range(100))),
    "deep_tree": tar(pax((b"path", b"d/" * 127 + b"f")), GOOD, file(b"a")),
    "deep_trees_side_by_side": tar(*(pax((b"path", b"%d/" % at + b"d/" * 100 + b"f")) + GOOD for at in range(5))),
    "five_thousand_files": tar(*(file(b"d%d/f%d" % (at // 100, at), b"%d" % at) for at in range(5000))),
    "sizes_around_blocks": tar(*(file(b"%d" % size, b"x" * size) for size in (1, 511, 512, 513, 1023, 1024, 1025))),
    "sizes_around_reads": tar(
        *(
            file(b"%d" % size, bytes(range(256)) * (size // 256) + b"y" * (size % 256))
            for size in ((1 << 20) - 1024, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20)
        )
    ),
    "sizes_in_base256": tar(header(b"a", size=base256(8), mtime=base256(1_700_000_000)) + padded(b"content\n"), GOOD),
    "numbers_in_old_notations": tar(
        header(b"a", size=b"         10 ", mode=b"   644 ", mtime=b"13750000000 ") + padded(b"content\n"),
        header(b"b", size=b"000000000010", mode=b"0000755") + padded(b"content\n"),
    ),
    "v7_headers": tar(
        header(b"old/", b"\0", mode=0o755, magic=b""),
        file(b"old/a", kind=b"\0", magic=b""),
        hard_link(b"old/b", b"old/a"),
    ),
    "old_gnu_headers": tar(
        directory(b"a/", magic=b"ustar  \0"),
        summed(file(b"a/b", magic=b"ustar  \0")[:345] + b"13750000000 " + bytes(155)) + padded(b"content\n"),
    ),
    "contiguous_file": tar(file(b"a", kind=b"7")),
    "modes_of_all_kinds": tar(
        PROGRAM,
        *(
            file(b"%o" % mode, mode=mode)
            for mode in (0o600, 0o777, 0o640, 0o610, 0o601, 0o4755, 0o2755, 0o1644, 0o100, 0o444)
        ),
    ),
    "mtime_of_zero": tar(file(b"a", mtime=0)),
    "symlinks_up_and_down": tar(
        file(b"a/b/c"), symlink(b"a/up", b"../good"), symlink(b"down", b"a/b"), symlink(b"through", b"down/c"), GOOD
    ),
    "symlink_before_its_target": tar(symlink(b"a", b"b/c"), file(b"b/c")),
    "symlink_to_nothing_yet": tar(GOOD, symlink(b"uploads", b"shared/uploads"), symlink(b"a/b", b"../c/d")),
    "symlink_to_the_root": tar(
        GOOD, symlink(b"a/b/root", b"../.."), symlink(b"here", b"."), symlink(b"there", b"./a/")
    ),
    "symlink_in_a_directory_of_its_own": tar(GOOD, symlink(b"x/y/z", b"../../good")),
    "chain_of_40_symlinks": tar(
        GOOD, symlink(b"l0", b"good"), *(symlink(b"l%d" % at, b"l%d" % (at - 1)) for at in range(1, 40))
    ),
    "site": SITE,
}

# What several streams in a row are: bgzip, pigz -i, pbzip2, pixz, pzstd, and `cat`.
JOINED = {
    kind: (
        compress(SITE[:1000], kind),
        compress(SITE[1000:3000], kind),
        compress(SITE[3000:], kind),
        compress(b"", kind),
    )
    for kind in Compression
    if kind is not Compression.NONE
}
SKIPPABLE_FRAME = b"\x50\x2a\x4d\x18\x04\x00\x00\x00\x01\x02\x03\x04"  # how pzstd begins

WRAPPED = {
    "wrapper": (SITE, "shop"),
    "wrapper_that_no_member_announces": (tar(file(b"shop/a"), file(b"shop/b/c"), symlink(b"shop/d", b"b/c")), "shop"),
    "wrapper_behind_a_dot": (tar(directory(b"./"), directory(b"./shop/"), file(b"./shop/a")), "shop"),
    "wrapper_with_its_own_name_inside": (
        tar(file(b"shop/shop/shop/a"), file(b"shop/wrapper-0"), file(b"shop/wrapper-1/x"), symlink(b"shop/l", b"shop")),
        "shop",
    ),
    "wrapper_with_its_own_name_as_file": (tar(file(b"shop/shop"), symlink(b"shop/x/y", b"../shop")), "shop"),
    "wrapper_with_more_children_than_are_renamed_at_once": (
        tar(*(file(b"shop/%d" % at, b"") for at in range(1100))),
        "shop",
    ),
    "file_beside_the_wrapper": (tar(file(b"shop/a"), file(b"b")), ""),
    "symlink_beside_the_wrapper": (tar(file(b"shop/a"), symlink(b"b", b"shop/a")), ""),
    "two_wrappers": (tar(file(b"shop/a"), file(b"blog/a")), ""),
    "single_file": (tar(GOOD), ""),
}

"""How much room there is, what is kept in reserve, and what a tarball needs at the least."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapd.archive import Least, read_least
from swapd.desk import SiteDesk
from swapd.host.linux import syncfs
from swapd.host.refusals import explain
from swapd.host.room import RoomKeeper, keeping_room, read_room, stores_as_it_is
from swapd.model.config import Site as SiteConfiguration
from swapd.model.layout import Layout
from swapd.model.release import Compression, Upload
from swapd.model.room import NoRoom, Room, RoomNeeded, find_lack, refuse_lack
from tests.support.disks import disk
from tests.support.mounts import tmpfs
from tests.support.sites import make_site
from tests.unit.archives import compress, directory, file, header, opened, symlink, tar

MIB, GIB = 1 << 20, 1 << 30
SIZES = st.integers(0, 1 << 50)


def room(free: int, whole: int = 100 * GIB, inodes: int | None = 10**6, all_inodes: int = 10**7) -> Room:
    return Room(free, whole, inodes, all_inodes)


@pytest.mark.parametrize(("whole", "reserved"), [(2 * MIB, 2 * MIB // 20), (10 * GIB, 512 * MIB), (1 << 45, 512 * MIB)])
def test_the_reserve_is_a_twentieth_and_no_more_than_512_mib(whole: int, reserved: int) -> None:
    assert room(0, whole).reserved_bytes == reserved
    assert room(0, inodes=0, all_inodes=200).reserved_inodes == 10
    assert room(0, inodes=0, all_inodes=10**9).reserved_inodes == 10_000


@given(SIZES, SIZES, SIZES)
def test_what_is_not_refused_leaves_the_reserve(free: int, whole: int, least: int) -> None:
    found = room(free, whole)
    if found.free_bytes - least >= found.reserved_bytes:
        refuse_lack(found, "release x", "/srv", least, 0)
        return
    with pytest.raises(NoRoom) as lack:
        refuse_lack(found, "release x", "/srv", least, 0)
    assert lack.value.problem == "no-space"
    # What it asks for would have been admitted.
    refuse_lack(room(lack.value.needed.free_bytes, whole), "release x", "/srv", least, 0)


def test_a_refusal_says_its_numbers() -> None:
    with pytest.raises(NoRoom) as caught:
        refuse_lack(room(3 * GIB), "release shop-2", "/var/www/shop.releases", 4 * GIB, 0)
    assert caught.value.message == (
        "/var/www/shop.releases: release shop-2 needs at least 4.0 GiB; 3.0 GiB are free, "
        "and 512.0 MiB are kept in reserve"
    )
    assert "once 4.5 GiB are free" in caught.value.hint
    with pytest.raises(NoRoom) as caught:
        refuse_lack(room(GIB, inodes=20_000), "release shop-2", "/srv", 0, 10_001)
    assert caught.value.problem == "no-inodes"
    assert "needs at least 10001 inodes; 20000 are free, and 10000 are kept in reserve" in caught.value.message
    assert caught.value.needed == RoomNeeded("/srv", 0, 20_001)


def test_a_filesystem_without_a_number_of_inodes_has_enough() -> None:
    refuse_lack(room(GIB, inodes=None, all_inodes=0), "x", "/srv", 0, 10**12)
    assert RoomNeeded("/srv", 0, 10**12).is_there(room(GIB, inodes=None))


@given(SIZES, SIZES)
def test_each_failure_asks_for_more_than_was_free(before: int, free: int) -> None:
    """So that what failed is not tried again in the very room that did not do."""
    lack = find_lack(room(before), room(free), "x", "/srv")
    assert (lack is None) == (free >= 512 * MIB)
    if lack is not None:
        assert not lack.needed.is_there(room(before))
        assert lack.needed.is_there(room(before + before // 4 + 512 * MIB))


@pytest.mark.root
class TestKeeper:
    def test_it_looks_at_the_filesystem_of_its_directory(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "small", "size=64m,nr_inodes=4000") as small, opened(small, os.O_DIRECTORY) as descriptor:
            assert stores_as_it_is(descriptor)
            found = read_room(descriptor)
            assert (found.all_bytes, found.all_inodes) == (64 * MIB, 4000)
            keeper = RoomKeeper(descriptor, small, "release x")
            keeper.keep_room()
            (small / "much").write_bytes(bytes(61 * MIB))
            with pytest.raises(NoRoom) as caught:
                keeper.keep_room()
            assert caught.value.problem == "no-space"
            assert "the 64.0 MiB that were free before; 3.0 MiB are free, and 3.2 MiB" in caught.value.message
            with pytest.raises(OSError, match="No space") as full:
                (small / "more").write_bytes(bytes(4 * MIB))
            assert keeper.explain(full.value).problem == "no-space"  # type: ignore[union-attr]
            assert explain(full.value, small).problem == "no-space"
            assert keeper.explain(PermissionError(13, "no")) is None
            with pytest.raises(PermissionError), keeping_room(descriptor, small, "release x"):
                raise PermissionError(13, "no")
            with pytest.raises(NoRoom), keeping_room(descriptor, small, "release x"):
                (small / "still more").write_bytes(bytes(4 * MIB))

    # Not XFS: it sets room aside ahead of a file that grows, which is a matter of its own.
    @pytest.mark.parametrize("kind", ["btrfs", "ext4"])
    def test_it_is_in_time_where_what_is_free_counts_late(self, tmp_path: Path, kind: str) -> None:
        with (
            disk(kind, tmp_path / "image", tmp_path / "disk") as place,
            opened(place, os.O_DIRECTORY) as descriptor,
            (place / "file").open("wb", buffering=0) as file,
        ):
            assert stores_as_it_is(descriptor) == (kind != "btrfs")
            keeper = RoomKeeper(descriptor, place, "release x")

            def fill() -> None:
                while True:
                    file.write(os.urandom(MIB))
                    keeper.keep_room()

            with pytest.raises(NoRoom):
                fill()
            syncfs(descriptor)
            left = read_room(place)
            assert left.reserved_bytes - 3 * MIB < left.free_bytes <= left.reserved_bytes

    def test_it_looks_at_inodes(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "small", "size=64m,nr_inodes=100") as small, opened(small, os.O_DIRECTORY) as descriptor:
            keeper = RoomKeeper(descriptor, small, "release x")
            for number in range(99):  # the root has the hundredth
                (small / f"{number}").touch()
            with pytest.raises(OSError, match="No space") as full:
                (small / "99").touch()
            with pytest.raises(NoRoom) as caught:
                keeper.keep_room()
            assert caught.value.problem == "no-inodes"
            assert keeper.explain(full.value).problem == "no-inodes"  # type: ignore[union-attr]
            assert explain(full.value, small).problem == "no-inodes"


def test_what_failed_for_room_is_retried_where_it_is(tmp_path: Path) -> None:
    site: SiteConfiguration = make_site(tmp_path)
    desk = SiteDesk(site, Layout(tmp_path))
    upload = Upload(site.incoming, "shop-1.tar", True)
    free = read_room(tmp_path).free_bytes
    desk.note_needed(upload, {"directory": str(tmp_path), "free_bytes": free * 2, "free_inodes": 0})
    assert not desk.retry_where_room_is()
    desk.note_needed(upload, {"directory": str(tmp_path / "gone"), "free_bytes": 0, "free_inodes": 0})
    assert not desk.retry_where_room_is()
    desk.note_needed(upload, {"directory": str(tmp_path), "free_bytes": free // 2, "free_inodes": 1})
    assert desk.retry_where_room_is()
    assert not desk.retry_where_room_is(), "once"
    desk.note_needed(upload, {"directory": str(tmp_path), "free_bytes": 0, "free_inodes": 0})
    desk.note_needed(upload, None)
    assert not desk.retry_where_room_is(), "it failed by something else since"


class TestLeast:
    """``read_least``, on what the real programs write."""

    CONTENT = bytes(range(256)) * (40 << 10)  # 10 MiB
    DATA = tar(directory(b"d"), file(b"d/a", CONTENT), file(b"d/empty", b""), symlink(b"l", b"d/a"))

    def least(
        self, tmp_path: Path, data: bytes, compression: Compression, *, whole: bool = True, most: int = 10
    ) -> Least:
        path = tmp_path / "tarball"
        path.write_bytes(data)
        with opened(path, os.O_RDONLY) as descriptor:
            return read_least(descriptor, compression, most, is_whole=whole)

    def test_a_plain_tarball_is_known_exactly(self, tmp_path: Path) -> None:
        for whole in (True, False):
            assert self.least(tmp_path, self.DATA, Compression.NONE, whole=whole) == (len(self.CONTENT), 3)

    def test_a_plain_tarball_counts_up_to_where_it_is_wrong(self, tmp_path: Path) -> None:
        exabytes = header(b"huge", size=b"\x80" + (1 << 60).to_bytes(11, "big"))
        assert self.least(tmp_path, tar(file(b"a"), exabytes), Compression.NONE) == (8, 1)
        assert self.least(tmp_path, tar(file(b"a"), b"x" * 512, file(b"b")), Compression.NONE) == (8, 1)
        assert self.least(tmp_path, b"", Compression.NONE) == (0, 0)
        assert self.least(tmp_path, tar(*[file(b"a")] * 50), Compression.NONE, most=20).inodes == 21

    @pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD, Compression.XZ])
    def test_a_stream_that_says_its_size(self, tmp_path: Path, compression: Compression) -> None:
        data = compress(self.DATA, compression)
        if compression is Compression.ZSTD:  # the size of what comes from a pipe is not known to it
            (tmp_path / "x.tar").write_bytes(self.DATA)
            subprocess.run(["zstd", "-q", tmp_path / "x.tar"], check=True)
            data = (tmp_path / "x.tar.zst").read_bytes()
        # Less what may be headers: 2 KiB for each of at most 10 entries, and 1 MiB of padding.
        assert self.least(tmp_path, data, compression) == (len(self.DATA) - 20480 - MIB, 0)
        assert self.least(tmp_path, data, compression).bytes <= len(self.CONTENT)
        assert self.least(tmp_path, data, compression, most=10**6) == (0, 0)

    @pytest.mark.parametrize("threads", ["-T1", "-T4"])
    def test_all_blocks_of_an_xz_stream(self, tmp_path: Path, threads: str) -> None:
        command = ["xz", "-c0", threads, "--block-size=1MiB"]
        data = subprocess.run(command, input=self.DATA, stdout=subprocess.PIPE, check=True).stdout
        assert self.least(tmp_path, data, Compression.XZ, most=0) == (len(self.DATA) - MIB, 0)

    @pytest.mark.parametrize("size", [0, 100, 255, 256, 300, 65535, 65536, 65791, 65792, 1 << 20])
    def test_every_width_that_zstd_writes_a_size_in(self, tmp_path: Path, size: int) -> None:
        from swapd.archive.sizes import _read_zstd

        (tmp_path / "x").write_bytes(os.urandom(size))
        subprocess.run(["zstd", "-q", tmp_path / "x"], check=True)
        with opened(tmp_path / "x.zst", os.O_RDONLY) as descriptor:
            found = _read_zstd(descriptor, 0)
        assert found in ((size, 0) if size < 100 else (size,))  # too short to hold a tarball

    @pytest.mark.parametrize("compression", [Compression.GZIP, Compression.XZ])
    @pytest.mark.parametrize("cut", [1, 5, 100, 5000])
    def test_one_that_was_cut_off_promises_nothing(self, tmp_path: Path, compression: Compression, cut: int) -> None:
        data = compress(self.DATA, compression)[:-cut]
        assert self.least(tmp_path, data, compression, whole=False) == (0, 0)

    def xz(self, numbers: bytes) -> bytes:
        """A stream whose index, which is whole, has these bytes in it."""
        index = b"\0" + numbers
        index += bytes(-len(index) % 4)
        index += struct.pack("<I", zlib.crc32(index))
        end = struct.pack("<I", len(index) // 4 - 1) + b"\0\1"
        return b"\xfd7zXZ\0" + bytes(40) + index + struct.pack("<I", zlib.crc32(end)) + end + b"YZ"

    @pytest.mark.timeout(60)  # it took minutes, and then there was no size that it could be shown as
    @pytest.mark.parametrize("length", [8, 9, 10, 3000, 1_000_000])
    def test_an_index_with_an_endless_number(self, tmp_path: Path, length: int) -> None:
        claimed = self.least(tmp_path, self.xz(b"\1\5" + b"\xff" * length + b"\1"), Compression.XZ, most=0)
        assert claimed.bytes <= 1 << 62
        with contextlib.suppress(NoRoom):
            refuse_lack(room(GIB), "release x", "/srv", *claimed)

    @pytest.mark.parametrize("sizes", [1, 1000, 50_000])
    def test_an_index_that_claims_more_than_there_can_be(self, tmp_path: Path, sizes: int) -> None:
        count = bytes([sizes & 0x7F | 0x80, sizes >> 7 & 0x7F | 0x80, sizes >> 14])
        data = self.xz(count + (b"\5" + b"\xff" * 8 + b"\x7f") * sizes)
        assert self.least(tmp_path, data, Compression.XZ) == (1 << 62, 0)

    def test_a_stop_ends_a_long_look(self, tmp_path: Path) -> None:
        class StoppedError(Exception):
            pass

        def stop() -> None:
            raise StoppedError

        (tmp_path / "tarball").write_bytes(tar(*[directory(b"d")] * 2000))
        with opened(tmp_path / "tarball", os.O_RDONLY) as descriptor, pytest.raises(StoppedError):
            read_least(descriptor, Compression.NONE, 10**6, is_whole=True, keep_going=stop)

    @given(st.binary(max_size=64), st.sampled_from(Compression))
    def test_nonsense_is_never_an_error(self, data: bytes, compression: Compression) -> None:
        with os.fdopen(os.memfd_create("x"), "wb") as memory:
            memory.write(data)
            memory.flush()
            assert read_least(memory.fileno(), compression, 0, is_whole=True).bytes >= 0

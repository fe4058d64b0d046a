"""What must not harm a host: tarballs that are at fault, names that are an attack, things that are no tarballs."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.host import journal
from tests.host.conftest import Expected
from tests.host.machine import wait_until
from tests.host.releases import Packed, pack
from tests.host.started import Started
from tests.host.visitors import Load
from tests.host.webhost import UPLOADER, Marker, Site, Way, WebHost, assert_one_story


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """What is live before the bad input comes, and must be after it."""
    return pack(tmp_path_factory.mktemp("first"), "good-1")


@pytest.fixture(scope="module")
def shop(web: WebHost, first: Packed) -> Site:
    site = web.new_site("shop")
    assert site.deploy(first.tarball).outcome == "live"
    return site


@pytest.fixture(scope="module")
def blog(web: WebHost) -> Site:
    """Another site, which has nothing to do with it."""
    return web.new_site("blog")


@pytest.fixture(autouse=True)
def the_live_site_is_untouched(shop: Site, first: Packed) -> Iterator[None]:
    """Whatever happens, every visitor is served the good release, and nothing is left of an attempt."""
    tree = shop.tree().stat().st_ino
    kept = shop.kept_releases()
    with Load(shop.web.host, shop.domain) as load:
        yield
    load.assert_served({first.name})
    assert shop.tree().stat().st_ino == tree
    assert shop.kept_releases() == kept
    shop.assert_serves(first.tree)


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def corrupt(content: bytes) -> bytes:
    """One bit of the compressed data is wrong."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def no_archive(content: bytes) -> bytes:
    del content
    return b"<html>404 Not Found</html>\n" * 100


def compressed_text(content: bytes) -> bytes:
    del content
    return gzip.compress(b"well compressed, and no archive\n" * 1000)


def two_archives(content: bytes) -> bytes:
    return content + content


@pytest.mark.parametrize("damage", [truncated, corrupt, no_archive, compressed_text, two_archives])
def test_a_damaged_tarball_is_rejected(
    shop: Site, expected: Expected, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    packed = pack(tmp_path, f"damaged-{damage.__name__}")
    packed.tarball.write_bytes(damage(packed.tarball.read_bytes()))
    expected.warning(SWAPD_OUTCOME="rejected", SWAPD_SITE="shop")
    marker = shop.deploy(packed.tarball)
    assert_rejected(shop, packed.tarball.name, marker)
    assert shop.dropped(packed.tarball.name).read_bytes() == packed.tarball.read_bytes()
    shop.dropped(packed.tarball.name).unlink()


def test_a_wrong_digest_is_rejected_and_the_right_upload_goes_live_after_it(
    web: WebHost, blog: Site, expected: Expected, tmp_path: Path
) -> None:
    packed = pack(tmp_path, "blog-digest")
    sidecar = tmp_path / f"{packed.tarball.name}.sha256"
    sidecar.write_text(f"{'0' * 64}  {packed.tarball.name}\n")
    web.send(Way.SCP, sidecar, f"{blog.incoming}/{sidecar.name}")
    expected.warning(SWAPD_OUTCOME="rejected", SWAPD_SITE="blog")
    marker = blog.deploy(packed.tarball)
    assert_rejected(blog, packed.tarball.name, marker)
    assert marker["digest"] == packed.digest
    assert blog.dropped(sidecar.name).exists()
    sidecar.write_text(f"{packed.digest}  {packed.tarball.name}\n")
    marker = blog.outcome_after(
        lambda: web.send(Way.SCP, sidecar, f"{blog.incoming}/{sidecar.name}"), packed.tarball.name
    )
    assert marker.outcome == "live"
    blog.assert_serves(packed.tree)
    assert blog.list_incoming() == [f"{packed.tarball.name}.live"]


@pytest.mark.parametrize(
    ("name", "maker"),
    [
        ("fifo.tar.gz", ["mkfifo"]),
        ("directory.tar", ["mkdir"]),
        ("link.tar.gz", ["ln", "-s", "/etc/shadow"]),
        ("dangling.tar.gz", ["ln", "-s", "/nowhere"]),
        ("device.tar.gz", ["ln", "-s", "/dev/zero"]),
    ],
)
def test_what_is_no_regular_file_is_rejected_and_not_opened(
    shop: Site, expected: Expected, name: str, maker: list[str]
) -> None:
    expected.warning(SWAPD_OUTCOME="rejected", SWAPD_SITE="shop")
    marker = shop.outcome_after(lambda: shop.web.run(*maker, f"{shop.incoming}/{name}", user=UPLOADER), name)
    assert_rejected(shop, name, marker)
    assert "root:" not in str(marker.content)
    assert os.path.lexists(shop.dropped(name))
    shop.web.run("rm", "-r", f"{shop.incoming}/{name}", user=UPLOADER)


@pytest.mark.parametrize(
    "name",
    [
        "line\nPRIORITY=0\nSWAPD_OUTCOME=live.tar.gz",
        "\x1b[31mred\x1b[2J.tar.gz",
        "-rf.tar.gz",
        "two words.tar.gz",
        "right\u202eto-left.tar.gz",
        "adopted.tar.gz",
        f"{'x' * 230}.tar.gz",
    ],
    ids=["newline", "escape", "dash", "space", "bidi", "reserved", "long"],
)
def test_a_name_that_no_release_may_have_is_rejected(shop: Site, expected: Expected, tmp_path: Path, name: str) -> None:
    expected.warning(SWAPD_OUTCOME="rejected", SWAPD_SITE="shop")
    mark = journal.mark(shop.web.host)
    packed = pack(tmp_path, "badly-named")
    shop.web.host.write("/home/laptop/badly-named", packed.tarball.read_bytes())

    def upload() -> None:
        shop.web.run("cp", "/home/laptop/badly-named", f"{shop.incoming}/{name}", user=UPLOADER)

    # Straight from the disk: sftp's batch language cannot say such names.
    before = shop.dropped(f"{name}.rejected")
    upload()
    wait_until(before.exists, "a marker", explain=shop.web.describe)
    (record,) = [item for item in shop.records(after=mark) if "SWAPD_OUTCOME" in item]
    assert record["MESSAGE_ID"] == journal.DEPLOYMENT_REJECTED
    assert record["SWAPD_OUTCOME"] == "rejected"
    assert record["PRIORITY"] == "4"
    assert record["MESSAGE"].isprintable()
    status = shop.web.run("swapd", "status", "shop")
    assert all(character.isprintable() or character == "\n" for character in status)
    assert "\x1b" not in shop.web.status_line()
    assert shop.dropped(name).read_bytes() == packed.tarball.read_bytes()
    shop.dropped(name).unlink()


def test_a_name_that_leaves_no_room_for_a_marker(shop: Site, expected: Expected, tmp_path: Path) -> None:
    name = f"{'y' * 248}.tar.gz"
    expected.warning(SWAPD_OUTCOME="rejected", SWAPD_SITE="shop")
    expected.warning(MESSAGE="the marker", SWAPD_SITE="shop")
    mark = journal.mark(shop.web.host)
    packed = pack(tmp_path, "badly-named")
    shop.web.host.write("/home/laptop/badly-named", packed.tarball.read_bytes())
    shop.web.run("cp", "/home/laptop/badly-named", f"{shop.incoming}/{name}", user=UPLOADER)
    wait_until(
        lambda: [item for item in shop.records(after=mark) if item.get("SWAPD_OUTCOME") == "rejected"],
        "the journal says so",
        explain=shop.web.describe,
    )
    assert name[:100] in shop.web.run("swapd", "status", "shop")
    shop.dropped(name).unlink()


def test_names_that_uploads_have_before_they_are_complete_are_left_alone(blog: Site, tmp_path: Path) -> None:
    unfinished = pack(tmp_path, "unfinished")
    names = [f"unfinished.tar.gz{suffix}" for suffix in (".part", ".filepart", ".tmp", "~")] + [".unfinished.tar.gz"]
    for name in names:
        blog.web.send(Way.SCP, unfinished.tarball, f"{blog.incoming}/{name}")
    mark = journal.mark(blog.web.host)
    # A tarball that comes later goes live: by then the others would have been taken up as well.
    packed = pack(tmp_path, "finished")
    marker = blog.deploy(packed.tarball)
    assert {item["SWAPD_DEPLOYMENT"] for item in blog.records(after=mark) if "SWAPD_DEPLOYMENT" in item} == {
        marker["deployment"]
    }
    for name in names:
        assert blog.dropped(name).read_bytes() == unfinished.tarball.read_bytes()
        blog.dropped(name).unlink()


@pytest.mark.parametrize(
    "way",
    [Way.SCP, Way.SCP_LEGACY, Way.SFTP, Way.RSYNC, Way.RSYNC_PARTIAL, Way.RSYNC_INPLACE, Way.CURL_SFTP],
)
def test_an_upload_that_is_cut_off_never_goes_live_and_what_goes_on_with_it_does(
    web: WebHost, blog: Site, expected: Expected, tmp_path: Path, way: Way
) -> None:
    packed = pack(tmp_path, f"cut-off-{way.name.lower()}")
    name = packed.tarball.name
    target = f"{blog.incoming}/{name}"
    expected.warning(SWAPD_OUTCOME="rejected", SWAPD_SITE="blog")
    before = blog.tree().stat().st_ino if blog.tree().exists() else None
    mark = journal.mark(web.host)
    web.send_slowly(way, packed.tarball, target, seconds=3, cut_off=1.5)
    if way is Way.RSYNC:  # keeps nothing of it
        assert not blog.dropped(name).exists()
    else:
        wait_until(blog.dropped(f"{name}.rejected").exists, "what arrived is rejected", explain=web.describe)
        assert blog.read_marker(name)["problem"] == "truncated"
        assert 0 < blog.dropped(name).stat().st_size < packed.tarball.stat().st_size
    assert (blog.tree().stat().st_ino if blog.tree().exists() else None) == before
    assert not [item for item in blog.records(after=mark) if item["MESSAGE_ID"] == journal.DEPLOYMENT_LIVE]
    marker = blog.outcome_after(lambda: web.send(way, packed.tarball, target, resuming=True), name)
    assert marker.outcome == "live"
    blog.assert_serves(packed.tree)


@pytest.mark.parametrize("way", [Way.SCP, Way.RSYNC])
def test_a_slow_upload_is_taken_up_once_and_only_when_it_is_complete(
    web: WebHost, blog: Site, tmp_path: Path, way: Way
) -> None:
    """It takes several times as long as an upload must be quiet."""
    packed = pack(tmp_path, f"slow-{way.name.lower()}")
    mark = journal.mark(web.host)
    marker = blog.outcome_after(
        lambda: web.send_slowly(way, packed.tarball, f"{blog.incoming}/{packed.tarball.name}", seconds=3),
        packed.tarball.name,
    )
    assert marker.outcome == "live"
    told = [item["MESSAGE_ID"] for item in blog.records(after=mark) if "SWAPD_DEPLOYMENT" in item]
    assert told.count(journal.DEPLOYMENT_STARTED) == 1, told
    blog.assert_serves(packed.tree)


def test_a_slow_upload_whose_digest_is_there_first_keeps_nobody_busy(web: WebHost, blog: Site, tmp_path: Path) -> None:
    """As ``scp shop.tar.gz.sha256 shop.tar.gz`` sends it: only with the last byte is there anything to look at."""
    packed = pack(tmp_path, "vouched")
    sidecar = tmp_path / f"{packed.tarball.name}.sha256"
    sidecar.write_text(f"{packed.digest}  {packed.tarball.name}\n")
    web.send(Way.SCP, sidecar, f"{blog.incoming}/{sidecar.name}")
    mark = journal.mark(web.host)
    with Started(web.host, "swapd") as started:
        marker = blog.outcome_after(
            lambda: web.send_slowly(Way.SCP, packed.tarball, f"{blog.incoming}/{packed.tarball.name}", seconds=3),
            packed.tarball.name,
        )
    assert marker.outcome == "live"
    told = [item["MESSAGE_ID"] for item in blog.records(after=mark) if "SWAPD_DEPLOYMENT" in item]
    assert told.count(journal.DEPLOYMENT_STARTED) == 1, told
    assert started.count("swapd blog") <= 2, started.names
    blog.assert_serves(packed.tree)


def test_a_bad_file_holds_up_neither_other_files_nor_other_sites(
    shop: Site, blog: Site, expected: Expected, tmp_path: Path
) -> None:
    expected.warning(SWAPD_OUTCOME="rejected", SWAPD_SITE="shop")
    for number in range(5):
        bad = tmp_path / f"bad-{number}.tar.gz"
        bad.write_bytes(b"no archive")
        shop.web.send(Way.SCP, bad, f"{shop.incoming}/{bad.name}")
    shop.web.run("mkfifo", f"{shop.incoming}/bad-fifo.tar", user=UPLOADER)
    packed = pack(tmp_path, "blog-undisturbed")
    assert blog.deploy(packed.tarball).outcome == "live"
    blog.assert_serves(packed.tree)
    for number in range(5):
        wait_until(shop.dropped(f"bad-{number}.tar.gz.rejected").exists, "each bad file has its marker")
    wait_until(shop.dropped("bad-fifo.tar.rejected").exists, "the FIFO has its marker")


def assert_rejected(site: Site, file_name: str, marker: Marker) -> None:
    """Marker, status and journal give the same reason, and a hint."""
    assert marker.outcome == marker["outcome"] == "rejected"
    assert marker["reason"]
    assert marker["hint"]
    record = assert_one_story(site.records(), marker["deployment"], journal.DEPLOYMENT_REJECTED)
    assert marker["reason"] in record["MESSAGE"]
    assert record["PRIORITY"] == "4"
    assert record["SWAPD_OUTCOME"] == "rejected"
    shown = " ".join(site.web.run("swapd", "status", site.name).split())
    assert file_name in shown or marker["reason"] in shown, shown

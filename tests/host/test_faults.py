"""What this host may lack: room on a disk, one filesystem for live path and releases, a live path that can be renamed.

Each fails the deployment with its reason, leaves live site and upload as they are, and is over once the host is mended.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host import journal
from tests.host.conftest import Expected
from tests.host.releases import MARK, Packed, mark_text, pack, pack_tree
from tests.host.visitors import Load
from tests.host.webhost import UPLOADER, Marker, Site, Way, WebHost, assert_one_story

SMALL_DISK = 8  # MiB: room for several small releases, not for the large one


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """A release that the small disk has no room for."""
    directory = tmp_path_factory.mktemp("large")
    tree = directory / "trees" / "large"
    tree.mkdir(parents=True)
    (tree / MARK).write_text(mark_text("large"))
    noise = random.Random("large")
    for number in range(2 * SMALL_DISK):
        (tree / f"{number}.bin").write_bytes(noise.randbytes(1 << 20))
    return Packed("large", tree, pack_tree(tree, directory / "large.tar.gz", ".tar.gz"))


@pytest.fixture
def small_disk(web: WebHost) -> Iterator[str]:
    """A directory of the web server on a filesystem of its own that has little room."""
    directory = "/var/www/small"
    web.run("mkdir", "-p", directory)
    web.run("mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}M,mode=755", "small", directory)
    yield directory
    web.run("umount", "--lazy", directory)


def test_a_full_disk_fails_the_deployment_and_nothing_else(
    web: WebHost, small_disk: str, large: Packed, expected: Expected, tmp_path: Path
) -> None:
    web.add_vhost("small", f"{small_disk}/live")
    site = web.init("small", f"{small_disk}/live")
    first = pack(tmp_path, "small-1")
    assert site.deploy(first.tarball).outcome == "live"
    kept = site.kept_releases()
    expected.warning(SWAPD_OUTCOME="failed", SWAPD_SITE="small")
    with Load(web.host, site.domain) as load:
        assert_failed(site, large, site.deploy(large.tarball), "no-space")
    load.assert_served({"small-1"})
    assert site.kept_releases() == kept, "staging is left"
    # The room that the attempt had taken is there again, so what fits goes live without anybody's help.
    following = pack(tmp_path, "small-2")
    assert site.deploy(following.tarball).outcome == "live"
    # The host is mended, and the upload touched as the marker's hint says.
    web.run("mount", "-o", "remount,size=64M", small_disk)
    assert touched(site, large).outcome == "live"
    site.assert_serves(large.tree)


def test_releases_on_another_filesystem(web: WebHost, expected: Expected, tmp_path: Path) -> None:
    first = pack(tmp_path, "apart-by-hand")
    _unpack(web, first, "/var/www/apart")
    site = web.new_site("apart")
    web.run("mount", "-t", "tmpfs", "elsewhere", site.releases)
    expected.warning(SWAPD_OUTCOME="failed", SWAPD_SITE="apart")
    packed = pack(tmp_path, "apart-2")
    try:
        with Load(web.host, site.domain) as load:
            assert_failed(site, packed, site.deploy(packed.tarball), "releases-on-another-filesystem")
        load.assert_served({first.name})
        site.assert_serves(first.tree)
    finally:
        web.run("umount", site.releases)
    assert touched(site, packed).outcome == "live"


def test_no_room_for_the_private_copy(web: WebHost, large: Packed, expected: Expected, tmp_path: Path) -> None:
    web.run("mkdir", "/var/lib/swapd/cramped")
    web.run("mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}M,mode=755", "cramped", "/var/lib/swapd/cramped")
    site = web.new_site("cramped")
    first = pack(tmp_path, "cramped-1")
    assert site.deploy(first.tarball).outcome == "live"
    expected.warning(SWAPD_OUTCOME="failed", SWAPD_SITE="cramped")
    assert_failed(site, large, site.deploy(large.tarball), "no-space")
    site.assert_serves(first.tree)
    following = pack(tmp_path, "cramped-2")
    assert site.deploy(following.tarball).outcome == "live"


@pytest.mark.parametrize("where", ["", "/uploads"], ids=["at", "below"])
def test_a_mount_at_or_below_the_live_path(web: WebHost, expected: Expected, tmp_path: Path, where: str) -> None:
    name = f"mounted{len(where)}"
    live = f"/var/www/{name}"
    first = pack(tmp_path, f"{name}-by-hand")
    if where == "":
        web.run("mkdir", live)
        web.run("mount", "-t", "tmpfs", "-o", "mode=755", "by-hand", live)
    _unpack(web, first, live)
    if where:
        web.run("mount", "-t", "tmpfs", "-o", "mode=755", "by-hand", f"{live}{where}")
    web.add_vhost(name, live)
    site = web.init(name, live)
    expected.warning(SWAPD_OUTCOME="failed", SWAPD_SITE=name)
    packed = pack(tmp_path, f"{name}-2")
    try:
        with Load(web.host, site.domain) as load:
            assert_failed(site, packed, site.deploy(packed.tarball), "live-is-mounted")
        load.assert_served({first.name})
        site.assert_serves(first.tree)
    finally:
        web.run("umount", f"{live}{where}")


def test_apache_that_is_down_is_no_obstacle(web: WebHost, tmp_path: Path) -> None:
    site = web.new_site("early")
    web.run("systemctl", "stop", "apache2")
    try:
        packed = pack(tmp_path, "early-1")
        marker = site.deploy(packed.tarball)
        assert marker.outcome == "live"
    finally:
        web.run("systemctl", "start", "apache2")
    site.assert_serves(packed.tree)


def test_a_drop_directory_that_is_replaced_is_watched_again(web: WebHost, expected: Expected, tmp_path: Path) -> None:
    site = web.new_site("replaced")
    expected.warning(MESSAGE_ID=journal.WATCH_REBUILT)
    expected.warning(MESSAGE_ID=journal.DROP_DIRECTORY_LOST, SWAPD_SITE="replaced")
    web.run("mv", site.incoming, f"{site.incoming}.old")
    web.run("install", "--directory", "--mode=2770", "--group=swapd", site.incoming)
    web.wake()
    packed = pack(tmp_path, "replaced-1")
    assert site.deploy(packed.tarball, Way.RSYNC).outcome == "live"
    web.run("rmdir", f"{site.incoming}.old")


def touched(site: Site, packed: Packed) -> Marker:
    """What becomes of the upload after its author did as the marker's hint says."""
    return site.outcome_after(
        lambda: site.web.run("touch", f"{site.incoming}/{packed.tarball.name}", user=UPLOADER), packed.tarball.name
    )


def assert_failed(site: Site, packed: Packed, marker: Marker, problem: str) -> None:
    """Marker, status and journal give the same reason, and the upload is as it was."""
    assert marker.outcome == marker["outcome"] == "failed"
    assert marker["problem"] == problem
    assert marker["reason"]
    assert marker["hint"]
    record = assert_one_story(site.records(), marker["deployment"], journal.DEPLOYMENT_FAILED)
    assert marker["reason"] in record["MESSAGE"]
    assert record["PRIORITY"] == "3"
    assert site.dropped(packed.tarball.name).read_bytes() == packed.tarball.read_bytes()
    shown = " ".join(site.web.run("swapd", "status", site.name).split())
    assert packed.tarball.name in shown or packed.release in shown, shown


def _unpack(web: WebHost, packed: Packed, live: str) -> None:
    """As people do it by hand."""
    web.run("mkdir", "-p", live)
    web.host.write("/root/by-hand.tar.gz", packed.tarball.read_bytes())
    web.run("tar", "-C", live, "--strip-components=1", "-xzf", "/root/by-hand.tar.gz")

"""The main job on a real host: an upload through sshd, and Apache serves the release byte for byte.

Every test runs under each of Apache's multi-processing modules, while visitors come on a schedule of their own.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.host import journal
from tests.host.releases import MARK, Packed, describe_tree, make_tree, pack
from tests.host.visitors import Load, fetch
from tests.host.webhost import AUTHOR, MPMS, UPLOADER, Marker, Site, Way, WebHost, assert_one_story

pytestmark = pytest.mark.parametrize("mpm", MPMS, scope="module")

HAND_MADE = "made by hand"
# How each way of uploading that differs for swapd is combined with a kind of tarball.
SUFFIXES = {
    Way.SCP: ".tar.gz",
    Way.SCP_LEGACY: ".tgz",
    Way.SFTP: ".tar.xz",
    Way.SFTP_RENAME: ".tar",
    Way.SFTP_LEGACY_RENAME: ".tar.bz2",
    Way.RSYNC: ".tar.gz",
    Way.RSYNC_PARTIAL: ".tar",
}


@pytest.fixture(scope="module")
def old_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What people have put into the live path by hand, over the years."""
    return make_tree(tmp_path_factory.mktemp("old") / "tree", HAND_MADE)


@pytest.fixture(scope="module")
def shop(web: WebHost, old_tree: Path) -> Site:
    """A site whose live path was filled by hand before swapd came."""
    _copy_tree(old_tree, web.host.path("/var/www/shop"))
    web.run("chown", "-R", "www-data:www-data", "/var/www/shop")
    web.add_vhost("shop", "/var/www/shop")
    return web.init("shop", "/var/www/shop")


def test_the_package_has_started_the_daemon(web: WebHost) -> None:
    assert web.unit("ActiveState") == "active"
    assert web.unit("UnitFileState") == "enabled"
    assert "swapd" in web.run("id", "--name", "--groups", UPLOADER).split()


def test_init_has_made_the_drop_directory_and_left_the_site_alone(shop: Site, old_tree: Path) -> None:
    assert shop.web.run("stat", "--format=%a %U:%G", shop.incoming).strip() == "2770 root:swapd"
    assert shop.web.host.run("ls", shop.incoming, user=AUTHOR, check=False).returncode, "others may look in"
    assert describe_tree(shop.web.host.path(shop.live)) == describe_tree(old_tree)
    shop.assert_serves(old_tree)


def test_the_hand_made_tree_becomes_the_first_kept_release(shop: Site, old_tree: Path, tmp_path: Path) -> None:
    before = shop.web.host.path(shop.live).stat()
    packed = pack(tmp_path, "shop-1")
    with Load(shop.web.host, shop.domain) as load:
        shop.assert_live(packed, shop.deploy(packed.tarball))
    load.assert_served({HAND_MADE, "shop-1"})
    (adopted,) = [name for name in shop.kept_releases() if name.startswith("adopted@")]
    kept = shop.web.host.path(shop.releases) / adopted
    assert kept.stat().st_ino == before.st_ino  # moved, not copied
    assert kept.stat().st_uid == before.st_uid
    assert describe_tree(kept) == describe_tree(old_tree)
    assert shop.web.run("stat", "--format=%U:%G", f"{shop.live}/index.html").strip() == "www-data:www-data"


@pytest.mark.parametrize("way", SUFFIXES, ids=lambda way: way.name.lower())
def test_an_upload_goes_live(shop: Site, way: Way, tmp_path: Path) -> None:
    served = fetch(shop.web.host, shop.domain, MARK).body.decode().strip()
    name = f"shop-{way.name.lower()}"
    packed = pack(tmp_path, name, SUFFIXES[way], wrapped=way is not Way.SFTP)
    mark = journal.mark(shop.web.host)
    started = datetime.now(UTC)
    with Load(shop.web.host, shop.domain) as load:
        marker = shop.deploy(packed.tarball, way)
        shop.assert_live(packed, marker)
        assert_told(shop, packed, marker, journal_after=mark, started=started)
    load.assert_served({served, name})


def test_a_live_path_that_is_a_symbolic_link(web: WebHost, tmp_path: Path) -> None:
    old = make_tree(tmp_path / "old", "linked by hand")
    _copy_tree(old, web.host.path("/srv/linked-1"))
    web.host.path("/var/www/linked").symlink_to("/srv/linked-1")
    web.host.write("/etc/apache2/conf-available/srv.conf", "<Directory /srv>\nRequire all granted\n</Directory>\n")
    web.run("a2enconf", "--quiet", "srv")
    web.add_vhost("linked", "/var/www/linked")
    site = web.init("linked", "/var/www/linked")
    with Load(web.host, site.domain) as load:
        packed = pack(tmp_path, "linked-2")
        site.assert_live(packed, site.deploy(packed.tarball))
        following = pack(tmp_path, "linked-3")
        site.assert_live(following, site.deploy(following.tarball))
    load.assert_served({"linked by hand", "linked-2", "linked-3"})
    assert web.host.path(site.live).is_symlink()
    assert describe_tree(web.host.path("/srv/linked-1")) == describe_tree(old)


def test_a_live_path_that_is_not_there_yet(web: WebHost, tmp_path: Path) -> None:
    site = web.new_site("fresh")
    assert fetch(web.host, site.domain, MARK).status == 404
    packed = pack(tmp_path, "fresh-1")
    site.assert_live(packed, site.deploy(packed.tarball))
    assert not [name for name in site.kept_releases() if name.startswith("adopted@")]


def test_the_pause_closes_the_window_between_two_renames(web: WebHost, tmp_path: Path) -> None:
    """Without it, visitors who come between the two find nothing."""
    _copy_tree(make_tree(tmp_path / "old", "renamed-0"), web.host.path("/var/www/renamed"))
    site = web.new_site("renamed")
    configuration = web.host.path("/etc/swapd/sites/renamed.toml")
    configuration.write_text(f'{configuration.read_text()}strategy = "rename"\n')
    names = [f"renamed-{number}" for number in range(1, 6)]
    with Load(web.host, site.domain, rate=200) as load:
        for name in names:
            packed = pack(tmp_path, name)
            web.host.write(f"/root/{packed.tarball.name}", packed.tarball.read_bytes())
            web.run("swapd", "deploy", "renamed", f"/root/{packed.tarball.name}")
    load.assert_served({"renamed-0", *names})
    assert load.marks == {"renamed-0", *names}
    # A command's records are not the unit's.
    live = journal.records(web.host, "SWAPD_SITE=renamed", f"MESSAGE_ID={journal.DEPLOYMENT_LIVE}")
    assert len(live) == len(names)
    assert all(int(record["SWAPD_PAUSED"]) > 1 for record in live)


def test_a_restart_of_apache_is_noticed(shop: Site, tmp_path: Path) -> None:
    shop.web.run("systemctl", "restart", "apache2")
    packed = pack(tmp_path, "shop-restarted")
    shop.assert_live(packed, shop.deploy(packed.tarball))


def assert_told(site: Site, packed: Packed, marker: Marker, *, journal_after: int, started: datetime) -> None:
    """Marker, journal and status line agree about the deployment."""
    ended = datetime.now(UTC)
    assert marker["outcome"] == "live"
    assert marker["site"] == site.name
    assert marker["release"] == packed.release
    assert marker["digest"] == packed.digest
    assert marker["reason"]
    assert set(marker.content) >= {"hint", "signer"}
    # The host's clock is ours, but files and records round differently.
    assert started - timedelta(seconds=1) <= marker["started"] <= marker["ended"] <= ended
    found = site.records(after=journal_after)
    outcome = assert_one_story(found, marker["deployment"], journal.DEPLOYMENT_LIVE)
    assert outcome["SWAPD_SITE"] == site.name
    assert outcome["SWAPD_RELEASE"] == packed.release
    assert outcome["SWAPD_DIGEST"] == packed.digest
    assert outcome["SWAPD_OUTCOME"] == "live"
    assert outcome["SWAPD_UPLOADER"] == UPLOADER
    assert outcome["PRIORITY"] == "5"
    assert int(outcome["SWAPD_PAUSE_USEC"]) == marker["pause_usec"] > 0
    assert int(outcome["SWAPD_PAUSED"]) > 1
    assert int(outcome["SWAPD_DURATION_USEC"]) > 0
    assert packed.release in site.web.status_line()


def _copy_tree(source: Path, target: Path) -> None:
    """Copies a tree as it is, links and modes included."""
    shutil.copytree(source, target, symlinks=True)

"""What comes into a drop directory and what the commands tell of it, beyond the ways that an upload may take."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.host import journal
from tests.host.conftest import Expected
from tests.host.releases import Packed, describe_tree, make_tree, pack
from tests.host.webhost import AUTHOR, UPLOADER, Site, Way, WebHost, assert_one_story

KEEP = 5  # releases, by default; more than that are deployed here


@pytest.fixture(scope="module")
def shop(web: WebHost) -> Site:
    return web.new_site("shop")


def test_zstd_goes_live(shop: Site, tmp_path: Path) -> None:
    packed = pack(tmp_path, "shop-zstd", ".tar")
    compressed = tmp_path / "shop-zstd.tar.zst"
    inside = "/root/shop-zstd.tar"
    shop.web.host.write(inside, packed.tarball.read_bytes())
    shop.web.run("zstd", "--quiet", inside)
    compressed.write_bytes(shop.web.host.path(f"{inside}.zst").read_bytes())
    packed = Packed(packed.name, packed.tree, compressed)
    shop.assert_live(packed, shop.deploy(compressed))


@pytest.mark.parametrize("way", [Way.RSYNC_INPLACE, Way.CURL_SFTP, Way.CURL_SCP], ids=lambda way: way.name.lower())
def test_more_ways_of_uploading(shop: Site, way: Way, tmp_path: Path) -> None:
    packed = pack(tmp_path, f"shop-{way.name.lower()}")
    shop.assert_live(packed, shop.deploy(packed.tarball, way))


@pytest.mark.parametrize(
    "command",
    [["mv", "/dev/shm/NAME"], ["mv", "/home/deploy/NAME"], ["ln", "/home/deploy/NAME"], ["cp", "/home/deploy/NAME"]],
    ids=["mv-from-another-filesystem", "mv", "ln", "cp"],
)
def test_an_uploader_on_the_host_itself(shop: Site, command: list[str], tmp_path: Path) -> None:
    packed = pack(tmp_path, f"shop-{command[0]}")
    program, source = command[0], command[1].replace("NAME", packed.tarball.name)
    shop.web.host.write(source, packed.tarball.read_bytes())
    shop.web.run("chown", UPLOADER, source)
    marker = shop.outcome_after(
        lambda: shop.web.run(program, source, f"{shop.incoming}/", user=UPLOADER), packed.tarball.name
    )
    shop.assert_live(packed, marker)
    shop.web.run("rm", "-f", source)


def test_one_that_is_mounted_over_and_unmounted(web: WebHost, shop: Site, expected: Expected, tmp_path: Path) -> None:
    """The unit has a mount namespace of its own, and sees what is mounted on the host."""
    expected.warning(MESSAGE_ID=journal.WATCH_REBUILT)
    packed = [pack(tmp_path, "shop-over"), pack(tmp_path, "shop-under")]
    options = web.run("stat", "--format=mode=%a,gid=%g", shop.incoming).strip()
    for command in (["mount", "-t", "tmpfs", "-o", options, "swapd-test", shop.incoming], ["umount", shop.incoming]):
        web.run(*command)
        web.wake()
        following = packed.pop(0)
        shop.assert_live(following, shop.deploy(following.tarball))


@pytest.mark.parametrize("order", ["sidecar-first", "tarball-first"])
def test_a_digest_sidecar_goes_with_its_tarball(shop: Site, order: str, tmp_path: Path) -> None:
    packed = pack(tmp_path, f"shop-{order}")
    sidecar = tmp_path / f"{packed.tarball.name}.sha256"
    sidecar.write_text(f"{packed.digest}  {packed.tarball.name}\n")
    files = [sidecar, packed.tarball] if order == "sidecar-first" else [packed.tarball, sidecar]
    for file in files:
        shop.web.host.write(f"/home/{AUTHOR}/{file.name}", file.read_bytes())
    # In one session: the second file comes well before the first has settled.
    puts = [f'put "/home/{AUTHOR}/{file.name}" "{shop.incoming}/{file.name}"' for file in files]
    shop.assert_live(packed, shop.outcome_after(lambda: shop.sftp(*puts), packed.tarball.name))
    assert not shop.dropped(sidecar.name).exists()


def test_what_swapd_packs_is_dropped_with_its_digest_by_one_scp(shop: Site, tmp_path: Path) -> None:
    """As the README says."""
    tree = make_tree(tmp_path / "public", "packed by swapd")
    shutil.copytree(tree, shop.web.host.path(f"/home/{AUTHOR}/public"), symlinks=True)
    shop.web.run("chown", "-R", f"{AUTHOR}:", f"/home/{AUTHOR}/public")
    commands = f"cd && swapd pack ./public --name shop-packed && scp -q shop-packed.tar.gz* web:{shop.incoming}/"
    marker = shop.outcome_after(lambda: shop.web.run("sh", "-c", commands, user=AUTHOR), "shop-packed.tar.gz")
    assert marker.outcome == "live"
    assert describe_tree(shop.tree()) == describe_tree(tree)
    shop.assert_serves(tree)
    assert not shop.dropped("shop-packed.tar.gz.sha256").exists()


def test_the_same_bytes_again_change_nothing(shop: Site, tmp_path: Path) -> None:
    packed = pack(tmp_path, "shop-again")
    shop.deploy(packed.tarball)
    tree = shop.tree().stat().st_ino
    marker = shop.deploy(packed.tarball)
    assert marker.outcome == marker["outcome"] == "unchanged"
    assert not shop.dropped(packed.tarball.name).exists()
    assert shop.tree().stat().st_ino == tree
    assert_one_story(shop.records(), marker["deployment"], journal.DEPLOYMENT_UNCHANGED)


def test_commands_tell_what_is_live(shop: Site, tmp_path: Path) -> None:
    packed = pack(tmp_path, "shop-told")
    marker = shop.deploy(packed.tarball)
    assert packed.release in shop.web.run("swapd", "status")
    assert packed.release in shop.web.run("swapd", "history", "shop")
    (status,) = json.loads(shop.web.run("swapd", "status", "shop", "--json"))["sites"]
    assert status["site"] == "shop"
    assert status["live"]["release"] == packed.release
    assert status["live"]["deployment"] == marker["deployment"]
    newest, before, *_ = json.loads(shop.web.run("swapd", "history", "shop", "--json"))["deployments"]
    assert (newest["id"], newest["outcome"]) == (marker["deployment"], "live")
    assert newest["started"] > before["started"]
    assert "nothing is wrong" in shop.web.run("swapd", "check")


def test_a_command_deploys_while_the_daemon_is_down(shop: Site, tmp_path: Path) -> None:
    packed = pack(tmp_path, "shop-by-command")
    shop.web.host.write("/root/shop-by-command.tar.gz", packed.tarball.read_bytes())
    shop.web.run("systemctl", "stop", "swapd")
    try:
        answer = json.loads(shop.web.run("swapd", "deploy", "shop", "/root/shop-by-command.tar.gz", "--json"))
        assert packed.release in json.dumps(answer)
        shop.assert_serves(packed.tree)
        assert shop.web.host.path("/root/shop-by-command.tar.gz").exists()
    finally:
        shop.web.run("systemctl", "start", "swapd")
    assert packed.release in shop.web.status_line()


def test_only_keep_releases_remain(shop: Site) -> None:
    kept = shop.kept_releases()
    assert len([name for name in kept if not name.startswith(".")]) == KEEP, kept
    assert not [name for name in kept if name.startswith(".")], "staging is left"


def test_the_journal_explains_itself(shop: Site) -> None:
    live = shop.records()[-1]
    explained = shop.web.run("journalctl", "--catalog", "--unit=swapd", f"MESSAGE_ID={journal.DEPLOYMENT_LIVE}")
    assert "Defined-By: swapd" in explained
    assert "@SWAPD_" not in explained, f"a field that the records lack: {journal.describe(live)}"

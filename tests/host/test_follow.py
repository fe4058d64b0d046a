"""``scp … && ssh web swapd follow shop``: a deployment with an answer, for somebody who only has the group swapd."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.host.conftest import Expected
from tests.host.machine import wait_until
from tests.host.releases import Packed, pack
from tests.host.webhost import AUTHOR, Site, WebHost
from tests.support.documents import check_lines


@pytest.fixture(scope="module")
def shop(web: WebHost) -> Site:
    return web.new_site("shop")


def lay_out(site: Site, packed: Packed, digest: str = "") -> str:
    """The tarball and its digest are in the author's home; the command that uploads both."""
    home = site.web.host.path(f"/home/{AUTHOR}")
    for old in home.glob("*.tar*"):
        old.unlink()
    shutil.copyfile(packed.tarball, home / packed.tarball.name)
    (home / f"{packed.tarball.name}.sha256").write_text(f"{digest or packed.digest}  {packed.tarball.name}\n")
    return f"scp -q {packed.name}.tar.gz* web:{site.incoming}/"


def follow(site: Site, packed: Packed, options: str = "", digest: str = "") -> subprocess.CompletedProcess[str]:
    """The README's line, as the author types it."""
    line = f"cd && {lay_out(site, packed, digest)} && ssh web swapd follow {site.name} {options}"
    return site.web.host.run("sh", "-c", line, user=AUTHOR, check=False, deadline=120)


def test_it_goes_live(shop: Site, tmp_path: Path) -> None:
    packed = pack(tmp_path, "shop-1")
    done = follow(shop, packed)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert re.search(
        rf"^shop: {packed.release} is live; .* httpd processes were paused for ", done.stdout, re.MULTILINE
    )
    shop.assert_serves(packed.tree)
    again = follow(shop, packed)
    assert (again.returncode, again.stderr) == (0, ""), again
    assert "is live already" in again.stdout


def hold_extraction(site: Site) -> int:
    """Stops the site's worker once there is something of a release; its pid."""
    if not any(site.web.host.path(site.releases).glob(".staging-*/*")):
        return 0
    for pid, name, _ in site.web.host.processes():
        if name == f"swapd {site.name}":
            os.kill(pid, signal.SIGSTOP)
            return pid
    return 0


def test_while_it_is_extracted(shop: Site, tmp_path: Path) -> None:
    """By somebody at a terminal, and by a program; both wait for it."""
    packed = pack(tmp_path, "shop-2", small_files=4000)
    at = f"web swapd follow shop {packed.tarball.name}"
    line = f"cd; TERM=xterm ssh -n -tt {at} > shown & one=$!; cd; ssh -n {at} --json > told & two=$!; "
    line += f"{lay_out(shop, packed)} && wait $one && wait $two"
    home = shop.web.host.path(f"/home/{AUTHOR}")
    with subprocess.Popen(shop.web.host.enter("sh", "-c", line, user=AUTHOR)) as command:
        worker = wait_until(lambda: hold_extraction(shop), "the extraction", explain=shop.web.describe)
        try:
            for name in ("shown", "told"):
                wait_until(lambda name=name: "extract" in (home / name).read_text(), name)
        finally:
            os.kill(worker, signal.SIGCONT)
        assert command.wait(60) == 0
    assert "━" in (home / "shown").read_text()
    assert f"{packed.release} is live" in (home / "shown").read_text()
    told = check_lines((home / "told").read_text())
    assert "extract" in [item["progress"]["stage"] for item in told if item["event"] == "progress"], told
    assert told[-1]["deployment"]["release"] == packed.release


def test_it_is_rejected(shop: Site, expected: Expected, tmp_path: Path) -> None:
    expected.warning(SWAPD_OUTCOME="rejected", SWAPD_SITE="shop")
    packed = pack(tmp_path, "shop-4")
    done = follow(shop, packed, digest="0" * 64)
    assert done.returncode == 3, done
    assert f"{packed.release} rejected: " in done.stderr
    assert shop.web.host.run("swapd", "follow", "shop", check=False).returncode == 3, "for a minute, and for root too"


def test_this_host_is_at_fault(web: WebHost, expected: Expected, tmp_path: Path) -> None:
    site = web.init("broken", "/var/www/broken")
    web.run("rmdir", site.releases)
    web.run("ln", "-s", "/nowhere", site.releases)
    expected.warning(SWAPD_OUTCOME="failed", SWAPD_SITE="broken")
    done = follow(site, pack(tmp_path, "broken-1"))
    assert done.returncode == 1, done
    assert "broken-1@" in done.stderr
    assert " failed: " in done.stderr
    web.run("rm", site.releases)


def test_the_daemon_is_stopped(shop: Site, tmp_path: Path) -> None:
    packed = pack(tmp_path, "shop-5")
    shop.web.run("systemctl", "stop", "swapd")
    done = follow(shop, packed, "--timeout 0.5")
    assert done.returncode == 1, done
    assert "swapd does not run" in done.stderr
    assert "swapd does not run" in shop.web.run("swapd", "status")
    shop.web.run("systemctl", "start", "swapd")
    done = shop.web.host.run("ssh", "web", "swapd", "follow", "shop", user=AUTHOR, check=False)
    assert done.returncode == 0, done
    assert f"{packed.release} is live" in done.stdout


def test_who_may_drop_nothing_may_see_what_is_live(shop: Site) -> None:
    status = shop.web.run("swapd", "status", "shop", user=AUTHOR)
    assert "live       shop-" in status
    assert f"{shop.incoming} cannot be read by you" in status
    assert "shop-1@" in shop.web.run("swapd", "history", "shop", user=AUTHOR)
    blind = shop.web.host.run("swapd", "follow", "shop", "later.tar", "--timeout=0.1", user=AUTHOR, check=False)
    assert blind.returncode == 5
    assert f"you may not look into {shop.incoming}" in blind.stdout

"""Which processes a pause stops on a real host, what forbids it, what it reports; and sites with several live paths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli_w

from tests.host import journal
from tests.host.conftest import Expected
from tests.host.machine import wait_until
from tests.host.releases import MARK, describe_tree, pack
from tests.host.visitors import Load, fetch
from tests.host.webhost import Marker, Site, WebHost, assert_one_story

FAKE = "/usr/local/bin/httpd"  # the name of the process, too
# A service as a cautious administrator runs it: it says that it is ready, and then again and again that it lives.
PROGRAM = """#!/usr/bin/python3
import os, socket, time
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(os.environ["NOTIFY_SOCKET"])
notify.send(b"READY=1")
while True:
    time.sleep(0.05)
    notify.send(b"WATCHDOG=1")
"""
UNIT = f"""[Service]
Type=notify
ExecStart={FAKE}
WatchdogSec=600ms
"""


@pytest.fixture(scope="module")
def fake(web: WebHost) -> Iterator[str]:
    """Another web server, by its process's name, in a unit of its own with a watchdog."""
    web.host.write(FAKE, PROGRAM, mode=0o755)
    web.host.write("/etc/systemd/system/fake.service", UNIT)
    web.run("systemctl", "daemon-reload")
    web.run("systemctl", "start", "fake")
    yield "fake.service"
    web.run("systemctl", "stop", "fake")


@pytest.fixture
def shop(web: WebHost, fake: str) -> Site:
    del fake
    if not web.host.path("/etc/swapd/sites/shop.toml").exists():
        web.new_site("shop")
    return Site(web, "shop", "/var/www/shop")


def deploy_with(site: Site, directory: Path, name: str, pause: dict[str, object]) -> Marker:
    """A deployment under these rules for the pause."""
    document = {"live": site.live, "pause": {"max": "250ms", **pause}}
    site.web.host.write(f"/etc/swapd/sites/{site.name}.toml", tomli_w.dumps(document))
    site.web.run("systemctl", "reload", "swapd")
    packed = pack(directory, name)
    marker = site.deploy(packed.tarball)
    if marker.outcome == "live":
        site.assert_live(packed, marker)
    return marker


def apache_processes(web: WebHost) -> int:
    return sum(name == "apache2" for _, name, _ in web.host.processes())


@pytest.mark.parametrize(
    ("name", "rules", "is_fake_paused"),
    [
        ("all", {}, True),
        ("unit", {"unit": "apache2.service"}, False),
        ("exe", {"exe": "/usr/sbin/apache2"}, False),
        ("user", {"user": "root"}, True),
        ("names", {"processes": ["apache2"]}, False),
        ("fake", {"unit": "fake.service"}, None),
    ],
)
def test_what_is_paused(
    shop: Site, tmp_path: Path, name: str, rules: dict[str, object], is_fake_paused: bool | None
) -> None:
    marker = deploy_with(shop, tmp_path, f"shop-{name}", rules)
    assert marker.outcome == "live", marker.content
    expected = 1 if is_fake_paused is None else apache_processes(shop.web) + is_fake_paused
    assert marker["pause"]["processes"] == expected


def test_what_the_listeners_held_is_known_inside_the_sandbox(shop: Site, tmp_path: Path) -> None:
    """Apache's sockets are told from sshd's, and the daemon's worker may not look at other users' descriptors."""
    marker = deploy_with(shop, tmp_path, "shop-listeners", {"unit": "apache2.service"})
    with Load(shop.web.host, shop.domain):
        (queue,) = marker["pause"]["queues"]
    assert (queue["listener"], queue["limit"]) == ("[::]:80", 511)
    assert queue["queued"] >= 0
    assert (marker["pause"]["overflowed"], marker["pause"]["dropped"]) == (0, 0)
    assert "[::]:80 " in shop.web.run("swapd", "status", "shop")
    told = [item for item in shop.records() if item.get("SWAPD_DEPLOYMENT") == marker["deployment"]]
    (record,) = [item for item in told if item["MESSAGE_ID"] == journal.DEPLOYMENT_LIVE]
    assert record["SWAPD_QUEUED"] == f"[::]:80={queue['queued']}/511"
    assert record["SWAPD_DROPPED"] == "0"


def test_no_process_matches(shop: Site, tmp_path: Path) -> None:
    marker = deploy_with(shop, tmp_path, "shop-nobody", {"unit": "nobody.service"})
    assert marker.outcome == "live"
    assert "pause" not in marker.content
    assert "no process called httpd or apache2 is running in nobody.service" in marker["reason"]


def test_a_watchdog_shorter_than_the_pause_forbids_it(shop: Site, tmp_path: Path, expected: Expected) -> None:
    expected.warning(MESSAGE="systemd ends fake.service")
    before = fetch(shop.web.host, shop.domain, MARK).body
    marker = deploy_with(shop, tmp_path, "shop-watchdog", {"unit": "fake.service", "max": "1s"})
    assert marker.outcome == "failed"
    assert marker["problem"] == "watchdog-too-short"
    assert "600 ms" in marker["reason"]
    assert "WatchdogSec=" in marker["hint"]
    assert "pause" not in marker.content
    assert fetch(shop.web.host, shop.domain, MARK).body == before
    assert shop.web.run("systemctl", "show", "-P", "NRestarts", "fake").strip() == "0"
    assert_one_story(shop.records(), marker["deployment"], journal.DEPLOYMENT_FAILED)
    shop.dropped("shop-watchdog.tar.gz").unlink()


def test_a_watchdog_that_may_be_too_short_is_warned_of(shop: Site, tmp_path: Path, expected: Expected) -> None:
    expected.warning(MESSAGE="half of that may be over when a pause begins")
    mark = journal.mark(shop.web.host)
    marker = deploy_with(shop, tmp_path, "shop-near", {"unit": "fake.service", "max": "400ms"})
    assert marker.outcome == "live"
    warned = [record for record in shop.records(after=mark) if "half of that" in record["MESSAGE"]]
    assert len(warned) == 1


@pytest.fixture
def twin(web: WebHost) -> Site:
    """A site with two live paths, which Apache serves as one."""
    site = web.new_site("twin")
    web.host.write(
        "/etc/apache2/conf-available/twin.conf",
        "Alias /lib /srv/lib/twin\n<Directory /srv/lib>\nRequire all granted\n</Directory>\n",
    )
    web.run("a2enconf", "--quiet", "twin")
    web.run("systemctl", "reload", "apache2")
    document = {
        "live": site.live,
        "path": [{"live": "/srv/lib/twin", "part": "pages"}],
        "pause": {"unit": "apache2.service"},
    }
    web.host.write("/etc/swapd/sites/twin.toml", tomli_w.dumps(document))
    web.run("swapd", "init", "twin", "--live", site.live)  # opens the sandbox for the second one
    return site


def test_several_live_paths_are_swapped_together(twin: Site, tmp_path: Path) -> None:
    host = twin.web.host
    first, second = pack(tmp_path, "twin-1"), pack(tmp_path, "twin-2")
    for packed in (first, second):
        with Load(host, twin.domain) as load:
            marker = twin.deploy(packed.tarball)
        assert marker.outcome == "live", marker.content
        assert not load.failures or packed is first  # before the first there is nothing
        assert fetch(host, twin.domain, MARK).body.decode().strip() == packed.name
        whole = describe_tree(packed.tree)
        served = describe_tree(twin.tree())
        below = {f"pages/{path}": entry for path, entry in describe_tree(host.path("/srv/lib/twin")).items()}
        assert {**served, **below, "pages": "directory 755"} == whole
        assert not served.keys() & below.keys()
        page = next(path for path in whole if path.startswith("pages/") and whole[path].startswith("file"))
        assert fetch(host, twin.domain, page.replace("pages/", "lib/")).body == (packed.tree / page).read_bytes()
    wait_until(lambda: host.path(f"/srv/lib/twin.releases/{first.release}").is_dir(), "the old one to be kept")
    assert host.path(f"{twin.releases}/{first.release}").is_dir()

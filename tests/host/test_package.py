"""The package over a host's life: installed anew, removed, purged; visitors notice none of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.host import journal
from tests.host.machine import Host, booted
from tests.host.releases import describe_tree, pack
from tests.host.visitors import Load
from tests.host.webhost import Site, WebHost

SETTLE = timedelta(seconds=2)  # for how long an upload without a sidecar must be quiet, by default


@pytest.fixture
def shop(base: Path, package: Path, tmp_path: Path) -> Iterator[Site]:
    """A site that one command made, with a live release and a rejected tarball. Its host is this test's alone."""
    with booted(base) as host:
        web = WebHost(host)
        web.install(package, defaults="")
        site = web.new_site("shop")
        first = pack(tmp_path, "first")
        began = datetime.now(UTC)
        marker = site.deploy(first.tarball)
        assert marker.outcome == "live"
        assert marker["started"] - began >= SETTLE
        bad = tmp_path / "bad.tar.gz"
        bad.write_bytes(b"no archive")
        assert site.deploy(bad).outcome == "rejected"
        yield site


def test_reinstalling_removing_and_purging_leave_the_site_served(shop: Site, package: Path, tmp_path: Path) -> None:
    site, web, host = shop, shop.web, shop.web.host
    before = describe_tree(host.path(site.releases)), site.tree().stat().st_ino
    with Load(host, site.domain) as load:
        web.run("apt-get", "install", "--reinstall", "--quiet", "--yes", f"/root/{package.name}", deadline=240)
        assert web.unit("ActiveState") == "active"
        second = pack(tmp_path, "second")
        assert site.deploy(second.tarball).outcome == "live"
        web.run("apt-get", "remove", "--quiet", "--yes", "swapd", deadline=240)
        assert web.unit("LoadState") in ("not-found", "masked")
        assert host.path("/etc/swapd/sites/shop.toml").exists()
        web.run("apt-get", "install", "--quiet", "--yes", f"/root/{package.name}", deadline=240)
        third = pack(tmp_path, "third")
        assert site.deploy(third.tarball).outcome == "live"
        kept = describe_tree(host.path(site.releases)), site.tree().stat().st_ino
        assert before != kept
        web.run("apt-get", "purge", "--quiet", "--yes", "swapd", deadline=240)
        assert (describe_tree(host.path(site.releases)), site.tree().stat().st_ino) == kept
        site.assert_serves(third.tree)
    load.assert_served({"first", "second", "third"})
    assert not web.stopped_httpd()
    assert site.dropped("bad.tar.gz").read_bytes() == b"no archive", "an upload is its author's"
    assert not host.path("/etc/systemd/system/swapd.service.d").exists()
    assert not host.path("/etc/swapd").exists()
    assert host.run("systemctl", "is-active", "swapd-users.socket", check=False).stdout.strip() != "active"
    assert not host.path("/run/swapd").exists()
    assert_quiet(host)


def assert_quiet(host: Host) -> None:
    """Nothing but the rejection was worth a warning."""
    loud = journal.records(host, "--unit=swapd", "--priority=warning")
    assert [item["MESSAGE_ID"] for item in loud] == [journal.DEPLOYMENT_REJECTED], [*map(journal.describe, loud)]

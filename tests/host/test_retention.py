"""Old releases in the daemon's own sandbox: which go, which stay because somebody uses them, and who tells it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from swapd.model.message_ids import MessageId
from tests.host import journal
from tests.host.machine import wait_until
from tests.host.releases import Packed, pack
from tests.host.test_unit import MOST_EXPOSED
from tests.host.webhost import UPLOADER, Site, WebHost

SOCKET = "/run/swapd/users.sock"


@pytest.fixture(scope="module")
def shop(web: WebHost) -> Site:
    """A site that keeps two releases."""
    site = web.new_site("shop")
    file = web.host.path("/etc/swapd/sites/shop.toml")
    file.write_text(f"keep = 2\n{file.read_text()}")
    web.run("systemctl", "reload", "swapd")
    return site


class Line:
    """Releases that are deployed one after the other."""

    def __init__(self, shop: Site, directory: Path) -> None:
        self._shop = shop
        self._directory = directory

    def deploy(self, name: str) -> Packed:
        packed = pack(self._directory, name)
        self._shop.assert_live(packed, self._shop.deploy(packed.tarball))
        return packed

    def tree(self, packed: Packed) -> str:
        return f"{self._shop.releases}/{packed.release}"


@pytest.fixture
def line(shop: Site, tmp_path: Path) -> Line:
    return Line(shop, tmp_path)


def start(web: WebHost, unit: str, *command: str, user: str = "www-data", directory: str = "/") -> str:
    """A service of that user's; its pid as the host numbers it."""
    options = [f"--unit={unit}", f"--uid={user}", "--property=Type=exec", f"--working-directory={directory}"]
    web.run("systemd-run", "--quiet", *options, "--", *command)
    return web.run("systemctl", "show", "--value", "--property=MainPID", unit).strip()


def held(web: WebHost, mark: int) -> list[str]:
    """What the daemon has said since of releases that it holds."""
    kind = f"MESSAGE_ID={MessageId.RELEASE_HELD.value}"
    return [record["MESSAGE"] for record in journal.records(web.host, "--unit=swapd", kind, after=mark)]


def test_what_somebody_uses_stays_until_he_is_done(web: WebHost, shop: Site, line: Line) -> None:
    """By processes of other users, which the daemon itself may not look into."""
    one, two = line.deploy("use-1"), line.deploy("use-2")
    cron = start(web, "cron-job", "sleep", "600", directory=line.tree(one))
    reader = start(web, "reader", "tail", "--follow", f"{line.tree(two)}/index.html", user="root")
    mark = journal.mark(web.host)
    three = line.deploy("use-3")
    four = line.deploy("use-4")
    # The outcome comes first, and the look after it.
    wait_until(lambda: any(two.release in said for said in held(web, mark)), "it to be said", explain=web.describe)
    said = "\n".join(held(web, mark))
    assert f"{one.release} is past its time, and kept: sleep, pid {cron} (working directory)" in said
    assert f"{two.release} is past its time, and kept: tail, pid {reader} (open file)" in said
    assert set(shop.kept_releases()) >= {one.release, two.release, three.release, four.release}
    assert "past-keep" in web.run("swapd", "check", "--json", "shop")

    web.run("systemctl", "stop", "cron-job")
    told = web.run("swapd", "prune", "shop")
    assert f"removed  {one.release}" in told
    assert f"kept     {two.release}: tail, pid {reader} (open file)" in told
    web.run("systemctl", "stop", "reader")
    line.deploy("use-5")
    wait_until(lambda: two.release not in shop.kept_releases(), "it to be removed", explain=web.describe)
    wait_until(lambda: not [name for name in shop.kept_releases() if name.startswith(".")], "all to be tidy")


def test_who_tells_it_has_no_power_and_tells_nobody_else(web: WebHost, shop: Site) -> None:
    del shop
    assert web.run("systemctl", "is-active", "swapd-users.socket").strip() == "active"
    # A template has no exposure; any instance of it does.
    shown = web.run("systemd-analyze", "security", "--no-pager", "swapd-users@x.service")
    match = re.search(r"exposure level for swapd-users@x.service: ([0-9.]+)", shown)
    assert match, shown
    assert float(match[1]) <= MOST_EXPOSED, shown
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect('{SOCKET}')"
    assert "PermissionError" in web.host.run("python3", "-c", connect, user=UPLOADER, check=False).stderr
    assert web.host.run("systemd-analyze", "verify", "--man=no", "swapd-users.socket").stderr == ""


def test_where_nobody_can_tell_nothing_goes(web: WebHost, shop: Site, line: Line) -> None:
    web.run("systemctl", "stop", "swapd-users.socket")
    try:
        first = line.deploy("blind-1")
        mark = journal.mark(web.host)
        line.deploy("blind-2")
        line.deploy("blind-3")
        wait_until(lambda: any(first.release in said for said in held(web, mark)), "it to be said")
        assert "cannot be seen" in "\n".join(held(web, mark))
        assert first.release in shop.kept_releases()
    finally:
        web.run("systemctl", "start", "swapd-users.socket")
    line.deploy("seeing")
    wait_until(lambda: first.release not in shop.kept_releases(), "it to be removed", explain=web.describe)

"""The unit as systemd sees it, its configuration reloaded, and the package removed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from swapd.host import landlock
from tests.host import journal
from tests.host.conftest import Expected
from tests.host.machine import wait_until
from tests.host.releases import Packed, pack
from tests.host.webhost import Site, WebHost

MOST_EXPOSED = 2.2  # of 10, as `systemd-analyze security` reckons


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    return pack(tmp_path_factory.mktemp("first"), "first")


@pytest.fixture(scope="module")
def shop(web: WebHost, first: Packed) -> Site:
    site = web.new_site("shop")
    assert site.deploy(first.tarball).outcome == "live"
    return site


def test_the_sandbox_is_tight(web: WebHost, shop: Site) -> None:
    """With a site's drop-in, as it is on a real host."""
    del shop
    shown = web.run("systemd-analyze", "security", "--no-pager", "swapd.service")
    match = re.search(r"exposure level for swapd.service: ([0-9.]+)", shown)
    assert match, shown
    assert float(match[1]) <= MOST_EXPOSED, shown


def test_the_unit_files_have_no_mistakes(web: WebHost, shop: Site) -> None:
    del shop
    done = web.host.run("systemd-analyze", "verify", "swapd.service")
    assert done.stdout + done.stderr == ""


JAILED = """
import os, resource, signal, socket
from swapd.archive import jailed

def attempt(action):
    try:
        action()
    except OSError as error:
        return error.strerror
    return "done"

def work(say):
    return {
        "D-Bus": attempt(lambda: socket.socket(socket.AF_UNIX).connect("/run/dbus/system_bus_socket")),
        "signal": attempt(lambda: os.kill(1, 0)),
        "limit": attempt(lambda: resource.prlimit(1, resource.RLIMIT_CORE)),
        "fork": attempt(lambda: os.fork() or os._exit(0)),
        "write": attempt(lambda: os.open("/var/spool/swapd/file", os.O_CREAT | os.O_WRONLY)),
    }

os.mkdir("/var/spool/swapd/.tree")
into = os.open("/var/spool/swapd/.tree", os.O_RDONLY)
child = jailed.Jailed(work, {into}, jailed._confine(into, 0))
print(child.listen(lambda _: None))
print(child.layers)
child.close()
os.rmdir("/var/spool/swapd/.tree")
"""


def test_what_reads_a_tarball_is_jailed_in_the_unit(web: WebHost, shop: Site) -> None:
    """In a unit that differs from ours in what it executes; it has root's uid there."""
    del shop
    unit = web.host.path("/lib/systemd/system/swapd.service").read_text()
    unit = re.sub("(?m)^(ExecStopPost|ExecReload|WatchdogSec)=.*\n", "", unit)
    unit = re.sub("(?m)^(RuntimeDirectory|StateDirectory)=swapd$", r"\1=swapd-jail", unit)
    unit = unit.replace("Type=notify", "Type=oneshot").replace("Restart=on-failure", "Restart=no")
    unit = unit.replace("/usr/bin/swapd run", "/usr/bin/python3 /usr/local/lib/jailed.py")
    web.host.write("/usr/local/lib/jailed.py", JAILED)
    web.host.write("/etc/systemd/system/swapd-jail.service", f"{unit}\n[Service]\nStandardOutput=file:/run/jailed\n")
    web.run("systemctl", "daemon-reload")
    done = web.host.run("systemctl", "start", "swapd-jail", check=False)
    assert done.returncode == 0, web.run("journalctl", "--no-pager", "-u", "swapd-jail")
    found, layers = web.host.path("/run/jailed").read_text().splitlines()
    assert "done" not in found
    in_force, _, missing = layers.partition("; without ")
    assert "landlock" in in_force or not has_landlock(), layers
    assert "system-calls" in in_force, layers
    assert "system-calls" not in missing, layers


def has_landlock() -> bool:
    try:
        return landlock.abi() >= 2
    except OSError:
        return False


def test_the_unit_is_watched_and_notifies(web: WebHost) -> None:
    assert web.unit("Type") == "notify"
    assert web.unit("WatchdogUSec") not in ("0", "infinity")
    assert "first" not in web.unit("StatusText") or web.unit("StatusText").isprintable()


def test_a_reload_keeps_the_good_configuration_until_the_bad_one_is_mended(
    web: WebHost, shop: Site, expected: Expected, tmp_path: Path
) -> None:
    file = web.host.path("/etc/swapd/sites/shop.toml")
    good = file.read_text()
    pid = web.unit("MainPID")
    expected.warning(MESSAGE_ID=journal.CONFIGURATION_REFUSED, PRIORITY="3")
    mark = journal.mark(web.host)
    file.write_text(f'{good}\nkeeep = 3\nkeep = "many"\n')
    reload_and_wait(web, mark, journal.CONFIGURATION_REFUSED)
    (refusal,) = [
        item for item in journal.records(web.host, after=mark) if item["MESSAGE_ID"] == journal.CONFIGURATION_REFUSED
    ]
    assert "/etc/swapd/sites/shop.toml" in refusal["MESSAGE"]
    assert "keeep" in refusal["MESSAGE"]
    wait_until(lambda: "configuration" in web.status_line(), "the status says so", explain=web.describe)
    checked = web.host.run("swapd", "check", "shop", check=False)
    assert checked.returncode == 78
    assert "keeep" in checked.stdout + checked.stderr
    # Meanwhile the good one is in force.
    packed = pack(tmp_path, "while-refused")
    assert shop.deploy(packed.tarball).outcome == "live"
    file.write_text(good)
    mark = journal.mark(web.host)
    reload_and_wait(web, mark, journal.RELOADED)
    wait_until(lambda: "configuration" not in web.status_line(), "the status is as before", explain=web.describe)
    assert web.unit("MainPID") == pid
    packed = pack(tmp_path, "after-mending")
    assert shop.deploy(packed.tarball).outcome == "live"


def reload_and_wait(web: WebHost, mark: int, message_id: str) -> None:
    """`systemctl reload` only sends a signal; the journal tells when the configuration was read."""
    web.run("systemctl", "reload", "swapd")
    wait_until(
        lambda: journal.records(web.host, "--unit=swapd", f"MESSAGE_ID={message_id}", after=mark),
        f"a record {message_id}",
        explain=web.describe,
    )

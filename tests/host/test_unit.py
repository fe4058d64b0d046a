"""The unit as systemd sees it, its configuration reloaded, and the package removed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from swapd.host import landlock
from tests.host import journal
from tests.host.conftest import Expected
from tests.host.machine import wait_until
from tests.host.releases import Packed, pack
from tests.host.roots import published_program
from tests.host.webhost import Site, WebHost
from tests.support.dashboard import expressions, read_dashboard
from tests.support.readme import README, read_blocks

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


LOOK = """
import json
from swapd.checks.metrics import find_metrics
from swapd.model.layout import Layout
print(json.dumps([finding.document() for finding in find_metrics((), Layout())]))
"""


def found_of_metrics(web: WebHost) -> dict[str, list[str]]:
    """What `swapd check` finds of them, which takes its time to look at all the rest: the problem, and its commands."""
    return {item["problem"]: item["commands"] for item in json.loads(web.run("python3", "-c", LOOK))}


PROM = "/var/lib/prometheus/node-exporter/swapd.prom"


def test_metrics_come_to_debian_s_node_exporter(web: WebHost, shop: Site, expected: Expected, tmp_path: Path) -> None:
    """From a host that is not prepared for it, by what the status and the journal say is to be done."""
    defaults = web.host.path("/etc/swapd/swapd.toml")
    before = defaults.read_text()
    expected.warning(MESSAGE="no metrics", PRIORITY="4")
    mark = journal.mark(web.host)
    asking = f'{before}\n[metrics]\ntextfile = "{PROM}"\n'
    defaults.write_text(asking)
    reload_and_wait(web, mark, journal.RELOADED)
    wait_until(lambda: f"no metrics: {PROM}: No such file" in web.status_line(), "the status", explain=web.describe)
    (said,) = [item["MESSAGE"] for item in journal.records(web.host, after=mark) if "no metrics" in item["MESSAGE"]]
    assert "systemctl restart swapd" in said
    assert found_of_metrics(web) == {"metrics-no-directory": []}
    # What the exporter's package brings, as it brings it.
    web.run("install", "--directory", str(Path(PROM).parent))
    mark = journal.mark(web.host)
    reload_and_wait(web, mark, journal.RELOADED)
    wait_until(lambda: f"{PROM}: Read-only" in web.status_line(), "the sandbox is as before", explain=web.describe)
    assert found_of_metrics(web) == {"metrics-sandbox": ["systemctl restart swapd"]}
    web.run("systemctl", "restart", "swapd")
    assert shop.deploy(pack(tmp_path, "measured").tarball).outcome == "live"
    prom = web.host.path(PROM)
    wait_until(lambda: prom.exists() and "measured@" in prom.read_text(), "the metrics", explain=web.describe)
    assert "no metrics" not in web.status_line()
    assert found_of_metrics(web) == {}
    elsewhere = "/srv/exporter/100%/swapd.prom"
    web.run("install", "--directory", str(Path(elsewhere).parent))
    mark = journal.mark(web.host)
    defaults.write_text(f'{before}\n[metrics]\ntextfile = "{elsewhere}"\n')
    reload_and_wait(web, mark, journal.RELOADED)
    wait_until(lambda: f"{elsewhere}: Read-only" in web.status_line(), "the status", explain=web.describe)
    assert not prom.exists(), "nothing stays there that nobody writes any more"
    for command in found_of_metrics(web)["metrics-sandbox"]:
        web.run("sh", "-c", command)
    wait_until(web.host.path(elsewhere).exists, "the metrics elsewhere", explain=web.describe)
    defaults.write_text(asking)
    mark = journal.mark(web.host)
    reload_and_wait(web, mark, journal.RELOADED)
    wait_until(prom.exists, "the metrics", explain=web.describe)

    exporter = published_program("prometheus-node-exporter", "/usr/bin/prometheus-node-exporter")
    shutil.copy(exporter, web.host.path("/usr/local/bin/node-exporter"))
    options = ("--collector.disable-defaults", "--collector.textfile", "--web.listen-address=127.0.0.1:9100")
    web.run("systemd-run", "--quiet", "--unit=exporter", "--uid=nobody", "/usr/local/bin/node-exporter", *options)
    ask = ("curl", "--silent", "http://127.0.0.1:9100/metrics")
    scraped = wait_until(lambda: web.host.run(*ask, check=False).stdout, "the exporter answers")
    assert "\nnode_textfile_scrape_error 0\n" in scraped
    for line in prom.read_text().splitlines():
        if "_info{" in line or "deployments_total{" in line:
            labels, _, value = line.partition("{")[2].partition("} ")
            sample = f"{line.partition('{')[0]}{{{','.join(sorted(labels.split(',')))}}} {value}"
            assert f"\n{sample}\n" in scraped, "Prometheus gets what was written"

    promtool = published_program("prometheus", "/usr/bin/promtool")
    linted = subprocess.run([promtool, "check", "metrics"], input=prom.read_bytes(), capture_output=True)
    assert (linted.returncode, linted.stdout, linted.stderr) == (0, b"", b"")
    alerts = [line for block in read_blocks(README.read_text()) if block.language == "promql" for line in block.lines]
    rules = [
        {"record": f"shown{number}", "expr": expression}
        for number, expression in enumerate([*expressions(read_dashboard()), *alerts])
    ]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run([promtool, "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True)
    assert f"{len(rules)} rules found" in checked.stdout, checked.stderr

    mark = journal.mark(web.host)
    defaults.write_text(before)
    reload_and_wait(web, mark, journal.RELOADED)
    wait_until(lambda: not prom.exists(), "nothing stays there that nobody writes any more")
    for command in found_of_metrics(web)["metrics-not-asked-for"]:
        web.run("sh", "-c", command)
    assert defaults.read_text() == asking
    wait_until(prom.exists, "the metrics, by what check says alone")
    defaults.write_text(before)
    web.run("systemctl", "reload", "swapd")
    wait_until(lambda: not prom.exists(), "the host to be as before")

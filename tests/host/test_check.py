"""`swapd check` on a host that is healthy, and that is then broken on purpose, once for each finding.

Each case breaks one thing, sees that exactly this is found, and mends it: by the commands that the finding itself
names, where it has some that can be run here. The next case then begins with a healthy host, or fails.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from tests.host.conftest import Expected
from tests.host.releases import pack
from tests.host.ways import AUTHOR, UPLOADER
from tests.host.webhost import Site, WebHost

DROP_INS = "/etc/systemd/system/swapd.service.d"
OURS = f"{DROP_INS}/zz-test.conf"

HEALTHY = "nothing is wrong: home (symlink), shop (symlink)\n"


@dataclass(frozen=True, slots=True)
class Case:
    """A fault: what makes it, in a shell of root's; all that is found of it; what mends it.

    ``mend`` is empty where the findings' own commands do.
    """

    name: str
    breaks: str
    problems: tuple[str, ...]
    mend: str = ""
    sites: str = ""  # of the findings; none: the host as a whole
    lacking: str = ""  # by name, what a sandbox takes away
    warnings: tuple[str, ...] = ()  # what the journal may have of it


def setting(
    name: str, *lines: str, finds: tuple[str, ...] = ("sandbox-lacks",), sites: str = "", lacking: str = ""
) -> Case:
    """A drop-in of the administrator's, which no restart has taken in yet."""
    text = "\\n".join(["[Service]", *lines])
    return Case(name, f"printf '{text}\\n' > {OURS}", finds, f"rm {OURS}", sites, lacking)


def measured(directory: str, then: str) -> str:
    """Metrics are asked for in that directory."""
    table = f'\\n[metrics]\\ntextfile = "{directory}/swapd.prom"\\n'
    return f"cp /etc/swapd/swapd.toml /root/; printf '{table}' >> /etc/swapd/swapd.toml; systemctl reload swapd; {then}"


PROM = "/var/spool/swapd/swapd.prom"
NOT_MEASURED = "mv /root/swapd.toml /etc/swapd/; systemctl reload swapd"
CASES = [
    Case("masked", "systemctl mask --now swapd", ("unit-masked",), warnings=("reception is disabled",)),
    Case(
        "no unit file",
        "mv /lib/systemd/system/swapd.service /root/; systemctl daemon-reload",
        ("unit-missing",),
        "mv /root/swapd.service /lib/systemd/system/; systemctl daemon-reload",
    ),
    Case("stopped", "systemctl stop swapd", ("unit-not-running",)),
    Case("disabled", "systemctl disable swapd", ("unit-not-enabled",)),
    Case(
        "failed",
        "cp /etc/swapd/swapd.toml /root/; echo keeep = 1 >> /etc/swapd/swapd.toml; systemctl restart swapd || true; "
        "cp /root/swapd.toml /etc/swapd/",
        ("unit-failed",),
        warnings=("keeep", "Failed with result", "Failed to start swapd.service"),
    ),
    Case("closed to its group", "chmod 2750 /var/spool/swapd/shop", ("incoming-not-writable",), sites="shop"),
    Case("nobody gets there", "chmod 0700 /var/spool/swapd/home/..", ("incoming-unreachable",) * 2, sites="home shop"),
    Case("nobody answers who uses what", "systemctl stop swapd-users.socket", ("users-unseen",)),
    Case(
        "metrics that nobody writes any more",
        measured(
            "/var/spool/swapd",
            f"until [ -e {PROM} ]; do sleep 0.02; done; touch -d '1 hour ago' {PROM}",
        ),
        ("metrics-stale",),
        NOT_MEASURED,
    ),
    Case(
        "metrics on a disk that is read-only",
        "mkdir /srv/closed; mount -t tmpfs -o ro tmpfs /srv/closed; " + measured("/srv/closed", "true"),
        ("metrics-read-only",),
        f"{NOT_MEASURED}; umount /srv/closed",
        warnings=("no metrics",),
    ),
    Case("edited and not reloaded", "touch /etc/swapd/sites/shop.toml", ("configuration-not-in-force",)),
    setting("changed and not restarted", "Nice=-9", finds=("unit-not-restarted",)),
    Case("no drop-in", f"rm {DROP_INS}/site-shop.conf", ("sandbox-read-only",), sites="shop"),
    Case(
        "drop-in and no restart",
        f"mv {DROP_INS}/site-shop.conf /root/; systemctl daemon-reload; systemctl restart swapd; "
        f"mv /root/site-shop.conf {DROP_INS}/",
        ("unit-not-restarted",),
        sites="shop",
    ),
    Case(
        "a site below /home without its ProtectHome=",
        f"sed -i /ProtectHome/d {DROP_INS}/site-home.conf",
        ("sandbox-hides",),
        sites="home",
    ),
    setting(
        "two mounts",
        *(
            "ReadWritePaths=",
            "ReadWritePaths=/var/spool/swapd /var/www /home/deploy",
            "BindPaths=/var/www/shop.releases",
        ),
        finds=("sandbox-splits",),
        sites="shop",
    ),
    setting("configuration out of sight", "InaccessiblePaths=/etc/swapd", finds=("sandbox-hides-configuration",)),
    setting("a place that is not there", "ReadWritePaths=/srv/gone", finds=("sandbox-cannot-start",)),
    setting("users of its own", "PrivateUsers=yes", lacking="PrivateUsers"),
    setting(
        "a right, a sight and a call",
        *("CapabilityBoundingSet=~CAP_KILL", "ProcSubset=pid"),
        *("SystemCallFilter=~memfd_create", "SystemCallErrorNumber="),  # which kills who makes it
        finds=("sandbox-lacks",) * 3,
        lacking="CAP_KILL ProcSubset memfd_create",
    ),
]


@pytest.fixture(scope="module")
def shop(web: WebHost, tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = web.new_site("shop")
    web.add_vhost("home", f"/home/{UPLOADER}/site")
    web.init("home", f"/home/{UPLOADER}/site")
    assert site.deploy(pack(tmp_path_factory.mktemp("first"), "first").tarball).outcome == "live"
    return site


def test_a_healthy_host_gets_one_line(web: WebHost, shop: Site) -> None:
    del shop
    assert web.run("swapd", "check") == HEALTHY
    assert "swapdcheck" not in web.run("journalctl", "--no-pager"), "nobody who reads the journal is bothered"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_fault_is_found_and_nothing_else(web: WebHost, shop: Site, case: Case, expected: Expected) -> None:
    del shop
    for text in case.warnings:
        expected.warning(MESSAGE=text)
    web.run("sh", "-ec", case.breaks)
    done = web.host.run("swapd", "check", "--json", check=False)
    found = [item for item in json.loads(done.stdout)["findings"] if item["severity"] != "info"]
    try:
        assert tuple(item["problem"] for item in found) == case.problems, found
        assert sorted({item["site"] or "" for item in found}) == (case.sites.split() or [""])
        assert " ".join(item["facts"].get("lacking", "") for item in found).strip() == case.lacking
        assert all(item["what"] and item["why"] and item["remedy"] for item in found)
        has_errors = any(item["severity"] == "error" for item in found)
        assert done.returncode == (1 if has_errors else 0)
    finally:
        mends = [case.mend] if case.mend else [command for item in found for command in item["commands"]]
        for command in mends:
            web.run("sh", "-ec", command)


def test_the_host_is_as_before_and_check_has_left_nothing(web: WebHost, shop: Site) -> None:
    """Nor is what one left that was killed: the numbers are no processes."""
    del shop
    web.run("touch", "/run/systemd/system/swapdcheck4194305.service")
    web.run("mkdir", "/run/swapdcheck4194305-left")
    assert web.run("swapd", "check") == HEALTHY
    assert "swapdcheck" not in web.run("ls", "/run", "/run/systemd/system")
    assert "swapdcheck" not in web.run("systemctl", "list-units", "--all", "--no-legend")


def test_who_is_not_root_is_told_what_was_not_looked_at(web: WebHost, shop: Site) -> None:
    del shop
    file = web.host.path("/etc/swapd/sites/shop.toml")
    good = file.read_text()
    file.write_text(f'{good}[verify]\nrequire = "signature"\n')
    web.host.write("/etc/swapd/allowed_signers", "", mode=0o600)
    done = web.host.run("swapd", "check", user=AUTHOR, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sandbox-unseen" in done.stdout
    assert "signers-unseen" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("to see the rest: sudo swapd check")
    file.write_text(good)

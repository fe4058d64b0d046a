"""``swapd check`` about the web server, PHP and nginx: a host with each mistake, and the same host with none.

The mistakes are made side by side, one for each site, so that each finding must appear for its site, and for no other.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tests.host.machine import Host, booted, sweep, wait_until
from tests.host.package import dependencies
from tests.host.pages import PHP, use_php
from tests.host.roots import debian_root
from tests.host.visitors import fetch
from tests.host.ways import UPLOADER
from tests.host.webhost import PACKAGES, WebHost

NOBODY, WWW_DATA = 65534, 33
POOL = "/etc/php/8.2/fpm/pool.d/tests.conf"
FPM_INI = "/etc/php/8.2/fpm/conf.d/99-tests.ini"
MOD_PHP_INI = "/etc/php/8.2/apache2/conf.d/99-tests.ini"
RULES = {"pause": {"unit": "apache2.service"}}
HTTPD = """\
<VirtualHost *:80>
    ServerName {name}.test
    DocumentRoot {root}
    {more}
</VirtualHost>
<Directory {root}>
    Require all granted
</Directory>
"""
PHP_LOCATION = r"location ~ \.php$ {{ include fastcgi.conf; fastcgi_pass unix:/run/php/{pool}.sock; {more} }}"
NGINX = "server {{ listen 8080; server_name {name}.test; root {root}; {more} }}\n"
RESOLVED = (
    "fastcgi_param SCRIPT_FILENAME $realpath_root$fastcgi_script_name; fastcgi_param DOCUMENT_ROOT $realpath_root;"
)
# Services under names of their own, which stand for a web server.
PROGRAM = """#!/usr/bin/python3
import os, socket, sys, time
if "NOTIFY_SOCKET" in os.environ:
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.connect(os.environ["NOTIFY_SOCKET"])
    notify.send(b"READY=1")
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=int(sys.argv[2]))
while True:
    time.sleep(0.05)
    if "NOTIFY_SOCKET" in os.environ:
        notify.send(b"WATCHDOG=1")
"""
TRACER = """import ctypes, sys, time
PTRACE_SEIZE = 0x4206
assert ctypes.CDLL(None, use_errno=True).ptrace(PTRACE_SEIZE, int(sys.argv[1]), 0, 0) == 0
print("traced", flush=True)
time.sleep(1000)
"""

VISITORS = """import socket, time
while True:
    socket.create_connection(("127.0.0.1", 80)).close()
    time.sleep(0.02)
"""

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True, slots=True)
class Case:
    """A site with its mistake, and what is found of it at warning or worse; nothing where there is none."""

    httpd: str | None = None  # what its virtual host has besides
    nginx: str | None = None
    root: str = "{live}"
    is_link: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    owner_of_link: int = 0
    inner_link: int = -1  # the owner of what a link in the tree leads to
    expected: dict[str, str] = field(default_factory=dict)


def options(words: str) -> str:
    return f"<Directory /srv/{{name}}>\nOptions {words}\n</Directory>"


def pool(name: str) -> str:
    return f'<FilesMatch "\\.php$">\nSetHandler "proxy:unix:/run/php/{name}.sock|fcgi://localhost"\n</FilesMatch>'


def pausing_with(**rules: object) -> dict[str, Any]:
    return {"pause": rules}


CASES = {
    # Nothing wrong, however it is served.
    "plain": Case(httpd=""),
    "link": Case(httpd="", is_link=True),
    "below": Case(httpd="", is_link=True, root="{live}/public"),
    "fpm": Case(httpd=pool("www")),
    "front": Case(nginx=PHP_LOCATION.format(pool="www", more="")),
    "static": Case(httpd=options("SymLinksIfOwnerMatch"), is_link=True, inner_link=0),
    # How it is served.
    "refused": Case(httpd=options("Indexes"), is_link=True, expected={"links-refused": "warning"}),
    "owners": Case(
        httpd=options("SymLinksIfOwnerMatch"),
        is_link=True,
        owner_of_link=NOBODY,
        expected={"link-owner-differs": "warning"},
    ),
    "uploads": Case(
        httpd=options("SymLinksIfOwnerMatch"), inner_link=WWW_DATA, expected={"link-owner-differs": "warning"}
    ),
    "inner": Case(httpd=options("-FollowSymLinks"), inner_link=0, expected={"links-refused": "warning"}),
    "fixed": Case(
        httpd="", is_link=True, root="{live}.releases/old@000000000000", expected={"root-is-a-release": "warning"}
    ),
    "nowhere": Case(expected={"live-not-served": "warning"}),
    "cached": Case(nginx="open_file_cache max=100;", expected={"open-file-cache": "warning"}),
    "disabled": Case(nginx="disable_symlinks on;", is_link=True, expected={"links-refused": "warning"}),
    "unresolved": Case(
        nginx=PHP_LOCATION.format(pool="www", more=""),
        is_link=True,
        expected={"document-root-not-resolved": "warning"},
    ),
    "half": Case(
        nginx=PHP_LOCATION.format(pool="www", more="fastcgi_param SCRIPT_FILENAME $request_filename;"),
        is_link=True,
        expected={"document-root-not-resolved": "warning"},
    ),
    "crowded": Case(
        nginx=PHP_LOCATION.format(pool="www", more=RESOLVED), is_link=True, expected={"opcache-small": "warning"}
    ),
    # Stale code.
    "never": Case(httpd="php_admin_flag opcache.validate_timestamps off", expected={"opcache-never-looks": "warning"}),
    "blind": Case(httpd=pool("blind"), is_link=True, expected={"opcache-never-looks": "warning"}),
    "late": Case(httpd=pool("late"), expected={"opcache-looks-late": "warning"}),
    "archive": Case(httpd="", config={"mtime": "archive"}, expected={"opcache-same-times": "warning"}),
    "cwd": Case(httpd=pool("cwd"), is_link=True, expected={"opcache-without-cwd": "warning"}),
    "remembered": Case(httpd=pool("ttl"), is_link=True, expected={"realpath-remembered": "warning"}),
    # The pause.
    "several": Case(httpd="", config=pausing_with(unit="", max="100ms"), expected={"several-servers": "warning"}),
    "nobody": Case(httpd="", config=pausing_with(unit="nobody.service"), expected={"no-httpd": "warning"}),
    "watchdog": Case(httpd="", config=pausing_with(unit="fake.service"), expected={"watchdog-too-short": "error"}),
    "near": Case(
        httpd="", config=pausing_with(unit="fake.service", max="400ms"), expected={"watchdog-near": "warning"}
    ),
    "stopped": Case(
        httpd="", config=pausing_with(unit="", processes=["stopped"]), expected={"already-stopped": "warning"}
    ),
    "traced": Case(httpd="", config=pausing_with(unit="", processes=["traced"]), expected={"traced": "error"}),
    "narrow": Case(
        httpd="",
        config=pausing_with(unit="", processes=["narrow"], max="9s"),
        expected={"queue-would-overflow": "warning"},
    ),
    "slow": Case(httpd="", config=pausing_with(max="6s"), expected={"keepalive-too-short": "warning"}),
    "slowest": Case(
        httpd="",
        config=pausing_with(max="10s"),
        expected={"keepalive-too-short": "warning", "read-timeout-too-short": "warning"},
    ),
    "proxy": Case(
        nginx="keepalive_timeout 4s;",
        config=pausing_with(unit="", processes=["nginx"], max="4s"),
        expected={"keepalive-too-short": "warning"},
    ),
    "children": Case(httpd="", config=pausing_with(user="www-data"), expected={"master-left-out": "warning"}),
    "ended": Case(
        httpd="",
        config=pausing_with(unit="", processes=["php-fpm8.2"], max="2s"),
        expected={"fpm-terminates": "warning"},
    ),
    "unpaused": Case(httpd="", config=pausing_with(mode="never", unit="nobody.service", max="10s")),
}
# What holds for the host as a whole is tried one after the other.
ALONE = {"backlog-cut", "server-configuration-broken", "pause-not-tried", "servers-not-asked"}
# tests/unit/test_check_web.py has these.
ELSEWHERE = {"mapped-over-network", "left-stopped", "may-not-signal", "cannot-stop-init"}
# What is only good to know.
GOOD_TO_KNOW = {"opcache-looks", "opcache-room", "php-not-asked"}
# "httpd" is no word that is looked for elsewhere: it is the finding that httpd was found.
KNOWN = {"httpd"} | {code for case in CASES.values() for code in case.expected} | ALONE | ELSEWHERE | GOOD_TO_KNOW


@pytest.fixture(scope="module")
def root(package: Path) -> Path:
    sweep()
    return debian_root([*PACKAGES, *PHP, *dependencies(package)])


@pytest.fixture(scope="module")
def mpm() -> str:
    return "prefork"


@pytest.fixture(scope="module")
def host(root: Path) -> Iterator[Host]:
    with booted(root) as host:
        yield host


@pytest.fixture(scope="module")
def web(host: Host, package: Path, mpm: str) -> WebHost:
    """mod_php as Debian has it; php-fpm beside it, and nginx on another port."""
    web = WebHost(host)
    use_php(web, mpm)
    web.install(package, defaults=tomli_w.dumps(RULES))
    web.run("a2enmod", "--quiet", "proxy_fcgi")
    host.path("/etc/nginx/sites-enabled/default").unlink()
    return web


def add_site(host: Host, name: str, case: Case) -> None:
    live = f"/srv/{name}/www"
    tree = host.path(f"{live}.releases/old@000000000000" if case.is_link else live)
    (tree / "public").mkdir(parents=True)
    (tree / "index.html").write_text(name)
    if name != "static":
        for number in range(150 if name == "crowded" else 1):
            (tree / f"public/{number}.php").write_text("<?php")
    if case.is_link:
        link = host.path(live)
        link.symlink_to(f"www.releases/{tree.name}")
        os.lchown(link, case.owner_of_link, case.owner_of_link)
    if case.inner_link >= 0:
        shared = host.path(f"/srv/{name}/uploads")
        shared.mkdir()
        (shared / "file.txt").write_text(name)
        os.chown(shared, case.inner_link, case.inner_link)
        (tree / "uploads").symlink_to(f"/srv/{name}/uploads")
    at = case.root.format(live=live)
    if case.httpd is not None:
        more = case.httpd.format(name=name) if "{name}" in case.httpd else case.httpd
        host.write(f"/etc/apache2/sites-enabled/{name}.conf", HTTPD.format(name=name, root=at, more=more))
    if case.nginx is not None:
        host.write(f"/etc/nginx/sites-enabled/{name}", NGINX.format(name=name, root=at, more=case.nginx))
    host.write(f"/etc/swapd/sites/{name}.toml", tomli_w.dumps({"live": live, **case.config}))


def start_fakes(web: WebHost) -> None:
    """Services that stand for a web server: with a watchdog, stopped, traced, and with a short queue."""
    for number, name in enumerate(("httpd", "stopped", "traced", "narrow")):
        web.host.write(f"/usr/local/bin/{name}", PROGRAM, mode=0o755)
        watched = ["--property=Type=notify", "--property=WatchdogSec=600ms", "--unit=fake"]
        how = watched if name == "httpd" else [f"--unit={name}"]
        web.run(
            "systemd-run",
            "--quiet",
            *how,
            f"/usr/local/bin/{name}",
            str(9000 + number),
            "1" if name == "narrow" else "511",
        )
    wait_until(lambda: len(names := fakes(web)) == 4 and names, "the services' processes")
    web.run("systemctl", "kill", "--signal=STOP", "stopped")
    web.host.write("/root/trace.py", TRACER)
    pid = web.run("systemctl", "show", "--value", "--property=MainPID", "traced").strip()
    web.run("systemd-run", "--quiet", "--unit=tracer", "python3", "/root/trace.py", pid)
    wait_until(lambda: "TracerPid:\t0" not in web.host.path(f"/proc/{pid}/status").read_text(), "the tracer")
    # Connections for as long as it takes: the rate is what is measured.
    web.host.write("/root/visit.py", VISITORS)
    web.run("systemd-run", "--quiet", "--unit=visitors", "python3", "/root/visit.py")


def fakes(web: WebHost) -> list[str]:
    return [name for _, name, _ in web.host.processes() if name in ("httpd", "stopped", "traced", "narrow")]


def check(web: WebHost, *arguments: str, user: str = "root", above: str = "info") -> dict[str, dict[str, Any]]:
    """By site (empty: the host), what is found of what this part looks at, by code; ``above`` a severity."""
    said = json.loads(web.host.run("swapd", "check", "--json", *arguments, user=user, check=False).stdout)
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for finding in said["findings"]:
        if finding["severity"] != above and finding["problem"] in KNOWN:
            found[finding["site"] or ""][finding["problem"]] = finding
    return found


@pytest.fixture(scope="module")
def broken(told: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What is found with every mistake made, and matters."""
    matters = {
        site: {code: item for code, item in found.items() if item["severity"] != "info"} for site, found in told.items()
    }
    return {site: found for site, found in matters.items() if found}


@pytest.fixture(scope="module")
def told(web: WebHost) -> dict[str, dict[str, Any]]:
    """All that is found with every mistake made."""
    host = web.host
    for name, case in CASES.items():
        add_site(host, name, case)
    values = {
        "blind": "php_admin_value[opcache.validate_timestamps] = 0",
        "late": "php_admin_value[opcache.revalidate_freq] = 60",
        "cwd": "php_admin_flag[opcache.use_cwd] = off",
        "ttl": "php_value[realpath_cache_ttl] = 600",
        "short": "request_terminate_timeout = 2s",
    }
    pools = [
        f"[{name}]\nuser = www-data\nlisten = /run/php/$pool.sock\npm = static\npm.max_children = 1\n{line}\n"
        for name, line in {"www": "", **values}.items()
    ]
    host.path("/etc/php/8.2/fpm/pool.d/www.conf").unlink()
    host.write(POOL, "".join(pools))
    host.write(FPM_INI, "opcache.max_accelerated_files = 200\n")
    web.run("systemctl", "restart", "php8.2-fpm")
    web.run("systemctl", "restart", "nginx")
    web.run("systemctl", "restart", "apache2")
    start_fakes(web)
    return check(web, above="")


def test_each_mistake_is_found_where_it_is_and_nowhere_else(broken: dict[str, dict[str, Any]]) -> None:
    found = {site: {code: item["severity"] for code, item in items.items()} for site, items in broken.items()}
    assert found == {name: case.expected for name, case in CASES.items() if case.expected}


def test_what_there_is_to_know_is_told_to_who_wants_to(told: dict[str, dict[str, Any]]) -> None:
    facts = {code: item["facts"] for code, item in told["plain"].items()}
    assert facts.keys() == {"httpd", "opcache-looks"}
    assert (facts["httpd"]["mpm"], facts["httpd"]["services"]) == ("prefork", "apache2.service")
    assert int(facts["httpd"]["processes"]) > 1
    assert facts["opcache-looks"]["opcache.revalidate_freq"] == "2"
    assert told["link"]["realpath-remembered"]["facts"]["realpath_cache_ttl"] == "120"
    assert "opcache-room" not in told["crowded"]


@pytest.mark.usefixtures("told")
def test_visitors_get_what_check_says(web: WebHost) -> None:
    """A finding about links is a 403, and without one there is none."""
    about_links = {"links-refused", "link-owner-differs"}
    for name, case in CASES.items():
        if case.httpd is not None and (case.is_link or case.inner_link >= 0):
            path = "uploads/file.txt" if case.inner_link >= 0 else "index.html"
            status = fetch(web.host, f"{name}.test", path).status
            assert (status == 403) == bool(about_links & case.expected.keys()), (name, status)


def test_each_finding_says_why_and_what_to_do(broken: dict[str, dict[str, Any]]) -> None:
    for finding in (finding for found in broken.values() for finding in found.values()):
        assert all(finding[key] for key in ("what", "why", "remedy")), finding


@pytest.fixture
def whole(web: WebHost, broken: dict[str, dict[str, Any]]) -> WebHost:
    """The host after the mistakes: one site is left, in which there is none."""
    del broken
    for name in CASES:
        if name != "plain":
            web.host.path(f"/etc/swapd/sites/{name}.toml").unlink(missing_ok=True)
    return web


def test_a_queue_that_the_kernel_cuts_and_no_program_that_tells_of_php(whole: WebHost) -> None:
    most = whole.run("sysctl", "-n", "net.core.somaxconn").strip()
    whole.host.write("/etc/apache2/conf-enabled/backlog.conf", "ListenBacklog 100000\n")
    whole.run("mv", "/usr/bin/php8.2", "/usr/bin/php", "/root/")
    found = check(whole, above="")["plain"]
    whole.run("mv", "/root/php8.2", "/root/php", "/usr/bin/")
    assert found["php-not-asked"]["severity"] == "info"
    assert [code for code, item in found.items() if item["severity"] != "info"] == ["backlog-cut"]
    finding = found["backlog-cut"]
    assert finding["facts"] == {"backlog": "100000", "somaxconn": most}
    whole.host.path("/etc/apache2/conf-enabled/backlog.conf").unlink()


@pytest.mark.parametrize("file", ["/etc/apache2/conf-enabled/broken.conf", "/etc/nginx/conf.d/broken.conf"])
def test_a_configuration_that_a_server_does_not_read(whole: WebHost, file: str) -> None:
    whole.host.write(file, "Nonsense;\n")
    found = check(whole)
    assert {site: list(codes) for site, codes in found.items()} == {"": ["server-configuration-broken"]}
    assert "Nonsense" in found[""]["server-configuration-broken"]["why"]
    whole.host.path(file).unlink()


def test_who_is_not_root_does_not_know_whether_httpd_may_be_paused(whole: WebHost) -> None:
    found = check(whole, user=UPLOADER)
    assert {code: item["severity"] for code, item in found["plain"].items()} == {"pause-not-tried": "unknown"}
    assert {code: item["severity"] for code, item in found[""].items()} == {"servers-not-asked": "unknown"}


def test_a_host_as_debian_has_it_is_told_of_in_one_line(whole: WebHost) -> None:
    """mod_php with its OPcache, beside php-fpm and nginx; and what there is to know, for who wants to."""
    whole.run("swapd", "init", "plain", "--live", "/srv/plain/www")
    assert whole.run("swapd", "check") == "nothing is wrong: plain (exchange)\n"

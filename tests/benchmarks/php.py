"""What visitors of a PHP site get while it is swapped by each of swapd's strategies: pages of one release, or not.

A page includes five files slowly; the OPcache is as PHP ships it. Every swap is a rollback by the command, with all
that belongs to it.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.server import SOURCE, dependencies
from tests.benchmarks.table import Row, milliseconds, quantile, table
from tests.host.machine import booted, sweep
from tests.host.package import CHECKOUT
from tests.host.pages import PHP, Visitors, pack_pages, use_php
from tests.host.releases import Packed
from tests.host.roots import debian_root
from tests.host.webhost import PACKAGES, WebHost

STRATEGIES = ("pinned", "symlink", "exchange", "rename")
SERVERS = {"prefork": "prefork, mod_php", "event": "event, php-fpm"}
SWAPS, QUICK_SWAPS = 50, 8
RATE = 40  # pages a second
WWW = "/srv/www"
TITLES = ("swapped by", "swaps", "asked", "failed", "mixed", "stale", "of", "p50", "p99", "max")
LEGEND = """\
Open-loop: {rate} pages a second, each of five files, with 8 ms before each; p50 to max are milliseconds from request to
answer. Each swap is one command (swapd rollback).

failed  no answer, no 200, or a part of the page missing
mixed   one page with parts of both releases
stale   asked after the command had ended, answered with the release before it; of those asked in such a time"""
VHOST = """
<VirtualHost *:80>
    ServerName {site}.test
    DocumentRoot {www}/{site}
    IncludeOptional /etc/swapd/apache/{site}.conf
    <Directory {www}>
        Require all granted
        Options FollowSymLinks
    </Directory>
</VirtualHost>
"""


def measure(*, is_quick: bool) -> str:
    """Every strategy behind both of PHP's ways into Apache, as a table."""
    rows: list[Row | str] = []
    sweep()
    root = debian_root([*PACKAGES, *PHP, *dependencies()])
    for mpm, name in SERVERS.items():
        rows.append(name)
        with booted(root) as host, tempfile.TemporaryDirectory(prefix="swapd-bench-") as directory:
            web = WebHost(host)
            releases = _install(web, mpm, Path(directory))
            for strategy in STRATEGIES:
                visitors = _measure_one(web, strategy, releases, QUICK_SWAPS if is_quick else SWAPS)
                rows.append(_row(strategy, visitors))
                print(f"  {name}: {strategy}", flush=True)
        rows.append("")
    return "\n".join(["PHP while it is swapped", "", table(TITLES, rows[:-1]), "", LEGEND.format(rate=RATE)])


def _install(web: WebHost, mpm: str, directory: Path) -> dict[str, Packed]:
    """The source tree, and a site for each strategy, with both releases."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "swapd", web.host.path(SOURCE) / "swapd", ignore=ignored)
    web.run("python3", "-m", "compileall", "-q", SOURCE)
    web.run("groupadd", "--system", "swapd")
    web.run("mkdir", WWW)
    web.run("mount", "-t", "tmpfs", "tmpfs", WWW)
    web.run("a2enmod", "--quiet", "rewrite")
    use_php(web, mpm)
    releases = {name: pack_pages(directory, name) for name in ("one", "two")}
    for site in STRATEGIES:
        web.host.write(f"/etc/apache2/sites-available/{site}.conf", VHOST.format(site=site, www=WWW))
        web.run("a2ensite", "--quiet", site)
        _swapd(web, "init", site, "--live", f"{WWW}/{site}", "--strategy", site, "--no-restart")
    web.run("systemctl", "reload", "apache2")
    for packed in releases.values():
        shutil.copy(packed.tarball, web.host.path("/root"))
        for site in STRATEGIES:
            _swapd(web, "deploy", site, f"/root/{packed.tarball.name}")
    return releases


def _swapd(web: WebHost, *arguments: str) -> None:
    web.run("env", f"PYTHONPATH={SOURCE}", "python3", "-m", "swapd", *arguments)


def _measure_one(web: WebHost, site: str, releases: dict[str, Packed], swaps: int) -> Visitors:
    with _visited(web, site) as visitors:
        names = itertools.islice(itertools.cycle(releases), swaps)
        visitors.during(lambda name: _swapd(web, "rollback", site, releases[name].release), names)
    return visitors


@contextmanager
def _visited(web: WebHost, site: str) -> Iterator[Visitors]:
    with Visitors(web.host, f"{site}.test", RATE) as visitors:
        time.sleep(1)  # until the caches are as they are on a site that is visited
        yield visitors


def _row(strategy: str, visitors: Visitors) -> Row:
    count = visitors.count()
    times = [(visit.done - visit.sent) * 1000 for visit in visitors.visits]
    figures = [str(count[key]) for key in ("asked", "failed", "mixed", "stale", "judged")]
    latencies = [milliseconds(quantile(times, share)) for share in (0.5, 0.99)]
    return [strategy, str(len(visitors.swaps)), *figures, *latencies, milliseconds(max(times))]

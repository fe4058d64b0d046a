"""pinned on a host with PHP: mod_php under prefork, and php-fpm behind event; the OPcache at its defaults.

What must hold: a page that includes five files slowly is of one release, however many swaps there are meanwhile; nobody
is paused; no release's path shows in what visitors get. And a deployment that visitors would not see is none.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.host import journal
from tests.host.conftest import Expected
from tests.host.machine import Host, booted, sweep, wait_until
from tests.host.package import dependencies
from tests.host.pages import PHP, SIGNALS, Visitors, pack_pages, use_php
from tests.host.releases import Packed
from tests.host.roots import debian_root
from tests.host.schedule import TIMEOUT
from tests.host.webhost import MPMS, PACKAGES, Site, WebHost
from tests.support.tarballs import touch

RATE = 40  # pages a second, each of which takes a twentieth
SWAPS = 26  # under each of the two
LIVE = "/var/www/shop"
SNIPPET = "/etc/swapd/apache/shop.conf"
VHOST = """
<VirtualHost *:80>
    ServerName shop.test
    DocumentRoot {live}
    {include}
    Alias /media /srv/media
    <Directory /srv/media>
        Require all granted
    </Directory>
    <Directory {live}>
        AllowOverride All
        Options FollowSymLinks
        Require all granted
    </Directory>
</VirtualHost>
"""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def root(package: Path) -> Path:
    sweep()
    return debian_root([*PACKAGES, *PHP, *dependencies(package)])


@pytest.fixture(scope="module", params=["prefork", "event"])
def mpm(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def host(root: Path, mpm: str) -> Iterator[Host]:
    del mpm
    with booted(root) as host:
        yield host


@pytest.fixture(scope="module")
def web(host: Host, package: Path, mpm: str) -> WebHost:
    """Apache with PHP as Debian's documentation has it for the module ``mpm``, and swapd."""
    web = WebHost(host)
    use_php(web, mpm)
    web.install(package)
    return web


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Packed]:
    directory = tmp_path_factory.mktemp("pages")
    return {name: pack_pages(directory, name) for name in ("one", "two")}


@pytest.fixture(scope="module")
def site(web: WebHost, releases: dict[str, Packed]) -> Site:
    return pin_site(web, releases)


def pin_site(web: WebHost, releases: dict[str, Packed]) -> Site:
    """A pinned site whose route is in force, with both releases kept and the second one live."""
    write_vhost(web, f"IncludeOptional {SNIPPET}")
    web.host.write("/srv/media/picture.txt", "a picture\n")
    web.run("a2ensite", "--quiet", "shop")
    web.run("a2enmod", "--quiet", "rewrite")
    web.run("systemctl", "restart", "apache2")
    web.run("swapd", "init", "shop", "--live", LIVE, "--strategy", "pinned")
    web.run("systemctl", "reload", "apache2")
    site = Site(web, "shop", LIVE)
    for packed in releases.values():
        marker = site.deploy(packed.tarball)
        assert marker.outcome == "live", marker.content
        assert "nothing was paused" in marker["reason"]
    return site


def write_vhost(web: WebHost, include: str) -> None:
    web.host.write("/etc/apache2/sites-available/shop.conf", VHOST.format(live=LIVE, include=include))


def ask(host: Host, path: str) -> tuple[int, str, str]:
    """A request with this very path: status, Location, body."""

    def get() -> tuple[int, str, str]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", 80, timeout=TIMEOUT)) as connection:
            connection.putrequest("GET", path, skip_host=True)
            connection.putheader("Host", "shop.test")
            connection.endheaders()
            response = connection.getresponse()
            return response.status, response.getheader("Location", ""), response.read().decode(errors="replace")

    return host.in_network(get)


def variables(host: Host, path: str) -> dict[str, str]:
    """What the application is told that answers at the path."""
    status, _, body = ask(host, path)
    assert status == 200, body
    return dict(line.split("=", 1) for line in body.splitlines())


class TestUrls:
    def tree(self, site: Site, releases: dict[str, Packed]) -> str:
        assert site.tree().name == releases["two"].release
        return f"{LIVE}.releases/{releases['two'].release}"

    @pytest.mark.parametrize(
        ("path", "script", "info", "query"),
        [
            ("/info.php", "/info.php", "", ""),
            ("/info.php/more/of%20it?q=a%20b&c=%3F", "/info.php", "/more/of it", "q=a%20b&c=%3F"),
            ("/front/some/page?x=1", "/front/index.php", "", "x=1"),
            ("/based/some/page?x=1", "/based/index.php", "", "x=1"),
            ("/sub/", "/sub/index.php", "", ""),
        ],
    )
    def test_what_applications_are_told(
        self, site: Site, releases: dict[str, Packed], mpm: str, path: str, script: str, info: str, query: str
    ) -> None:
        tree = self.tree(site, releases)
        told = variables(site.web.host, path)
        assert told["FILE"] == told["SCRIPT_FILENAME"] == f"{tree}{script}"
        assert told["SWAPD_ROOT"] == tree
        # With mod_php it is the server's own, which nothing can change for a request.
        assert told["DOCUMENT_ROOT"] == (LIVE if mpm == "prefork" else tree)
        assert (told["SCRIPT_NAME"], told["QUERY_STRING"]) == (script, query)
        assert told["PHP_SELF"] == f"{script}{info}"
        assert told["PATH_INFO"] == info

    @pytest.mark.parametrize(
        ("path", "location"), [("/sub", "/sub/"), ("/sub?x=1", "/sub/?x=1"), ("/media", "/media/")]
    )
    def test_redirects_name_no_release(self, site: Site, path: str, location: str) -> None:
        status, found, body = ask(site.web.host, path)
        assert (status, found) == (301, f"http://shop.test{location}")
        assert ".releases" not in body

    @pytest.mark.parametrize(
        "path",
        [
            "/../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/..%2f..%2fetc/passwd",
            "//etc/passwd",
            "/etc/passwd",
            "/./../one",
            f"{LIVE}.releases/",
            "/shop.releases/",
            "/%25%7Benv:PATH%7D/",
            "/%24%7Bswapd-shop:live%7D/",
            "/front/.htaccess",
            "/info.php%00.txt",
            "/%0a/etc/passwd",
            "/.swapd-route/",
            "/.swapd-route/none",
            "*",
            "http://shop.test/../etc/passwd",
        ],
    )
    def test_hostile_ones_get_nothing(self, site: Site, path: str) -> None:
        status, location, body = ask(site.web.host, path)
        assert 400 <= status < 500, (status, location)
        assert "root:" not in body
        assert ".releases" not in location

    def test_files_come_as_they_are_whatever_they_are_called(self, site: Site, releases: dict[str, Packed]) -> None:
        for path in ("index.html", "größe & maß/what? 100%.txt"):
            assert ask(site.web.host, f"/{quote(path)}") == (200, "", (releases["two"].tree / path).read_text())

    def test_other_aliases_are_not_hidden(self, site: Site) -> None:
        assert ask(site.web.host, "/media/picture.txt") == (200, "", "a picture\n")
        assert ask(site.web.host, "/icons/blank.gif")[0] == 200


def check_swaps(site: Site, releases: dict[str, Packed], count: int) -> None:
    """So many swaps with visitors meanwhile, each of whom gets the right release, and one."""
    with Visitors(site.web.host, "shop.test", RATE) as visitors:
        names = itertools.islice(itertools.cycle(releases), count)
        visitors.during(lambda name: site.web.run("swapd", "rollback", "shop", releases[name].release), names)
    noticed = visitors.count()
    print(noticed)
    assert noticed["judged"] > count, "too few for a judgement"
    wrong = {key: noticed[key] for key in ("failed", "mixed", "stale") if noticed[key]}
    assert not wrong, [visit for visit in visitors.visits if visit.failure or visit.is_mixed][:5]
    assert {visit.marks[0] for visit in visitors.visits} == {"one", "two"}


def test_a_page_is_of_one_release_whatever_is_swapped_meanwhile(site: Site, releases: dict[str, Packed]) -> None:
    mark = journal.mark(site.web.host)
    check_swaps(site, releases, SWAPS)
    told = [record for record in site.records(after=mark) if record.get("SWAPD_OUTCOME") == "live"]
    assert len(told) == SWAPS
    assert not any("SWAPD_PAUSE_USEC" in record for record in told), "somebody was paused"
    assert {record["SWAPD_STRATEGY"] for record in told} == {"pinned"}


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("module", MPMS)
def test_many_swaps_under_every_module(root: Path, package: Path, releases: dict[str, Packed], module: str) -> None:
    with booted(root) as host:
        web = WebHost(host)
        use_php(web, module)
        web.install(package)
        check_swaps(pin_site(web, releases), releases, 200)


def test_a_deployment_that_visitors_would_not_see_is_refused(
    web: WebHost, releases: dict[str, Packed], expected: Expected
) -> None:
    web.run("a2enmod", "--quiet", "rewrite")
    web.add_vhost("late", "/var/www/late")
    web.run("swapd", "init", "late", "--live", "/var/www/late", "--strategy", "pinned")
    site = Site(web, "late", "/var/www/late")
    tarball = releases["one"].tarball
    for problem in ("route-not-included", "route-not-in-force"):
        expected.warning(SWAPD_OUTCOME="failed", SWAPD_PROBLEM=problem)
    marker = site.deploy(tarball)
    assert (marker.outcome, marker["problem"]) == ("failed", "route-not-included")
    assert "IncludeOptional /etc/swapd/apache/late.conf" in marker["hint"]
    assert not web.host.path(site.live).exists()

    vhost = web.host.path("/etc/apache2/sites-available/late.conf")
    vhost.write_text(vhost.read_text().replace("ServerName", "Include /etc/swapd/apache/late.conf\n    ServerName"))
    marker = site.outcome_after(lambda: touch(site.dropped(tarball.name)), tarball.name)
    assert (marker.outcome, marker["problem"]) == ("failed", "route-not-in-force")

    web.run("systemctl", "reload", "apache2")
    marker = site.outcome_after(lambda: touch(site.dropped(tarball.name)), tarball.name)
    assert marker.outcome == "live", marker.content
    web.run("a2dissite", "--quiet", "late")
    web.run("systemctl", "reload", "apache2")


def test_what_apache_lacks_is_said_and_nothing_is_left(web: WebHost, site: Site) -> None:
    del site  # for which Apache has what it needs
    web.run("a2dissite", "--quiet", "shop")
    web.run("a2dismod", "--quiet", "--force", "rewrite")
    try:
        done = web.host.run(
            *("swapd", "init", "early", "--live", "/var/www/early", "--strategy", "pinned"), check=False
        )
    finally:
        web.run("a2enmod", "--quiet", "rewrite")
        web.run("a2ensite", "--quiet", "shop")
    assert done.returncode == 1
    assert "a2enmod rewrite" in done.stderr
    assert not list(web.host.path("/etc/swapd/apache").glob("*early*"))
    assert "Syntax OK" in web.host.run("apache2ctl", "configtest").stderr
    web.run("swapd", "init", "early", "--live", "/var/www/early", "--strategy", "pinned")
    assert web.host.path("/etc/swapd/apache/early.conf").exists()


def test_a_map_that_is_lost_takes_nobodys_site_away(
    site: Site, releases: dict[str, Packed], expected: Expected
) -> None:
    web = site.web
    live = releases[site.tree().name.partition("@")[0]]
    web.host.path("/var/lib/swapd/shop/route.map").unlink()
    body = (live.tree / "index.html").read_text()
    assert ask(web.host, "/index.html") == (200, "", body)
    web.run("systemctl", "restart", "apache2")  # which does not start where a map is missing that it was told of
    assert ask(web.host, "/index.html") == (200, "", body)
    expected.warning(MESSAGE_ID=journal.RECOVERED)
    web.run("systemctl", "restart", "swapd")
    wait_until(lambda: web.host.path("/var/lib/swapd/shop/route.map").exists(), "the map", explain=web.describe)
    web.run("systemctl", "reload", "apache2")
    told = variables(web.host, "/info.php")
    assert told["FILE"] == f"{LIVE}.releases/{live.release}/info.php"


@pytest.mark.parametrize("path", ["/waiting.php", "/ssi/page.shtml"])
def test_a_request_goes_on_in_the_release_that_it_began_with(
    site: Site, releases: dict[str, Packed], path: str
) -> None:
    """However long it takes: it begins before several swaps, and includes a file, or asks for another page, after."""
    web, (one, two) = site.web, releases.values()
    web.run("rm", "-rf", SIGNALS)
    web.run("install", "--directory", "--mode=777", SIGNALS)
    web.run("swapd", "rollback", "shop", two.release)
    began = site.tree().name
    with web.host.connect(80) as visitor:
        visitor.sendall(f"GET {path} HTTP/1.0\r\nHost: shop.test\r\n\r\n".encode())
        wait_until(lambda: web.host.path(f"{SIGNALS}/began").exists(), "the page has begun", explain=web.describe)
        for packed in (one, two, one, two, one):
            web.run("swapd", "rollback", "shop", packed.release)
        assert site.tree().name == one.release
        web.host.write(f"{SIGNALS}/end", "")
        answer = b"".join(iter(lambda: visitor.recv(65536), b""))
    part = f"part={began.partition('@')[0]};"
    assert began == two.release
    assert answer.endswith(f"\r\n\r\n{part if path == '/waiting.php' else part * 2}".encode()), answer


def test_check_says_that_visitors_come_by_the_route(site: Site) -> None:
    said = json.loads(site.web.run("swapd", "check", "shop", "--json"))
    assert said["ok"]
    found = {finding["problem"]: finding["why"] for finding in said["findings"]}
    assert "http://shop.test:80" in found["route-in-force"]
    assert not {"route-unreadable", "route-astray", "route-outdated", "route-unknown"} & found.keys()


def test_check_says_where_the_daemon_could_not_ask_the_web_server(site: Site) -> None:
    """Its sandbox would keep it from that after the next restart."""
    drop_ins = "/etc/systemd/system/swapd.service.d"
    site.web.run("cp", "--archive", drop_ins, "/root/drop-ins")
    # Of all sites: what one of them opens is open to each.
    site.web.run("find", drop_ins, "-name", "site-*.conf", "-exec", "sed", "--in-place", "/AF_INET/d", "{}", "+")
    try:
        said = json.loads(site.web.run("swapd", "check", "shop", "--json"))
    finally:
        site.web.run("rm", "--recursive", drop_ins)
        site.web.run("mv", "/root/drop-ins", drop_ins)
    (found,) = (item for item in said["findings"] if item["problem"].startswith(("sandbox", "unit")))
    assert found["problem"] == "sandbox-differs"
    assert found["commands"] == [f"swapd init shop --live {LIVE}"]


NGINX = """
server {
    listen 80 default_server;
    include /etc/swapd/nginx/shop.conf;
    location ~ \\.php$ {
        include snippets/fastcgi-php.conf;
        fastcgi_param SCRIPT_FILENAME $realpath_root$fastcgi_script_name;
        fastcgi_param DOCUMENT_ROOT $realpath_root;
        fastcgi_pass unix:/run/php/php8.2-fpm.sock;
    }
}
"""


def test_nginx_follows_the_live_path(site: Site, releases: dict[str, Packed]) -> None:
    web = site.web
    web.run("a2dissite", "--quiet", "shop")
    web.run("systemctl", "stop", "apache2")
    web.host.write("/etc/nginx/sites-available/default", NGINX)
    web.run("systemctl", "start", "nginx")
    try:
        for name in ("one", "two", "one"):
            release = releases[name].release
            web.run("swapd", "rollback", "shop", release)
            assert ask(web.host, "/index.html") == (200, "", f"{name}\n")
            told = variables(web.host, "/info.php")
            tree = f"{LIVE}.releases/{release}"
            assert (told["DOCUMENT_ROOT"], told["FILE"]) == (tree, f"{tree}/info.php")
    finally:
        web.run("systemctl", "stop", "nginx")
        web.run("a2ensite", "--quiet", "shop")
        web.run("systemctl", "start", "apache2")

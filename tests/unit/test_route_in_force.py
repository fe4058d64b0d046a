"""What a web server includes for a pinned site, and whether the one that runs follows it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swapd.checks.routing import find_route
from swapd.host.apache import Force, look_at_route
from swapd.host.httpd_configuration import VirtualHost, find_including, read_directives
from swapd.host.routes import lead
from swapd.host.snippets import gather_surroundings, write_snippets
from swapd.model.config import Site, Strategy
from swapd.model.errors import Failed
from swapd.model.findings import Severity
from swapd.model.layout import Layout
from swapd.model.snippets import Alias, DirectoryBlock, find_token, is_unchanged
from swapd.stages.choose import choose
from tests.support.sites import make_site, prepare_route
from tests.support.trees import write_tree

MAIN = """\
# As Debian has it.
ServerRoot "/etc/apache2"
Define WWW {www}
Alias /icons/ "/usr/share/apache2/icons/"
<IfModule mod_cgi.c>
    ScriptAlias /cgi-bin/ \\
        /usr/lib/cgi-bin/
</IfModule>
Listen {port}
IncludeOptional sites-enabled/*.conf
"""
HOST = """\
<VirtualHost *:{port}>
    ServerName http://shop.test:80
    DocumentRoot "${{WWW}}/shop/public"
    {include}
    Alias /media /srv/media
    Alias /icons/ /srv/icons/
    <Directory "${{WWW}}/shop">
        # a remark
        AllowOverride All
        <Limit POST>
            Require valid-user
        </Limit>
    </Directory>
    <Directory ${{WWW}}/shop/public/uploads/>
        Require all denied
    </Directory>
</VirtualHost>
<VirtualHost *:{port}>
    ServerName other.test
    DocumentRoot /var/www/other
    Alias /other /srv/other
    <Directory /var/www/shop2>
        Require all denied
    </Directory>
</VirtualHost>
"""


class Answering:
    """A web server on a port of the loopback device, which answers as it is told to."""

    def __init__(self) -> None:
        self.answer: Callable[[str, str], str] = lambda _path, _host: ""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                lines = connection.recv(65536).decode().split("\r\n")
                if lines == [""]:
                    return
                host = next(line for line in lines if line.startswith("Host: ")).removeprefix("Host: ")
                location = self.answer(lines[0].split()[1], host)
                head = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\n\r\n" if location else "HTTP/1.1 404 No\r\n\r\n"
                connection.sendall(head.encode())

    def close(self) -> None:
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        self._listener.close()


@pytest.fixture
def server() -> Iterator[Answering]:
    server = Answering()
    yield server
    server.close()


def configure(root: Path, port: int, include: str) -> None:
    """Apache's configuration below a scratch root."""
    sites = root / "etc/apache2/sites-enabled"
    sites.mkdir(parents=True, exist_ok=True)
    (root / "etc/apache2/apache2.conf").write_text(MAIN.format(www=root / "www", port=port))
    (sites / "shop.conf").write_text(HOST.format(port=port, include=include))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = make_site(tmp_path, strategy="pinned")
    site.live.parent.mkdir()
    return site


def write(site: Site, document_root: str | None = None) -> list[str]:
    prepare_route(Layout(site.route.root))
    if not site.route.apache.read_text():
        site.route.apache.unlink()
    return [written.words for written in write_snippets(site, document_root, is_tested=False)]


class TestConfiguration:
    def test_what_httpd_has_already_is_taken_over(self, site: Site) -> None:
        configure(site.route.root, 80, f"Include {site.route.apache}")
        around = gather_surroundings(site)
        assert around.document_root == "public"
        # The last one that matches counts: a virtual host's own, of which the first one wins.
        assert list(around.aliases) == [
            Alias("ScriptAlias", "/cgi-bin/", "/usr/lib/cgi-bin/"),
            Alias("Alias", "/icons/", "/srv/icons/"),
            Alias("Alias", "/media", "/srv/media"),
        ]
        assert around.blocks == (
            DirectoryBlock("", ("AllowOverride All", "<Limit POST>", "Require valid-user", "</Limit>")),
            DirectoryBlock("public/uploads", ("Require all denied",)),
        )
        text = write_and_read(site)
        assert f'<Directory "{site.releases}/*/public/uploads">' in text
        assert "/srv/other" not in text

    @pytest.mark.parametrize(
        "include", ["Include {}", "IncludeOptional {}", 'Include "{}"', "IncludeOptional {}*", "Include {0.parent}/"]
    )
    def test_who_includes_it(self, site: Site, include: str) -> None:
        write(site)
        configure(site.route.root, 8080, include.format(site.route.apache))
        directives = read_directives(site.route.root)
        assert directives is not None
        hosts = find_including(directives, site.route.apache)
        assert hosts == [VirtualHost("shop.test", "127.0.0.1", 8080, is_encrypted=False)]

    @pytest.mark.parametrize(
        ("address", "found"),
        [
            ("*:443", ("127.0.0.1", 443)),
            ("_default_:80", ("127.0.0.1", 80)),
            ("192.0.2.1:8080", ("192.0.2.1", 8080)),
            ("[2001:db8::1]:80", ("2001:db8::1", 80)),
            ("192.0.2.1", ("192.0.2.1", 80)),
            ("*", ("127.0.0.1", 80)),
        ],
    )
    def test_where_a_virtual_host_is_asked(self, site: Site, address: str, found: tuple[str, int]) -> None:
        main = site.route.root / "etc/httpd/conf/httpd.conf"
        main.parent.mkdir(parents=True)
        main.write_text(f"<VirtualHost {address}>\nInclude {site.route.apache}\nSSLEngine on\n</VirtualHost>\n")
        directives = read_directives(site.route.root)
        assert directives is not None
        (host,) = find_including(directives, site.route.apache)
        assert (host.address, host.port, host.is_encrypted) == (*found, True)

    def test_one_that_includes_itself_ends(self, site: Site) -> None:
        main = site.route.root / "etc/apache2/apache2.conf"
        main.parent.mkdir(parents=True)
        main.write_text("Include apache2.conf\nInclude /etc/apache2/missing.conf\n</Nothing>\n<VirtualHost\n")
        assert read_directives(site.route.root)


def write_and_read(site: Site) -> str:
    write(site)
    return site.route.apache.read_text()


class TestWritten:
    def test_the_same_again_is_kept_and_a_token_stays(self, site: Site) -> None:
        text = write_and_read(site)
        assert is_unchanged(text)
        assert write(site) == [f"kept {site.route.apache}", f"kept {site.route.nginx}"]
        configure(site.route.root, 80, "")
        again = write_and_read(site)
        assert again != text
        assert find_token(again) == find_token(text) != ""

    def test_what_somebody_changed_is_not_overwritten(self, site: Site) -> None:
        text = write_and_read(site).replace("AliasPreservePath On", "AliasPreservePath On # mine")
        site.route.apache.write_text(text)
        configure(site.route.root, 80, "")
        assert "somebody has changed" in write(site)[0]
        assert site.route.apache.read_text() == text

    @pytest.mark.parametrize("document_root", [None, "", "web"])
    def test_the_document_root(self, site: Site, document_root: str | None) -> None:
        configure(site.route.root, 80, "")
        write(site, document_root)
        inner = {None: "/public", "": "", "web": "/web"}[document_root]
        assert f'Alias "{site.live.parent}/%{{env:SWAPD_TREE}}{inner}/"' in site.route.apache.read_text()
        assert f'root "{site.live}{inner}";' in site.route.nginx.read_text()

    @pytest.mark.parametrize(
        ("says", "problem", "hint"),
        [
            ("[ $# = 1 ] || { echo \"Invalid command 'RewriteMap'\"; exit 1; }", "server-refuses", "a2enmod rewrite"),
            ("[ $# = 1 ] || { echo \"Invalid command 'AliasPreservePath'\"; exit 1; }", "server-refuses", "2.4.58"),
            ("echo broken; exit 1", "server-configuration-broken", "Correct that"),
            ('[ -e {0} ] && {{ echo "with it, no"; exit 1; }} || exit 0', "server-refuses", "included"),
        ],
        ids=["a module is missing", "too old", "broken before", "with the rest"],
    )
    def test_what_the_server_refuses_is_not_left(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, says: str, problem: str, hint: str
    ) -> None:
        programs = site.route.root / "programs"
        programs.mkdir()
        says = says.format(site.route.apache) if "{0}" in says else says
        (programs / "apache2ctl").write_text(f"#!/bin/sh\n{says}\n")
        (programs / "apache2ctl").chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
        prepare_route(Layout(site.route.root))
        site.route.apache.unlink()
        with pytest.raises(Failed) as caught:
            write_snippets(site, None, is_tested=True)
        assert caught.value.problem == problem
        assert hint in caught.value.hint
        assert os.listdir(site.route.apache.parent) == []


class TestInForce:
    def follow(self, site: Site, server: Answering) -> None:
        """The server serves what the map names."""
        token = find_token(site.route.apache.read_text())

        def answer(path: str, host: str) -> str:
            is_asked = path == f"/.swapd-route/{token}" and host == "shop.test"
            return "http://route.swapd.invalid/shop.releases/shop-1%40111111111111" if is_asked else ""

        server.answer = answer
        lead(site, "shop.releases/shop-1@111111111111")

    def test_a_server_that_follows(self, site: Site, server: Answering) -> None:
        write(site)
        configure(site.route.root, server.port, f"Include {site.route.apache}")
        self.follow(site, server)
        assert look_at_route(site).force is Force.YES
        assert choose(site).strategy is Strategy.PINNED
        assert not choose(site).doubt

    def test_auto_takes_it_where_it_is_in_force_and_says_why(self, site: Site, server: Answering) -> None:
        auto = make_site(site.route.root)
        write(site)
        configure(site.route.root, server.port, f"Include {site.route.apache}")
        assert choose(auto).strategy is Strategy.SYMLINK
        self.follow(site, server)
        choice = choose(auto)
        assert choice.strategy is Strategy.PINNED
        assert "shop.test" in choice.reason

    def test_a_server_that_was_not_reloaded(self, site: Site, server: Answering) -> None:
        write(site)
        configure(site.route.root, server.port, f"Include {site.route.apache}")
        self.check_refused(site, "route-not-in-force", "reload")

    def test_a_server_that_serves_another_release(self, site: Site, server: Answering) -> None:
        write(site)
        configure(site.route.root, server.port, f"Include {site.route.apache}")
        self.follow(site, server)
        lead(site, "shop.releases/shop-2@222222222222")
        self.check_refused(site, "route-not-in-force", "eload")

    def test_nobody_includes_it(self, site: Site, server: Answering) -> None:
        write(site)
        configure(site.route.root, server.port, "")
        self.follow(site, server)
        self.check_refused(site, "route-not-included", f"IncludeOptional {site.route.apache}")

    def check_refused(self, site: Site, problem: str, hint: str) -> None:
        assert look_at_route(site).force is Force.NOT
        with pytest.raises(Failed) as caught:
            choose(site)
        assert caught.value.problem == problem
        assert hint in caught.value.hint

    def test_a_server_that_is_down(self, site: Site) -> None:
        write(site)
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        configure(site.route.root, port, f"Include {site.route.apache}")
        sight = look_at_route(site)
        assert sight.force is Force.UNKNOWN
        assert sight.issue is not None
        assert choose(site).doubt == sight.issue.message

    @pytest.mark.parametrize("is_included", [True, False])
    def test_nginx(self, site: Site, *, is_included: bool) -> None:
        write(site)
        server = site.route.root / "etc/nginx/sites-enabled/shop"
        server.parent.mkdir(parents=True)
        server.write_text(f"server {{ include {site.route.nginx}; }}" if is_included else "server { }")
        assert look_at_route(site).force is (Force.YES if is_included else Force.UNKNOWN)


class TestCheck:
    def problems(self, site: Site) -> set[str]:
        found = list(find_route(site, Layout(site.route.root)))
        assert all(finding.what and finding.why for finding in found)
        return {finding.problem for finding in found if finding.severity is not Severity.INFO}

    def test_all_is_well(self, site: Site, server: Answering) -> None:
        self.well(site, server)
        assert self.problems(site) == set()

    def well(self, site: Site, server: Answering) -> None:
        configure(site.route.root, server.port, f"Include {site.route.apache}")
        write(site)
        write_tree(site.releases / "shop-1@111111111111", {"index.html": "one"})
        site.live.symlink_to("shop.releases/shop-1@111111111111")
        TestInForce().follow(site, server)
        for path in (site.route.map.parent, *site.route.map.parent.parents):
            if path.is_relative_to(site.route.root):
                path.chmod(0o755)

    def test_a_map_that_httpd_cannot_read(self, site: Site, server: Answering) -> None:
        self.well(site, server)
        site.route.map.parent.chmod(0o700)
        assert self.problems(site) == {"route-unreadable"}
        site.route.map.parent.chmod(0o755)
        site.route.map.chmod(0o600)
        assert self.problems(site) == {"route-unreadable"}

    def test_a_file_that_somebody_has_changed_stays_so(self, site: Site, server: Answering) -> None:
        self.well(site, server)
        site.route.apache.write_text(f"{site.route.apache.read_text()}# mine\n")
        found = find_route(site, Layout(site.route.root))
        assert [item.problem for item in found if item.severity is Severity.INFO][1:] == ["route-changed"]

    def test_what_changed_since_it_was_written(self, site: Site, server: Answering) -> None:
        self.well(site, server)
        host = site.route.root / "etc/apache2/sites-enabled/shop.conf"
        host.write_text(host.read_text().replace("AllowOverride All", "AllowOverride None"))
        assert self.problems(site) == {"route-outdated"}
        write(site)
        assert self.problems(site) == set()

    def test_a_route_and_a_live_path_that_differ(self, site: Site, server: Answering) -> None:
        self.well(site, server)
        site.live.unlink()
        site.live.symlink_to("elsewhere")
        assert self.problems(site) == {"route-astray"}

    def test_auto_with_a_route_that_is_not_in_force(self, site: Site, server: Answering) -> None:
        self.well(site, server)
        server.answer = lambda _path, _host: ""
        assert self.problems(make_site(site.route.root)) == {"route-not-in-force"}

    @pytest.mark.parametrize(
        "line",
        [
            "AliasMatch ^/old/(.*) /srv/old/$1",
            "ProxyPassMatch ^/(.*\\.php)$ fcgi://127.0.0.1:9000{live}/$1",
            '<DirectoryMatch "^{live}/uploads">\nRequire all denied\n</DirectoryMatch>',
            "<Directory ~ {live}/up.*>\nRequire all denied\n</Directory>",
        ],
    )
    def test_what_cannot_be_taken_over(self, site: Site, server: Answering, line: str) -> None:
        host = site.route.root / "etc/apache2/sites-enabled/shop.conf"
        self.well(site, server)
        other = line.format(live=site.live.with_name("other"))
        host.write_text(f"<VirtualHost *:80>\nServerName other.test\n{other}\n</VirtualHost>\n{host.read_text()}")
        assert self.problems(site) == set()
        host.write_text(host.read_text().replace("Alias /media", f"{line.format(live=site.live)}\n    Alias /media"))
        assert self.problems(site) == {"route-left-out"}
        assert any("does not hold" in words for words in write(site))

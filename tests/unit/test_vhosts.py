"""What Apache says of its virtual hosts, and the directories that they serve."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from swapd.host.httpd_configuration import read_directives
from swapd.host.vhosts import find_served, read_apache
from swapd.model.vhosts import ServerDump, VirtualHostLine, parse_dump, parse_version

# What `apache2ctl -t -D DUMP_VHOSTS -D DUMP_RUN_CFG -D DUMP_MODULES` of Debian 12 said, some modules left out.
DEBIAN = """\
VirtualHost configuration:
[::1]:8080             bogus_host_without_reverse_dns (/etc/apache2/sites-enabled/many.conf:25)
127.0.0.1:8080         bogus_host_without_reverse_dns (/etc/apache2/sites-enabled/many.conf:25)
*:80                   is a NameVirtualHost
         default server one.macro.test (macro 'host' (defined on line 2 of "/etc/apache2/sites-enabled/many.conf") \
used on line 8 of "/etc/apache2/sites-enabled/many.conf":1)
         port 80 namevhost one.macro.test (macro 'host' (defined on line 2 of "/etc/apache2/sites-enabled/many.conf") \
used on line 8 of "/etc/apache2/sites-enabled/many.conf":1)
         port 80 namevhost shop.example.org (/etc/apache2/sites-enabled/shop.conf:2)
                 alias www.shop.example.org
                 alias shop
*:443                  is a NameVirtualHost
         default server shop.example.org (/etc/apache2/sites-enabled/many.conf:10)
         port 443 namevhost shop.example.org (/etc/apache2/sites-enabled/many.conf:10)
                 alias shop.example.org
                 wild alias *.shop.example.org
         port 443 namevhost blog.example.org (/etc/apache2/sites-enabled/my blog (new).conf:16)
                 alias www.blog.example.org
*:*                    any.example.org (/etc/apache2/sites-enabled/many.conf:21)
*:8443                 d.example.org (/etc/apache2/sites-enabled/many.conf:28)
ServerRoot: "/etc/apache2"
Main DocumentRoot: "/var/www/html"
Main ErrorLog: "/var/log/apache2/error.log"
Mutex default: dir="/var/run/apache2/" mechanism=default
Mutex rewrite-map: using_defaults
PidFile: "/var/run/apache2/apache2.pid"
Define: DUMP_VHOSTS
User: name="www-data" id=33
Group: name="www-data" id=33
Loaded Modules:
 core_module (static)
 alias_module (shared)
 mpm_event_module (shared)
 rewrite_module (shared)
"""
# `httpd -t -D DUMP_VHOSTS -D DUMP_RUN_CFG` of a fresh EL: no virtual host but the one of mod_ssl.
ENTERPRISE_LINUX = """\
VirtualHost configuration:
*:443                  localhost.localdomain (/etc/httpd/conf.d/ssl.conf:40)
ServerRoot: "/etc/httpd"
Main DocumentRoot: "/var/www/html"
Main ErrorLog: "/etc/httpd/logs/error_log"
Mutex lua-ivm-shm: using_defaults
Mutex default: dir="/etc/httpd/run/" mechanism=default
PidFile: "/etc/httpd/run/httpd.pid"
Define: DUMP_VHOSTS
User: name="apache" id=48 not_used
Group: name="apache" id=48 not_used
"""
MANY = "/etc/apache2/sites-enabled/many.conf"


class TestDump:
    def test_every_host_with_its_names_and_its_place(self) -> None:
        hosts = parse_dump(DEBIAN).hosts
        shop = VirtualHostLine(
            "shop.example.org", "*:80", "/etc/apache2/sites-enabled/shop.conf", 2, ("www.shop.example.org", "shop")
        )
        secure = VirtualHostLine(
            "shop.example.org", "*:443", MANY, 10, ("shop.example.org", "*.shop.example.org"), is_default=True
        )
        blog = VirtualHostLine(
            "blog.example.org",
            "*:443",
            "/etc/apache2/sites-enabled/my blog (new).conf",
            16,
            ("www.blog.example.org",),
        )
        assert {shop, secure, blog} <= set(hosts)
        assert len(hosts) == 8
        assert {(host.address, host.line) for host in hosts if host.is_default} == {
            *(("[::1]:8080", 25), ("127.0.0.1:8080", 25), ("*:80", 8), ("*:443", 10), ("*:*", 21), ("*:8443", 28)),
        }

    def test_a_macro_stands_where_it_is_used(self) -> None:
        (macro,) = (host for host in parse_dump(DEBIAN).hosts if host.name == "one.macro.test")
        assert (macro.file, macro.line) == (MANY, 8)
        served, left_out = find_served(ServerDump((macro,), "/etc/apache2", "/var/www/html"), [])
        assert (served, len(left_out)) == ((), 1), "what it serves is not guessed"

    def test_how_the_server_runs(self) -> None:
        dump = parse_dump(DEBIAN)
        assert (dump.server_root, dump.document_root) == ("/etc/apache2", "/var/www/html")
        assert (dump.user, dump.group) == ("www-data", "www-data")
        assert dump.modules == {"core_module", "alias_module", "mpm_event_module", "rewrite_module"}

    def test_another_distribution(self) -> None:
        dump = parse_dump(ENTERPRISE_LINUX)
        place = ("/etc/httpd/conf.d/ssl.conf", 40)
        assert dump.hosts == (VirtualHostLine("localhost.localdomain", "*:443", *place, is_default=True),)
        assert (dump.user, dump.document_root) == ("apache", "/var/www/html")

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "\x1b[2J",
            "default server",
            "*:80 is a NameVirtualHost\ndefault server x\nalias y",
            "alias z",
            "a b (c:d)",
        ],
    )
    def test_what_is_no_dump(self, text: str) -> None:
        assert parse_dump(text) == ServerDump()

    @pytest.mark.parametrize(
        ("text", "version"),
        [
            ("Server version: Apache/2.4.71 (Debian)\nServer built:   2026-11-12T08:58:41", (2, 4, 71)),
            ("Server version: Apache/2.4.62 (Red Hat Enterprise Linux)", (2, 4, 62)),
            ("nginx version: nginx/1.22.1", None),
        ],
    )
    def test_versions(self, text: str, version: object) -> None:
        assert parse_version(text) == version


MAIN = """\
ServerRoot /etc/apache2
Define BASE /srv
DocumentRoot /var/www/html
User www-data
Listen 80
IncludeOptional sites-enabled/*.conf
"""


def write(root: Path, text: str, main: str = MAIN) -> None:
    """Apache's configuration below a scratch root, as Debian has it."""
    sites = root / "etc/apache2/sites-enabled"
    sites.mkdir(parents=True, exist_ok=True)
    (root / "etc/apache2/apache2.conf").write_text(main)
    (sites / "site.conf").write_text(textwrap.dedent(text))


def roots(root: Path) -> dict[str, str]:
    """What each name is served from."""
    server = read_apache(root)
    assert server is not None
    return {" ".join(item.names): str(item.root) for item in server.served}


def host(content: str, address: str = "*:80") -> str:
    lines = "".join(f"    {line}\n" for line in content.split("; "))
    return f"<VirtualHost {address}>\n{lines}</VirtualHost>\n"


class TestServed:
    @pytest.mark.parametrize(
        ("content", "served"),
        [
            ("ServerName shop.test; DocumentRoot /srv/shop", {"shop.test": "/srv/shop"}),
            ("ServerName https://Shop.test:443; DocumentRoot ${BASE}/shop", {"shop.test": "/srv/shop"}),
            ("DocumentRoot /srv/shop", {"": "/srv/shop"}),
            (
                'ServerName a.test; ServerAlias b.test *.b.test; DocumentRoot "/srv/a b"',
                {"a.test b.test *.b.test": "/srv/a b"},
            ),
            ("ServerName shop.test; DocumentRoot htdocs", {"shop.test": "/etc/apache2/htdocs"}),
            ("ServerName shop.test", {"shop.test": "/var/www/html"}),
            ("DocumentRoot /srv/one; DocumentRoot /srv/two", {"": "/srv/two"}),
            ("DocumentRoot /srv/shop; ProxyPass /api http://127.0.0.1:3000/", {"": "/srv/shop"}),
            ("DocumentRoot /srv/shop; <Location /api>; ProxyPass http://127.0.0.1/; </Location>", {"": "/srv/shop"}),
            ("DocumentRoot /srv/shop; ProxyPass / !", {"": "/srv/shop"}),
            # Nobody gets these files.
            ("DocumentRoot /srv/shop; ProxyPass / http://127.0.0.1:3000/", {}),
            ("DocumentRoot /srv/shop; <Location />; ProxyPass http://127.0.0.1:3000/; </Location>", {}),
            ("ServerName shop.test; Redirect permanent / https://shop.test/", {}),
            ("ServerName shop.test; RedirectMatch ^/(.*)$ https://shop.test/$1", {}),
        ],
    )
    def test_the_directory_of_a_host(self, tmp_path: Path, content: str, served: dict[str, str]) -> None:
        write(tmp_path, host(content))
        assert roots(tmp_path) == served

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            ("ServerName shop.test; VirtualDocumentRoot /srv/%0", "VirtualDocumentRoot"),
            ("DocumentRoot ${SITE}/shop", "variable"),
        ],
    )
    def test_one_that_nobody_can_tell(self, tmp_path: Path, content: str, why: str) -> None:
        write(tmp_path, host(content))
        server = read_apache(tmp_path)
        assert server is not None
        assert server.served == ()
        (words,) = server.left_out
        assert why in words

    def test_a_host_on_several_addresses_is_one(self, tmp_path: Path) -> None:
        write(tmp_path, host("DocumentRoot /srv/shop", "127.0.0.1:80 [::1]:80"))
        server = read_apache(tmp_path)
        assert server is not None
        (served,) = server.served
        assert served.addresses == ("127.0.0.1:80", "[::1]:80")
        assert served.place == f"{tmp_path}/etc/apache2/sites-enabled/site.conf:1"

    def test_no_virtual_host_at_all(self, tmp_path: Path) -> None:
        write(tmp_path, "ServerName www.example.org\n")
        server = read_apache(tmp_path)
        assert server is not None
        (served,) = server.served
        assert (served.names, served.root) == (("www.example.org",), Path("/var/www/html"))
        assert (served.place, served.addresses) == (f"{tmp_path}/etc/apache2/apache2.conf:3", ("80",))

    def test_no_apache_at_all(self, tmp_path: Path) -> None:
        assert read_apache(tmp_path) is None

    def test_only_what_the_server_says_is_in_force_counts(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            f"<IfDefine OTHER>\n{host('DocumentRoot /srv/other')}</IfDefine>\n{host('DocumentRoot /srv/shop')}",
        )
        file = str(tmp_path / "etc/apache2/sites-enabled/site.conf")
        dump = ServerDump((VirtualHostLine("x", "*:80", file, 6),), "/etc/apache2", "/var/www/html")
        served, _ = find_served(dump, read_directives(tmp_path) or [])
        assert [str(item.root) for item in served] == ["/srv/shop"]

    def test_a_server_whose_files_are_elsewhere(self, tmp_path: Path) -> None:
        """Its own word leads to the file, which no main file of a distribution includes."""
        file = tmp_path / "opt/web/hosts.conf"
        file.parent.mkdir(parents=True)
        file.write_text("\n" + host("ServerName shop.test; Include root.inc"))
        (file.parent / "root.inc").write_text("DocumentRoot pages\n")
        dump = ServerDump((VirtualHostLine("shop.test", "*:80", str(file), 2),), str(file.parent))
        served, _ = find_served(dump, [])
        assert [(item.names, item.root) for item in served] == [(("shop.test",), file.parent / "pages")]

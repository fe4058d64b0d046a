"""What of httpd's configuration holds where: conditions, roots, links; as httpd itself was seen to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from swapd.host.httpd_configuration import Directive, read_directives
from swapd.host.httpd_scopes import (
    Links,
    find_links_rule,
    find_serving_hosts,
    find_value,
    is_by,
    parse_timeout,
    select_in_force,
)

MODULES = frozenset({"core_module", "mpm_prefork_module", "php_module", "setenvif_module", "proxy_fcgi_module"})


def read(root: Path, text: str) -> list[Directive]:
    file = root / "etc/apache2/apache2.conf"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return read_directives(root) or []


@pytest.mark.parametrize(
    ("condition", "is_met"),
    [
        ("mpm_prefork_module", True),
        ("!mpm_prefork_module", False),
        ("mpm_event_module", False),
        ("mod_php8.c", True),
        ("!mod_php8.c", False),
        ("prefork.c", True),
        ("worker.c", False),
        ("mod_setenvif.c", True),
        ("mod_userdir.c", False),
        ("!mod_userdir.c", True),
    ],
)
def test_conditions_about_modules(tmp_path: Path, condition: str, is_met: bool) -> None:
    found = read(tmp_path, f"<IfModule {condition}>\n<IfModule core.c>\nTimeout 5\n</IfModule>\n</IfModule>")
    assert [item.name for item in select_in_force(found, MODULES)] == (["timeout"] if is_met else [])
    assert len(select_in_force(found, frozenset())) == 1  # nothing is known of any module


# The first two columns were put into <Directory> of /var/www and of /var/www/shop, a link to a release in which there
# is a link to what belongs to somebody else; then both were asked for by HTTP (Apache 2.4.71).
@pytest.mark.parametrize(
    ("above", "own", "live", "inner"),
    [
        ("Options None", "Options FollowSymLinks", Links.REFUSED, Links.FOLLOWED),
        ("Options FollowSymLinks", "Options None", Links.FOLLOWED, Links.REFUSED),
        ("Options FollowSymLinks", "Options SymLinksIfOwnerMatch", Links.FOLLOWED, Links.OWNERS),
        ("Options SymLinksIfOwnerMatch", "Options +FollowSymLinks", Links.OWNERS, Links.OWNERS),
        ("Options SymLinksIfOwnerMatch", "Options FollowSymLinks", Links.OWNERS, Links.FOLLOWED),
        ("Options FollowSymLinks SymLinksIfOwnerMatch", "Options +Indexes", Links.OWNERS, Links.OWNERS),
        ("Options FollowSymLinks", "Options +SymLinksIfOwnerMatch", Links.FOLLOWED, Links.OWNERS),
        ("Options FollowSymLinks", "Options -FollowSymLinks", Links.FOLLOWED, Links.REFUSED),
        ("Options All", "Options Indexes", Links.FOLLOWED, Links.REFUSED),
        ("Options Indexes", "Options FollowSymLinks", Links.REFUSED, Links.FOLLOWED),
        ('Options ""', "Options", Links.FOLLOWED, Links.FOLLOWED),
        ("AllowOverride None", "AllowOverride None", Links.FOLLOWED, Links.FOLLOWED),
    ],
)
def test_links_are_followed_as_options_say(tmp_path: Path, above: str, own: str, live: Links, inner: Links) -> None:
    text = f"""
<VirtualHost *:80>
DocumentRoot /var/www/shop
<Directory /var/www/shop>
{own}
</Directory>
</VirtualHost>
<Directory /var/www/>
{above}
</Directory>
<Directory /srv>
Options None
</Directory>
<Location />
Options None
</Location>
"""
    found = read(tmp_path, text)
    (host,) = find_serving_hosts(found, Path("/var/www/shop"))
    assert find_links_rule(found, host, "/var/www") is live
    assert find_links_rule(found, host, "/var/www/shop/inner") is inner


@pytest.mark.parametrize(
    ("section", "holds"),
    [
        ("<Directory />", True),
        ("<Directory /home/*/www>", True),
        ("<Directory /home/*>", True),
        ("<Directory /*/www>", False),
        ('<Directory ~ "^/home/.*/www">', True),
        ('<DirectoryMatch "/www/$">', True),
        ('<DirectoryMatch "^/srv">', False),
        ('<DirectoryMatch "(">', False),
    ],
)
def test_sections_with_patterns(tmp_path: Path, section: str, holds: bool) -> None:
    name = section[1:].split()[0]
    found = read(tmp_path, f"{section}\nOptions None\n</{name}>")
    assert find_links_rule(found, None, "/home/me/www") is (Links.REFUSED if holds else Links.FOLLOWED)


def test_a_path_leads_by_the_live_path(tmp_path: Path) -> None:
    releases = tmp_path / "shop.releases"
    (releases / "a/public").mkdir(parents=True)
    live = tmp_path / "shop"
    live.symlink_to("shop.releases/a")
    for name, target in {"by": "shop", "past": "shop.releases/a", "loop": "loop", "up": "shop/../shop"}.items():
        (tmp_path / name).symlink_to(target)
    assert is_by(f"{live}/public", live)
    assert is_by(f"{tmp_path}/by/public", live)
    assert is_by(f"{tmp_path}/x/../shop", live)
    assert not is_by(f"{tmp_path}/past/public", live)
    assert not is_by(f"{releases}/a", live)
    assert not is_by(f"{tmp_path}/loop", live)
    assert not is_by(f"{tmp_path}/shop-2", live)


def test_the_hosts_that_serve_a_live_path(tmp_path: Path) -> None:
    text = """
<VirtualHost *:80>
DocumentRoot /var/www/html
</VirtualHost>
<VirtualHost *:81>
DocumentRoot /var/www/html
Alias /shop /srv/shop/public
KeepAliveTimeout 2
</VirtualHost>
<VirtualHost *:82>
DocumentRoot /srv
</VirtualHost>
KeepAliveTimeout 7
"""
    found = read(tmp_path, text)
    hosts = find_serving_hosts(found, Path("/srv/shop"))
    assert [(host.arguments, root) for host, root in hosts.items() if host] == [
        (("*:81",), "/srv/shop/public"),
        (("*:82",), "/srv"),
    ]
    assert [find_value(found, host, "keepalivetimeout") for host in hosts] == ["2", "7"]
    assert find_value(found, None, "keepalive", "On") == "On"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5.0), ("500ms", 0.5), ("2s", 2.0), ("1mi", 60.0), ("1min", 60.0), ("1h", 3600.0), ("x", None), ("5q", None)],
)
def test_timeouts_as_httpd_reads_them(text: str, seconds: float | None) -> None:
    assert parse_timeout(text) == seconds

"""What is proposed as a site: which live path, which name, whose, and what is left alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from swapd.host.vhosts import APACHE, WebServer, read_apache
from swapd.model.config import Site, Strategy
from swapd.model.layout import Layout
from swapd.model.site_names import suggest_site_name
from swapd.model.vhosts import ServedDirectory
from swapd.setup.proposals import PINNED_NEEDS, Proposal, assess, find_live, find_owner, find_route_obstacle, propose
from tests.support.sites import make_site
from tests.unit.test_vhosts import host, write


def plain(www: Path) -> Path:
    (www / "shop").mkdir()
    return www / "shop"


def public(www: Path) -> Path:
    (www / "shop/public").mkdir(parents=True)
    return www / "shop/public"


def link(www: Path) -> Path:
    (www / "shop-v2").mkdir()
    (www / "shop").symlink_to("shop-v2")
    return www / "shop"


def public_of_a_link(www: Path) -> Path:
    (www / "shop-v2/web").mkdir(parents=True)
    (www / "shop").symlink_to("shop-v2")
    return www / "shop/web"


def capistrano(www: Path) -> Path:
    (www / "shop/releases/20261125/public").mkdir(parents=True)
    (www / "shop/current").symlink_to(www / "shop/releases/20261125")
    return www / "shop/current/public"


def deployer(www: Path) -> Path:
    (www / "shop/releases/7").mkdir(parents=True)
    (www / "shop/current").symlink_to("releases/7")
    return www / "shop/current"


def another_name(www: Path) -> Path:
    (www / "shop/releases/7/pages").mkdir(parents=True)
    (www / "shop/www").symlink_to("releases/7")
    return www / "shop/www/pages"


def swapds_own(www: Path) -> Path:
    (www / "shop.releases/one@111111111111/pages").mkdir(parents=True)
    (www / "shop").symlink_to("shop.releases/one@111111111111")
    return www / "shop/pages"


def before_the_first_deployment(www: Path) -> Path:
    (www / "shop").mkdir()
    return www / "shop/current/web"


def nothing_yet(www: Path) -> Path:
    return www / "shop"


@pytest.mark.parametrize(
    ("make", "live"),
    [
        (plain, "shop"),
        (public, "shop"),
        (link, "shop"),
        (public_of_a_link, "shop"),
        (capistrano, "shop/current"),
        (deployer, "shop/current"),
        (another_name, "shop/www"),
        (swapds_own, "shop"),
        (before_the_first_deployment, "shop/current"),
        (nothing_yet, "shop"),
    ],
)
def test_the_live_path_of_a_document_root(tmp_path: Path, make: Callable[[Path], Path], live: str) -> None:
    assert find_live(make(tmp_path)) == tmp_path / live


@pytest.mark.parametrize("root", ["/var/www/html", "/var/www/public", "/srv/web", "/root/public"])
def test_what_many_things_are_in_is_no_live_path(root: str) -> None:
    assert find_live(Path(root)) == Path(root)


def test_what_another_site_is_in_is_no_live_path(tmp_path: Path) -> None:
    assert find_live(tmp_path / "web") == tmp_path
    assert find_live(tmp_path / "web", {tmp_path}) == tmp_path / "web"


@pytest.mark.parametrize(
    ("names", "live", "name"),
    [
        (["shop.example.org"], "/var/www/x", "shop"),
        (["www.example.org"], "/var/www/x", "example"),
        (["WWW.Shop.Example.org", "shop"], "/var/www/x", "shop"),
        (["*.example.org", "blog.example.org"], "/var/www/x", "blog"),
        (["192.0.2.1", "::1", "localhost"], "/var/www/blog/current", "blog"),
        ([], "/srv/www/Blog & more/public", "blog-more"),
        ([], "/var/www/example.org", "example"),
        ([], "/var/www/html", "web7"),
        (["xn--mnchen-3ya.example"], "/var/www/x", "xn--mnchen-3ya"),
        (["shop_1.example"], "/var/www/x", "shop_1"),
        (["a" * 80 + ".example"], "/var/www/x", "a" * 63),
        (["-.-", "ö"], "/var/www", "web7"),
    ],
)
def test_a_name_that_tells(names: list[str], live: str, name: str) -> None:
    assert suggest_site_name(names, Path(live), host="web7.example.net") == name


def test_a_name_that_is_taken_gets_longer() -> None:
    taken: set[str] = set()
    for name in ("shop", "shop-example", "shop-example-org", "pages", "site1", "site2"):
        assert suggest_site_name(["shop.example.org"], Path("/srv/pages"), taken) == name
        taken.add(name)


def find(root: Path, *sites: Site) -> tuple[dict[str, Proposal], list[str]]:
    server = read_apache(root)
    assert server is not None
    found, left_out = propose(Layout(root), [server], sites)
    return {proposal.site: proposal for proposal in found}, left_out


class TestProposals:
    def test_one_for_each_directory(self, tmp_path: Path) -> None:
        """However many virtual hosts serve it: over TLS, by other names, or a directory in it."""
        shop = tmp_path / "www/shop"
        (shop / "public").mkdir(parents=True)
        write(
            tmp_path,
            host(f"DocumentRoot {tmp_path}/www/else")
            + host(f"ServerName shop.test; DocumentRoot {shop}/public")
            + host(f"ServerName shop.test; SSLEngine on; DocumentRoot {shop}/public", "*:443")
            + host(f"ServerName old.shop.test; DocumentRoot {shop}")
            + host(f"ServerName admin.shop.test; DocumentRoot {shop}/admin"),
        )
        found, _ = find(tmp_path)
        assert {name: proposal.live for name, proposal in found.items()} == {
            "else": tmp_path / "www/else",
            "shop": shop,
        }
        assert set(found["shop"].names) == {"old.shop.test", "shop.test", "admin.shop.test"}
        assert list(found)[-1] == "else", "what has no name of its own comes last"

    def test_a_directory_for_many_sites_is_none(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            host("ServerName main.test; DocumentRoot /var/www")
            + host("ServerName shop.test; DocumentRoot /var/www/shop")
            + host(f"DocumentRoot {tmp_path}/html")
            + host(f"ServerName blog.test; DocumentRoot {tmp_path}/html/blog")
            + host(f"ServerName one.test; DocumentRoot {tmp_path}/many/public")
            + host(f"ServerName two.test; DocumentRoot {tmp_path}/many/web"),
        )
        found, left_out = find(tmp_path)
        assert {name: str(proposal.live) for name, proposal in found.items()} == {
            "shop": "/var/www/shop",
            "blog": f"{tmp_path}/html/blog",
            "one": f"{tmp_path}/many/public",
            "two": f"{tmp_path}/many/web",
        }
        assert left_out == ["/var/www has other sites in it", f"{tmp_path}/html has other sites in it"]
        found, left_out = find(tmp_path, make_site(tmp_path, "b", live=f"{tmp_path}/html/blog/inner"))
        assert f"{tmp_path}/html/blog has the site b in it" in left_out

    def test_what_could_not_be_a_site_is_said(self, tmp_path: Path) -> None:
        www = tmp_path / "www"
        write(
            tmp_path,
            host(f"ServerName shop.test; DocumentRoot {www}/shop/public")
            + host("ServerName pma.test; DocumentRoot /usr/share/phpmyadmin")
            + host("ServerName top.test; DocumentRoot /site")
            + host("ServerName many.test; VirtualDocumentRoot /srv/%0"),
        )
        found, left_out = find(tmp_path, make_site(tmp_path))
        assert not found
        assert len(left_out) == 4
        assert f"{www}/shop is the site shop already" in left_out
        assert any("package" in words for words in left_out)
        assert any("directly below /" in words for words in left_out)

    def test_names_are_not_given_twice(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            host("ServerName shop.example.org; DocumentRoot /srv/a")
            + host("ServerName shop.example.net; DocumentRoot /srv/b")
            + host("ServerName blog.example.net; DocumentRoot /srv/c"),
        )
        found, _ = find(tmp_path, make_site(tmp_path, "blog"))
        assert list(found) == ["shop", "shop-example", "blog-example"]

    @pytest.mark.parametrize(
        ("make", "strategy"),
        [(plain, Strategy.EXCHANGE), (capistrano, Strategy.SYMLINK), (nothing_yet, Strategy.SYMLINK)],
    )
    def test_the_strategy_that_auto_takes(
        self, tmp_path: Path, make: Callable[[Path], Path], strategy: Strategy
    ) -> None:
        write(tmp_path, host(f"ServerName shop.test; DocumentRoot {make(tmp_path)}"))
        before = sorted(tmp_path.rglob("*"))
        found, _ = find(tmp_path)
        assert (found["shop"].strategy, found["shop"].obstacle) == (strategy, None)
        assert sorted(tmp_path.rglob("*")) == before, "nothing is made"

    def test_what_stands_in_the_way_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "shop").write_text("a file")
        write(tmp_path, host(f"ServerName shop.test; DocumentRoot {tmp_path}/shop"))
        found, _ = find(tmp_path)
        issue = found["shop"].obstacle
        assert issue is not None
        assert issue.problem == "live-is-a-file"


def apache(version: tuple[int, int, int] = (2, 4, 62), modules: frozenset[str] = PINNED_NEEDS) -> WebServer:
    return WebServer(APACHE, is_running=True, version=version, modules=modules)


@pytest.mark.parametrize(
    ("server", "why", "hint"),
    [
        (apache(), "", ""),
        (apache((2, 4, 58)), "", ""),
        (apache((2, 4, 57)), "2.4.58", ""),
        (apache((2, 5, 0)), "", ""),
        (apache(modules=PINNED_NEEDS - {"rewrite_module"}), "mod_rewrite", "a2enmod rewrite"),
        (WebServer(APACHE), "version", ""),
    ],
)
def test_whether_a_route_can_be_had(server: WebServer, why: str, hint: str) -> None:
    found = find_route_obstacle(server)
    assert bool(found[0]) == bool(why)
    assert why in found[0]
    assert hint in found[1]


@pytest.mark.parametrize(("server", "is_proposed"), [(APACHE, True), ("nginx", False)])
def test_a_route_is_proposed_for_what_apache_serves(tmp_path: Path, server: str, is_proposed: bool) -> None:
    live = plain(tmp_path)
    served = [ServedDirectory(("shop.test",), live, server)]
    site = suggest_site_name(["shop.test"], live)
    assert bool(assess(Layout(tmp_path), site, live, served, [apache()]).route) == is_proposed


class TestOwner:
    def test_as_what_is_there(self, tmp_path: Path) -> None:
        live = plain(tmp_path)
        owner = find_owner(live, {"nobody-that-is-here"})
        assert (owner.name, owner.warning) == (f"{live.owner()}:{live.group()}", "")
        missing = find_owner(tmp_path / "not/there", set())
        assert (missing.name, missing.reason) == (owner.name, f"as {tmp_path}")

    @pytest.mark.root
    def test_code_that_the_web_server_could_change_is_said(self, tmp_path: Path) -> None:
        live = plain(tmp_path)
        os.chown(live, 54321, 0)
        owner = find_owner(live, {"54321"})
        assert owner.name == "54321:root"
        assert "--owner root:root" in owner.warning
        assert not find_owner(live, {"12345"}).warning

"""A site's configuration: what it may say, its defaults, and its way through a document."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from swapd.model.config import Mtime, PauseMode, Require, Reuse, Site, Strategy
from swapd.model.config_parser import Source, parse_document, parse_site, parse_sites
from swapd.model.errors import ConfigurationError
from swapd.model.layout import Layout
from swapd.model.units import DURATION_UNITS, SIZE_UNITS

LAYOUT = Layout(Path("/scratch"))

# Every key of the contract with a value that is not its default.
COMPLETE: dict[str, Any] = {
    "live": "/srv/www/shop",
    "strategy": "rename",
    "incoming": "/srv/drop/shop",
    "releases": "/srv/www/kept",
    "keep": 7,
    "owner": "www-data:adm",
    "group": "shop-deploy",
    "mtime": "archive",
    "strip_components": 2,
    "must_contain": ["index.php", "a/b"],
    "shared": ["uploads", "var/cache"],
    "verify": {
        "require": "digest",
        "allowed_signers": "/srv/signers",
        "settle": "1500ms",
        "max_tarball": "2GB",
        "max_extracted": "3GiB",
        "max_entries": 1234,
        "newer_only": True,
        "allow_links_to": ["/srv/media", "/srv/photos"],
    },
    "extract": {"reuse": "never"},
    "pause": {
        "mode": "always",
        "processes": ["nginx", "php-fpm8.2"],
        "max": "250ms",
        "user": "www-data",
        "unit": "php@8.2.service",
        "exe": "/usr/sbin/php-fpm8.2",
    },
    "path": [{"live": "/srv/cgi/shop", "part": "cgi"}, {"live": "/srv/x", "part": "a/c", "releases": "/srv/y"}],
}


def parse(text: str, defaults: str | None = None) -> Site:
    behind = None if defaults is None else Source("/scratch/etc/swapd/swapd.toml", defaults)
    return parse_site("shop", Source("/scratch/etc/swapd/sites/shop.toml", text), behind, LAYOUT)


def test_the_live_path_is_all_that_must_be_said() -> None:
    site = parse('live = "/var/www/shop"')
    assert site.live == Path("/var/www/shop")
    assert site.strategy is Strategy.AUTO
    assert site.incoming == Path("/scratch/var/spool/swapd/shop")
    assert site.releases == Path("/var/www/shop.releases")
    assert site.shared_directory == Path("/var/www/shop.shared")
    assert (site.keep, site.owner, site.mtime, site.strip_components) == (5, "", Mtime.RELEASE, None)
    assert (site.must_contain, site.shared) == ((), ())
    assert site.verify.require is Require.INTEGRITY
    assert site.verify.allowed_signers == Path("/scratch/etc/swapd/allowed_signers")
    assert (site.verify.settle, site.verify.max_entries) == (2.0, 1_000_000)
    assert (site.verify.max_tarball, site.verify.max_extracted) == (4 << 30, 16 << 30)
    assert (site.pause.mode, site.pause.processes) == (PauseMode.AUTO, ("httpd", "apache2"))
    assert (site.pause.max, site.pause.user) == (1.0, "")


def test_every_key_is_taken() -> None:
    site = parse(tomli_w.dumps(COMPLETE))
    assert (site.strategy, site.keep, site.owner) == (Strategy.RENAME, 7, "www-data:adm")
    assert (site.incoming, site.releases) == (Path("/srv/drop/shop"), Path("/srv/www/kept"))
    assert (site.mtime, site.strip_components) == (Mtime.ARCHIVE, 2)
    assert (site.must_contain, site.shared) == (("index.php", "a/b"), ("uploads", "var/cache"))
    verify, pause = site.verify, site.pause
    assert (verify.require, verify.settle, verify.max_entries) == (Require.DIGEST, 1.5, 1234)
    assert (verify.max_tarball, verify.max_extracted) == (2 * 10**9, 3 << 30)
    assert verify.allowed_signers == Path("/srv/signers")
    assert site.reuse is Reuse.NEVER
    assert verify.allow_links_to == (Path("/srv/media"), Path("/srv/photos"))
    assert (pause.mode, pause.processes) == (PauseMode.ALWAYS, ("nginx", "php-fpm8.2"))
    assert (pause.max, pause.user) == (0.25, "www-data")
    assert (pause.unit, pause.exe) == ("php@8.2.service", "/usr/sbin/php-fpm8.2")
    assert [(str(path.live), path.part, str(path.releases)) for path in site.paths] == [
        ("/srv/cgi/shop", "cgi", "/srv/cgi/shop.releases"),
        ("/srv/x", "a/c", "/srv/y"),
    ]


def test_a_site_has_a_part_for_each_live_path() -> None:
    site = parse(tomli_w.dumps(COMPLETE))
    main, cgi, other = site.parts
    assert [str(part.live) for part in site.parts] == ["/srv/www/shop", "/srv/cgi/shop", "/srv/x"]
    assert [str(part.releases) for part in site.parts] == ["/srv/www/kept", "/srv/cgi/shop.releases", "/srv/y"]
    assert [part.part for part in site.parts] == ["", "cgi", "a/c"]
    assert all(part.is_one_of_several for part in site.parts)
    assert (main.shared, cgi.shared, other.owner) == (("uploads", "var/cache"), (), "www-data:adm")
    alone = parse('live = "/var/www/shop"')
    assert alone.parts == (alone,)
    assert not alone.is_one_of_several


def test_defaults_stand_behind_every_site_key_by_key() -> None:
    defaults = 'keep = 9\nowner = "a:b"\n[verify]\nsettle = "5s"\nrequire = "digest"\n[pause]\nmax = "2s"\n'
    site = parse('live = "/var/www/shop"\nkeep = 3\n[verify]\nsettle = "1s"\n', defaults)
    assert (site.keep, site.owner) == (3, "a:b")
    assert (site.verify.settle, site.verify.require, site.pause.max) == (1.0, Require.DIGEST, 2.0)


def sites() -> st.SearchStrategy[dict[str, Any]]:
    """Documents that are right."""
    component = st.from_regex(r"[A-Za-z0-9._ äß-]{1,20}", fullmatch=True).filter(lambda text: text not in (".", ".."))
    inner = st.lists(component, min_size=1, max_size=3).map("/".join)
    # Disjoint, as no shared path may be inside another.
    several = st.lists(inner, max_size=3, unique_by=lambda path: path.split("/")[0])
    number = st.decimals(min_value=1, max_value=9, places=3).map(str)
    size = st.tuples(number, st.sampled_from(sorted(SIZE_UNITS))).map("".join)
    quantity = st.tuples(number, st.sampled_from(["s", "min"])).map(" ".join)
    return st.fixed_dictionaries(
        {"live": st.lists(component, min_size=2, max_size=4).map(lambda parts: "/" + "/".join(parts))},
        optional={
            "strategy": st.sampled_from(["auto", "exchange", "symlink", "rename"]),
            "keep": st.integers(2, 10**9),
            "owner": st.sampled_from(["root:root", "33:33", "www-data:_adm.x-y$"]),
            "mtime": st.sampled_from(["release", "archive"]),
            "strip_components": st.one_of(st.just("auto"), st.integers(0, 32)),
            "must_contain": several,
            "shared": several,
            "verify": st.fixed_dictionaries(
                {},
                optional={
                    "require": st.sampled_from(["integrity", "digest"]),
                    "settle": quantity,
                    "max_tarball": size,
                    "max_extracted": size,
                    "max_entries": st.integers(1, 10**15),
                },
            ),
            "pause": st.fixed_dictionaries(
                {},
                optional={
                    "mode": st.sampled_from(["auto", "always", "never"]),
                    "max": st.sampled_from(["10ms", "0.123456s", "10s", "333333us"]),
                    "processes": st.lists(st.from_regex(r"[a-z][a-z0-9._-]{3,20}", fullmatch=True), min_size=1),
                    "user": st.sampled_from(["", "www-data", "a$"]),
                },
            ),
        },
    )


@given(sites())
def test_a_site_comes_back_from_its_document(document: dict[str, Any]) -> None:
    # The daemon hands the configuration to its workers in this form.
    site = parse(tomli_w.dumps(document))
    again = copy.deepcopy(site.document())
    assert parse_document("shop", again, LAYOUT) == site


@pytest.mark.parametrize("unit", sorted(SIZE_UNITS))
def test_a_large_size_comes_back_from_its_document(unit: str) -> None:
    site = parse(f'live = "/var/www/shop"\n[verify]\nmax_extracted = "99999{unit}"')
    assert parse_document("shop", site.document(), LAYOUT) == site


@pytest.mark.parametrize("unit", sorted(DURATION_UNITS))
@pytest.mark.parametrize("number", ["0.123457", "0.999999", "12345.6"])
def test_an_odd_duration_comes_back_from_its_document(unit: str, number: str) -> None:
    text = f'live = "/var/www/shop"\n[verify]\nsettle = "{number}{unit}"'
    if not 0.1 <= float(number) * DURATION_UNITS[unit] <= 3600:
        with pytest.raises(ConfigurationError, match="is out of range"):
            parse(text)
        return
    site = parse(text)
    assert parse_document("shop", site.document(), LAYOUT) == site


def test_sites_come_by_name() -> None:
    sources = {name: Source(f"/etc/{name}.toml", f'live = "/var/www/{name}"') for name in ("shop", "blog", "a_1-b")}
    assert {name: str(site.live) for name, site in parse_sites(sources, None, LAYOUT).items()} == {
        "a_1-b": "/var/www/a_1-b",
        "blog": "/var/www/blog",
        "shop": "/var/www/shop",
    }
    assert parse_sites({}, None, LAYOUT) == {}

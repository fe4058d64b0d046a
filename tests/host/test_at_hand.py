"""What an administrator has at hand on a host with the package: manual pages, and the TAB key in a real shell."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.host.releases import pack
from tests.host.webhost import Site, WebHost
from tests.support.shells import ALL, BASH, Typist, typing

USER = "nobody"


@pytest.fixture(scope="module")
def shop(web: WebHost, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with a live release and a kept one, which was there before; and another one, which has none."""
    web.host.write("/var/www/shop/index.html", "by hand")
    web.host.write("/etc/swapd/sites/blog.toml", 'live = "/var/www/blog"\n')
    site = web.init("shop", "/var/www/shop")
    assert site.deploy(pack(tmp_path_factory.mktemp("first"), "first").tarball).outcome == "live"
    return site


@pytest.mark.parametrize(
    ("arguments", "page"),
    [
        (["swapd"], "man8/swapd.8"),
        (["5", "swapd.toml"], "man5/swapd.toml.5"),
        (["swapd-release"], "man7/swapd-release.7"),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_the_manual_pages_are_there(web: WebHost, arguments: list[str], page: str) -> None:
    assert web.run("man", "-w", *arguments).strip() == f"/usr/share/man/{page}.gz"
    shown = web.host.run("man", "--warnings", *arguments)
    assert ("NAME" in shown.stdout, shown.stderr) == (True, "")


@pytest.fixture(scope="module", params=["root", USER])
def typist(request: pytest.FixtureRequest, web: WebHost) -> Iterator[Typist]:
    """Somebody at bash, which has sourced no more than bash-completion, as a login shell does."""
    command = web.host.enter("bash", "--norc", "-i", user=request.param)
    with typing(command, f". /etc/profile.d/bash_completion.sh{BASH}", os.environ) as it:
        yield it


def kept(site: Site) -> str:
    """The release that is not live."""
    (release,) = (name for name in site.kept_releases() if name.startswith("adopted@"))
    return release


def test_the_tab_key_completes_real_names(typist: Typist, shop: Site) -> None:
    assert typist.complete("swapd hist") == "swapd history"
    assert typist.complete("swapd status ", ALL) == "swapd status blog shop"
    assert typist.complete("swapd rollback sh") == "swapd rollback shop"
    assert typist.complete("swapd rollback shop ") == f"swapd rollback shop {kept(shop)}"
    begun = kept(shop).partition("@")[0] + "@"
    assert typist.complete(f"swapd pin shop {begun}") == f"swapd pin shop {kept(shop)}"
    assert typist.complete("swapd unpin shop ") == "swapd unpin shop"
    assert typist.complete("swapd check sh --js") == "swapd check sh --json"

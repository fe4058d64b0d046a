"""Who may deploy, and proof of it: the author signs and uploads, the packaged daemon verifies in its sandbox."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host import journal
from tests.host.conftest import Expected
from tests.host.machine import wait_until
from tests.host.releases import Packed, pack
from tests.host.webhost import AUTHOR, UPLOADER, Marker, Site, WebHost

SIGNERS = "/etc/swapd/allowed_signers"
KEY = f"/home/{AUTHOR}/.ssh/id_ed25519"


@pytest.fixture(scope="module")
def shop(web: WebHost) -> Site:
    """A site that asks for a signature; the author may sign for it."""
    shop = web.new_site("shop")
    configuration = web.host.path("/etc/swapd/sites/shop.toml")
    configuration.write_text(configuration.read_text() + '\n[verify]\nrequire = "signature"\n')
    web.host.write(SIGNERS, f'{AUTHOR}@example.com namespaces="swapd:shop" {web.run("cat", f"{KEY}.pub")}')
    web.run("systemctl", "reload", "swapd")
    return shop


@pytest.fixture
def at_author(web: WebHost, tmp_path: Path) -> Iterator[Packed]:
    """A release whose tarball lies in the author's home directory."""
    packed = pack(tmp_path, "shop-1")
    home = web.host.path(f"/home/{AUTHOR}")
    shutil.copyfile(packed.tarball, home / packed.tarball.name)
    yield packed
    for path in home.glob("shop-1.tar.gz*"):
        path.unlink()


def send_signed(shop: Site, namespace: str) -> Marker:
    """The author signs, and scp sends the signature with the tarball."""
    commands = (
        f"cd && rm -f shop-1.tar.gz.sig && ssh-keygen -q -Y sign -n {namespace} -f {KEY} shop-1.tar.gz"
        f" && scp -q shop-1.tar.gz* web:{shop.incoming}/"
    )
    return shop.outcome_after(lambda: shop.web.run("sh", "-c", commands, user=AUTHOR), "shop-1.tar.gz")


def test_what_is_signed_goes_live_and_nothing_else(shop: Site, at_author: Packed, expected: Expected) -> None:
    expected.warning(MESSAGE_ID=journal.DEPLOYMENT_REJECTED, SWAPD_SITE="shop")
    marker = send_signed(shop, "file")
    assert (marker.outcome, marker["problem"]) == ("rejected", "wrong-namespace")
    marker = send_signed(shop, "swapd:shop")
    shop.assert_live(at_author, marker)
    assert marker["signer"] == f"{AUTHOR}@example.com"
    wait_until(lambda: not shop.dropped("shop-1.tar.gz.sig").exists(), "the signature goes with its tarball")
    live = next(record for record in shop.records() if record["MESSAGE_ID"] == journal.DEPLOYMENT_LIVE)
    assert live["SWAPD_SIGNER"] == f"{AUTHOR}@example.com"


# A shell would fork for that, which it may not either.
CONFINED = """#!/usr/bin/python3
import os, socket, sys
attempts = (
    lambda: open("/etc/shadow"),
    lambda: os.listdir("/var/lib/swapd"),
    lambda: open("/run/swapd/x", "w"),
    lambda: open("/var/www/x", "w"),
    lambda: socket.socket(socket.AF_UNIX).connect("/run/systemd/private"),
    lambda: os.fork() or os._exit(0),
)
if os.getuid() == 0:  # not the author, who signs with it
    for attempt in attempts:
        try:
            attempt()
        except OSError:
            continue
        sys.exit(1)
os.execv("/usr/bin/ssh-keygen", ["ssh-keygen", *sys.argv[1:]])
"""


@pytest.mark.usefixtures("at_author")
def test_in_the_unit_too_ssh_keygen_can_do_nothing_else(shop: Site) -> None:
    """A program of its name, which the unit finds before it, goes on only where it may neither look nor write."""
    shop.web.host.write("/usr/local/bin/ssh-keygen", CONFINED, mode=0o755)
    assert shop.web.host.run("/usr/local/bin/ssh-keygen", check=False).returncode == 1, "outside of the jail it may"
    try:
        marker = send_signed(shop, "swapd:shop")
    finally:
        shop.web.host.path("/usr/local/bin/ssh-keygen").unlink()
    assert marker.outcome in ("live", "unchanged"), marker


def test_a_revoked_key(shop: Site, at_author: Packed, expected: Expected) -> None:
    expected.warning(MESSAGE_ID=journal.DEPLOYMENT_REJECTED, SWAPD_RELEASE=at_author.release)
    shop.web.host.write("/etc/swapd/revoked_keys", shop.web.run("cat", f"{KEY}.pub"))
    marker = send_signed(shop, "swapd:shop")
    assert (marker.outcome, marker["problem"]) == ("rejected", "key-revoked")


def test_a_group_may_drop_for_its_site_alone(web: WebHost, tmp_path: Path) -> None:
    web.add_vhost("blog", "/var/www/blog")
    init = ["swapd", "init", "blog", "--live", "/var/www/blog", "--group", "blog-deploy"]
    missing = web.host.run(*init, check=False)
    assert missing.returncode == 1
    assert "groupadd blog-deploy" in missing.stderr
    web.run("groupadd", "blog-deploy")
    web.run(*init)
    blog = Site(web, "blog", "/var/www/blog")
    packed = pack(tmp_path, "blog-1")
    shutil.copyfile(packed.tarball, web.host.path(f"/home/{AUTHOR}/{packed.tarball.name}"))
    scp = ["scp", "-q", f"/home/{AUTHOR}/{packed.tarball.name}", f"web:{blog.incoming}/"]
    refused = web.host.run(*scp, user=AUTHOR, check=False)
    assert "ermission denied" in refused.stderr, "being in the group swapd is not enough"
    web.run("usermod", "--append", "--groups", "blog-deploy", UPLOADER)
    blog.assert_live(packed, blog.outcome_after(lambda: web.run(*scp, user=AUTHOR), packed.tarball.name))

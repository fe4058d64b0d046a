"""``swapd init`` on a host with Apache, nginx and sshd: it proposes what they serve, and what it proposes works."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.machine import Host, booted, sweep
from tests.host.package import dependencies
from tests.host.pages import PHP
from tests.host.releases import Packed, make_tree, pack, pack_tree
from tests.host.roots import debian_root
from tests.host.webhost import AUTHOR, PACKAGES, VHOST, Site, WebHost

VHOSTS = """
<VirtualHost *:80>
    ServerName shop.test
    ServerAlias www.shop.test
    DocumentRoot /var/www/shop/public
</VirtualHost>
<VirtualHost *:80>
    ServerName blog.test
    DocumentRoot /srv/blog/current
    <Directory /srv/blog>
        Require all granted
        Options FollowSymLinks
    </Directory>
</VirtualHost>
<VirtualHost *:80>
    ServerName docs.test
    DocumentRoot /var/www/docs
</VirtualHost>
Listen 81
<VirtualHost *:81>
    ServerName shop.test
    DocumentRoot /var/www/shop/public
</VirtualHost>
"""
CONFIGURATION = "/etc/apache2/sites-available/sites.conf"
NGINX = "server { listen 8080; server_name static.test; location / { root /srv/static; } }\n"
LIVE = {"shop": "/var/www/shop", "blog": "/srv/blog/current", "docs": "/var/www/docs", "static": "/srv/static"}


@pytest.fixture(scope="module")
def host(package: Path) -> Iterator[Host]:
    sweep()
    with booted(debian_root([*PACKAGES, *PHP, *dependencies(package)])) as host:
        yield host


@pytest.fixture(scope="module")
def web(host: Host, package: Path) -> WebHost:
    """Three sites of Apache's, one of nginx's, and swapd, which knows none of them."""
    web = WebHost(host)
    web.install(package)
    for path in ("/var/www/shop/public", "/srv/blog/releases/7", "/srv/static"):
        web.run("mkdir", "-p", path)
        host.write(f"{path}/index.html", "by hand\n")
    web.run("ln", "-s", "releases/7", "/srv/blog/current")
    host.write(CONFIGURATION, VHOSTS)
    host.write("/etc/nginx/sites-available/default", NGINX)
    web.run("a2dissite", "--quiet", "000-default")
    web.run("a2ensite", "--quiet", "sites")
    web.run("a2enmod", "--quiet", "rewrite")
    web.run("systemctl", "restart", "apache2", "nginx")
    return web


@pytest.fixture(scope="module")
def proposed(web: WebHost) -> dict[str, list[str]]:
    """What it printed where nobody could be asked: the command for each site."""
    done = web.host.run("swapd", "init", check=False)
    assert done.returncode == 2, done
    assert not list(web.host.path("/etc/swapd/sites").iterdir()), "nothing is made"
    commands = [shlex.split(line) for line in done.stdout.splitlines() if line and not line.startswith("#")]
    return {command[2]: command for command in commands}


@pytest.fixture(scope="module")
def said(web: WebHost, proposed: dict[str, list[str]]) -> dict[str, str]:
    """What each of these commands said."""
    said = {name: web.run(*command, "--no-restart") for name, command in proposed.items()}
    web.run("systemctl", "daemon-reload")
    web.run("systemctl", "restart", "swapd")
    return said


def test_what_is_served_is_proposed(proposed: dict[str, list[str]]) -> None:
    assert proposed == {
        name: ["swapd", "init", name, "--live", live, *(["--route"] if name != "static" else [])]
        for name, live in LIVE.items()
    }


def fetch(web: WebHost, name: str, path: str) -> str:
    port = 8080 if name == "static" else 80
    return web.run("curl", "--silent", "--fail", "--header", f"Host: {name}.test", f"http://127.0.0.1:{port}/{path}")


def pack_public(directory: Path, name: str) -> Packed:
    """A release whose visitors get a directory of it."""
    tree = directory / "trees" / name
    make_tree(tree / "public", name)
    (tree / "secret.txt").write_text("for nobody\n")
    return Packed(name, tree, pack_tree(tree, directory / f"{name}.tar.gz", ".tar.gz"))


@pytest.mark.parametrize("name", ["shop", "blog", "static"])
def test_what_is_proposed_works(web: WebHost, said: dict[str, str], name: str, tmp_path: Path) -> None:
    assert f"{name}.test" in said[name]
    packed = (pack_public if name == "shop" else pack)(tmp_path, f"{name}-1")
    marker = Site(web, name, LIVE[name]).deploy(packed.tarball)
    assert marker.outcome == "live", marker.content
    assert f"{name}-1" in fetch(web, name, "index.html")


def test_the_line_that_it_names_gives_each_request_one_release(
    web: WebHost, said: dict[str, str], tmp_path: Path
) -> None:
    (line,) = (line.split(":", 1)[1].strip() for line in said["shop"].splitlines() if "IncludeOptional" in line)
    assert f"{CONFIGURATION.replace('available', 'enabled')}:2" in said["shop"], "where the line goes"
    configuration = web.host.path(CONFIGURATION)
    text = configuration.read_text()
    root = "DocumentRoot /var/www/shop/public\n"
    configuration.write_text(text.replace(root, f"{root}    {line}\n"))
    web.run("systemctl", "reload", "apache2")
    shop = Site(web, "shop", LIVE["shop"])
    packed = pack_public(tmp_path, "shop-2")
    marker = shop.deploy(packed.tarball)
    assert marker.outcome == "live", marker.content
    assert fetch(web, "shop", "index.html") == (packed.tree / "public/index.html").read_text()
    assert "nothing was paused" in marker["reason"]


def test_who_may_upload_can_do_nothing_else(web: WebHost, said: dict[str, str], tmp_path: Path) -> None:
    """The commands that it ends with are run as they stand there."""
    user = "docs-deploy"  # who is called deploy has a shell, and may need it
    script = said["docs"][said["docs"].index("useradd") :]
    assert "deploy@" in said["docs"][: -len(script)], "the user who is in the group already"
    web.run("sh", "-e", stdin=script)
    key = web.run("cat", f"/home/{AUTHOR}/.ssh/id_ed25519.pub")
    web.host.write(f"/home/{user}/.ssh/authorized_keys", key)

    def as_author(*command: str, stdin: str = "") -> tuple[int, str]:
        done = web.host.run(*command, user=AUTHOR, stdin=stdin, check=False)
        return done.returncode, done.stdout + done.stderr

    docs = Site(web, "docs", LIVE["docs"])
    line = shlex.split(script.splitlines()[-1].partition(":  ")[2])
    assert line[0] == "scp"
    for upload in ("scp", "sftp"):
        packed = pack(tmp_path, f"docs-{upload}")
        inside = f"/home/{AUTHOR}/{packed.tarball.name}"
        shutil.copyfile(packed.tarball, web.host.path(inside))
        target = line[-1].partition(":")[2]
        assert target == "/docs/"
        commands = {
            "scp": (["scp", "-q", inside, f"{user}@web:{target}"], ""),
            "sftp": (["sftp", "-q", "-b", "-", f"{user}@web"], f"put {inside} {target}\n"),
        }
        command, stdin = commands[upload]
        marker = docs.outcome_after(lambda: as_author(*command, stdin=stdin), packed.tarball.name)  # noqa: B023
        assert marker.outcome == "live", marker.content
        assert fetch(web, "docs", "index.html") == (packed.tree / "index.html").read_text()
    status, shown = as_author("sftp", "-q", "-b", "-", f"{user}@web", stdin="ls -1 /docs\ncd ..\ncd ../..\nls -1\n")
    assert status == 0, shown
    assert "docs-sftp.tar.gz.live" in shown
    assert {"docs", "shop"} <= set(shown.splitlines())
    assert "etc" not in shown.split()

    for stdin in ("get /etc/passwd\n", "get ../../../etc/passwd\n", "put /etc/hostname /\n"):
        assert as_author("sftp", "-q", "-b", "-", f"{user}@web", stdin=stdin)[0] != 0, stdin
    for command in (
        ["ssh", f"{user}@web", "id"],
        ["ssh", "-tt", f"{user}@web"],
        ["scp", "-q", "-O", "/etc/hostname", f"{user}@web:/docs/"],
        ["ssh", "-W", "127.0.0.1:80", f"{user}@web"],
    ):
        status, shown = as_author(*command)
        assert status != 0, command
        assert "uid=" not in shown

    again = web.run("swapd", "init", "blog", "--no-restart")
    assert f"scp blog-1.tar.gz {user}@" in again
    assert again.rstrip().endswith("journalctl -u swapd"), "who is there is enough"
    assert ":/blog/" in again


def test_it_never_overwrites(web: WebHost, said: dict[str, str]) -> None:
    assert said
    files = ("/etc/swapd/sites/blog.toml", "/etc/swapd/apache/blog.conf")
    web.host.path(files[0]).write_text(web.host.path(files[0]).read_text() + "keep = 9\n")
    web.host.path(files[1]).write_text(web.host.path(files[1]).read_text() + "# mine\n")
    before = [web.host.path(file).read_text() for file in files]
    for options in (["--live", "/srv/blog"], ["--strategy", "rename"], ["--owner", "www-data:www-data"]):
        assert web.host.run("swapd", "init", "blog", *options, "--yes", check=False).returncode == 2, options
    web.run("swapd", "init", "blog", "--yes", "--no-restart")
    assert [web.host.path(file).read_text() for file in files] == before


def test_a_configuration_that_is_broken_is_said(web: WebHost) -> None:
    configuration = web.host.path(CONFIGURATION)
    text = configuration.read_text()
    web.run("systemctl", "stop", "nginx")
    try:
        configuration.write_text(f"Bogus On\n{text}")
        done = web.host.run("swapd", "init", check=False)
    finally:
        configuration.write_text(text)
        web.run("systemctl", "start", "nginx")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"line 1 of {CONFIGURATION.replace('available', 'enabled')}" in done.stderr
    assert "swapd init SITE --live PATH" in done.stderr


def test_servers_that_do_not_run_are_said_to(web: WebHost) -> None:
    web.run("systemctl", "stop", "apache2", "nginx")
    web.host.write("/etc/apache2/sites-enabled/more.conf", VHOST.format(name="more.test", root="/srv/more"))
    try:
        done = web.host.run("swapd", "init", check=False)
    finally:
        web.host.path("/etc/apache2/sites-enabled/more.conf").unlink()
        web.run("systemctl", "start", "apache2", "nginx")
    assert done.returncode == 2
    assert "swapd init more --live /srv/more" in done.stdout
    assert {line.split(" ", 1)[1] for line in done.stderr.splitlines() if line.startswith(("Apache", "nginx"))} == {
        "does not run: this is what its configuration says"
    }

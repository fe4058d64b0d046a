"""``swapd init``."""

from __future__ import annotations

import contextlib
import grp
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import psutil
import tomli_w

from swapd.adopt import adopt
from swapd.commands.holding import holding
from swapd.host import processes, records
from swapd.host.configuration import read_sites
from swapd.host.drift import find_drift
from swapd.host.files import write_durably
from swapd.host.masters import find_masters
from swapd.host.snippets import write_snippets
from swapd.model.config import DROP_GROUP, Site, Strategy
from swapd.model.config_parser import Source, parse_site
from swapd.model.errors import Failed, UsageError
from swapd.model.layout import Layout
from swapd.model.release import SITE_NAME, SiteName, printable
from swapd.stages.mark import announce

ADOPTION_PATIENCE = 10.0  # seconds for a deployment that is under way
DROP_IN_DIRECTORY = Path("/etc/systemd/system/swapd.service.d")


@click.command
@click.argument("site")
@click.option(
    "--live",
    type=click.Path(path_type=Path),
    required=True,
    help="The path that httpd serves: a directory, a symbolic link, or not there yet.",
)
@click.option(
    "--strategy",
    type=click.Choice([strategy.value for strategy in Strategy]),
    help="How releases take each other's place; with pinned, what the web server has to include is written, too.",
)
@click.option(
    "--document-root",
    metavar="DIR",
    help="With pinned: the directory of a release that visitors get. [default: as before, or as the server has it]",
)
@click.option("--group", metavar="GROUP", help="Whose members may drop tarballs. [default: swapd]")
@click.option("--restart/--no-restart", default=True, help="Restart the unit, so that its sandbox takes the site in.")
@click.pass_obj
def command(
    layout: Layout,
    site: str,
    live: Path,
    strategy: str | None,
    document_root: str | None,
    group: str | None,
    restart: bool,
) -> None:
    """Configure SITE and make its directories; then say what to do next.

    A configuration that is there is kept as it is, and its directories are made again where they are missing. Where
    the live path was changed by hand since the last deployment, what stands there now is taken over as it is.
    """
    options = {"strategy": strategy, "group": group}
    document = {"live": str(Path(os.path.abspath(live))), **{key: value for key, value in options.items() if value}}
    configured, is_new = make_site(layout, site, document)
    click.echo(f"{'wrote' if is_new else 'kept'} {layout.site_file(site)}")
    click.echo(_adopt_drift(layout, configured) or _describe_live(configured))
    click.echo(_describe_httpd(configured))
    is_routed = Strategy.PINNED in (configured.strategy, strategy and Strategy(strategy))
    if is_routed or configured.route.apache.exists():
        for written in write_snippets(configured, document_root, is_tested=layout.is_host):
            click.echo(written.words)
    if layout.is_host:
        drop_in = write_drop_in(configured)
        opened = ", ".join(str(part.live.parent) for part in configured.parts)
        click.echo(f"wrote {drop_in}: the unit's sandbox may write to {opened}")
        _restart_unit(restart)
    click.echo("\n".join(["", "Next:", *_next_steps(layout, configured)]))


def make_site(layout: Layout, name: str, document: Mapping[str, Any]) -> tuple[Site, bool]:
    """Writes the site's configuration unless it has one, and makes its directories with their modes.

    Returns the site as configured, and whether it is new. ``ConfigurationError`` before anything is made when the
    document, or any other site's file, is wrong, and ``Failed`` (``no-group``) where the site's group is not there.
    """
    if not SITE_NAME.fullmatch(name):
        raise UsageError(
            "bad-site-name",
            f"{printable(name)} cannot name a site",
            "A site's name has lower-case letters, digits, - and _, starts with a letter or digit, and has at most 63.",
        )
    path = layout.site_file(name)
    sites = read_sites(layout)
    is_new = not path.exists()
    if is_new:
        text = _TEMPLATE.format(name=name, keys=tomli_w.dumps(document))
        parse_site(name, Source(str(path), text), None, layout)
        layout.sites.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_durably(path, text.encode())
        try:
            sites = read_sites(layout)
            _find_group(layout, sites[SiteName(name)])
        except BaseException:
            path.unlink()  # it clashes with another site, or nobody could drop: nothing has been made
            raise
    site = sites[next(known for known in sites if known == name)]
    for key, value in (("live", str(site.live)), ("group", site.group), ("strategy", site.strategy.value)):
        # auto takes pinned by itself, once it is in force.
        is_meant = document.get(key, value) == value or (value, document[key]) == ("auto", "pinned")
        if not is_new and not is_meant:
            raise UsageError(
                "site-exists",
                f"{path} is there already, with {key} = {value}",
                "Edit that file, or choose another name; an existing configuration is never overwritten.",
            )
    _make_directories(layout, site)
    return site, is_new


_TEMPLATE = """\
# The site {name}, for swapd. Every other key has a default: see swapd.toml(5).
{keys}"""


def _find_group(layout: Layout, site: Site) -> int | None:
    """The gid of the group that may drop; None below a scratch root that has not even swapd's own."""
    try:
        return grp.getgrnam(site.group).gr_gid
    except KeyError:
        if not layout.is_host and site.group == DROP_GROUP:
            return None
        how = "systemd-sysusers, or groupadd --system swapd" if site.group == DROP_GROUP else f"groupadd {site.group}"
        hint = f"Make it with {how}, and run this again."
        raise Failed("no-group", f"there is no group {site.group}", hint) from None


def _make_directories(layout: Layout, site: Site) -> None:
    group = _find_group(layout, site)
    records.make_state_directories(layout, site.name)
    for part in site.parts:
        part.live.parent.mkdir(parents=True, exist_ok=True)
        part.releases.mkdir(mode=0o755, exist_ok=True)
    site.incoming.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    site.incoming.mkdir(mode=0o700, exist_ok=True)
    if group is not None:
        try:
            os.chown(site.incoming, -1, group)
        except PermissionError:
            if layout.is_host:
                raise
    # Set-group-ID: what members drop belongs to the group; no other user may look in.
    site.incoming.chmod(0o2770)


def write_drop_in(site: Site) -> Path:
    """Opens the site's directories to the unit's sandbox: the file that does. Takes effect when the unit restarts.

    The common parent is opened, once: a bind mount for each of live and releases would make the exchange EXDEV.
    """
    parents = {part.live.parent for part in site.parts}
    parents |= {part.releases for part in site.parts if part.live.parent not in part.releases.parents}
    if Path("/var/spool/swapd") not in site.incoming.parents:
        parents.add(site.incoming)
    # Within one another, they would be mounts of their own, too.
    parents = {path for path in parents if not parents & set(path.parents)}
    lines = [
        f"# Written by swapd init for the site {site.name}: where its releases are swapped.",
        "[Service]",
        # The dash: a directory that is lost must not keep the daemon from serving the other sites.
        *(f'ReadWritePaths="-{str(path).replace("%", "%%")}"' for path in sorted(parents)),
    ]
    if any(home in part.live.parents for part in site.parts for home in map(Path, ("/home", "/root", "/run/user"))):
        # The unit's ProtectHome=yes would hide the site; so the homes are shown, and the line above opens one place.
        lines.append("ProtectHome=read-only")
    if site.route.apache.exists():
        lines.append("# To ask the web server whether it follows the site's route.")
        lines.append("RestrictAddressFamilies=AF_INET AF_INET6")
    path = DROP_IN_DIRECTORY / f"site-{site.name}.conf"
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_durably(path, ("\n".join(lines) + "\n").encode())
    return path


def _restart_unit(is_wanted: bool) -> None:
    if not is_wanted or not Path("/run/systemd/system").is_dir() or shutil.which("systemctl") is None:
        click.echo("restart the unit for it: systemctl daemon-reload && systemctl restart swapd")
        return
    for arguments in (["daemon-reload"], ["restart", "swapd.service"]):
        done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(
                "cannot-restart",
                f"systemctl {' '.join(arguments)}: {done.stderr.strip()}",
                "The site is configured. See systemctl status swapd, then restart it.",
            )
    click.echo("restarted swapd.service")


def _adopt_drift(layout: Layout, site: Site) -> str:
    """Takes over what was changed by hand, and says what that was; empty where nothing was."""
    if not find_drift(site, records.read_state(layout, site.name)):
        return ""
    with holding(layout, site.name, ADOPTION_PATIENCE) as (configured, context):
        before = records.read_state(layout, site.name)
        found = find_drift(configured, before)
        if not found:  # it was amid a deployment
            return ""
        state = adopt(configured, context, before)
    with contextlib.suppress(OSError):
        announce(site.incoming)
    taken = f"it is taken over as {state.live.release}" if state.live else "that is as it is from now on"
    return f"{' and '.join(found)}, not what swapd left there: {taken}"


def _describe_live(site: Site) -> str:
    if site.strategy is Strategy.PINNED and site.live.is_dir() and not site.live.is_symlink():
        kept = "it will be kept as the release adopted@…, with a symbolic link in its place"
        return f"{site.live} is a directory: {kept}"
    if site.live.is_symlink():
        return f"{site.live} is a symbolic link to {os.readlink(site.live)}: it will be replaced by rename"
    if site.live.is_dir():
        return f"{site.live} is a directory: it will be exchanged, and kept as the release adopted@…"
    return f"{site.live} is not there yet: it will be a symbolic link into {site.releases}"


def _describe_httpd(site: Site) -> str:
    masters = find_masters(site.pause.processes, site.pause.user, site.pause.unit, site.pause.exe)
    names = " or ".join(site.pause.processes)
    if not masters:
        return f"no process called {names} runs now: a deployment finds it when it does, and pauses nothing till then"
    found = []
    for pid in masters:
        children = processes.descendants([pid], site.pause.processes, ())
        users = {psutil.Process(child.identity.pid).username() for child in children}
        found.append(f"{psutil.Process(pid).name()} (pid {pid}, {len(children)} children of {', '.join(users)})")
        for child in children:
            child.close()
    return f"the web server that a swap pauses: {'; '.join(found)}"


def _next_steps(layout: Layout, site: Site) -> list[str]:
    if not layout.is_host:
        return [f"  cp {site.name}-1.tar.gz {site.incoming}/"]
    routed = [
        f"  in the <VirtualHost>:      IncludeOptional {site.route.apache}",
        "  take it in:                apachectl configtest && systemctl reload apache2 (or httpd)",
        f"  see that it is in force:   swapd check {site.name}",
    ]
    return [
        *(routed if site.route.apache.exists() else []),
        f"  let a user drop tarballs:  adduser USER {site.group}      (or: usermod -aG {site.group} USER)",
        f"  deploy, from anywhere:     scp {site.name}-1.tar.gz USER@{socket.gethostname()}:{site.incoming}/",
        f"  see what happened:         swapd status {site.name}; journalctl -u swapd",
    ]

"""``swapd init``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import psutil

from swapd.adopt import adopt
from swapd.commands.holding import holding
from swapd.host import processes, records
from swapd.host.drift import find_drift
from swapd.host.masters import find_masters
from swapd.host.snippets import write_snippets
from swapd.host.vhosts import WebServer
from swapd.model.config import Site, Strategy
from swapd.model.errors import Failed
from swapd.model.layout import Layout
from swapd.model.release import printable
from swapd.setup.asking import Answers, Given
from swapd.setup.choosing import choose_answers
from swapd.setup.next_steps import describe_next_steps
from swapd.setup.proposals import find_owner
from swapd.setup.servers import describe_service, find_serving, read_servers
from swapd.setup.site import make_site
from swapd.setup.unit import restart_unit, write_drop_in
from swapd.stages.choose import look
from swapd.stages.mark import announce

ADOPTION_PATIENCE = 10.0  # seconds for a deployment that is under way


@click.command
@click.argument("site", required=False)
@click.option(
    "--live",
    type=click.Path(path_type=Path),
    help="The path that httpd serves: a directory, a symbolic link, or not there yet.",
)
@click.option(
    "--strategy",
    type=click.Choice([strategy.value for strategy in Strategy]),
    help="How releases take each other's place; with pinned, what the web server has to include is written, too.",
)
@click.option(
    "--route/--no-route",
    "has_route",
    default=None,
    help="Write what the web server includes for pinned: auto takes that once it is in force.",
)
@click.option(
    "--document-root",
    metavar="DIR",
    help="With a route: the directory of a release that visitors get. [default: as before, or as the server has it]",
)
@click.option("--owner", metavar="USER:GROUP", help="Who owns the releases. [default: as the live path]")
@click.option("--group", metavar="GROUP", help="Whose members may drop tarballs. [default: swapd]")
@click.option("--restart/--no-restart", default=True, help="Restart the unit, so that its sandbox takes the site in.")
@click.option("-y", "--yes", "is_yes", is_flag=True, help="Take what is proposed, where there is nothing to choose.")
@click.pass_obj
def command(
    layout: Layout,
    site: str | None,
    live: Path | None,
    strategy: str | None,
    has_route: bool | None,
    document_root: str | None,
    owner: str | None,
    group: str | None,
    restart: bool,
    is_yes: bool,
) -> None:
    """Configure SITE and make its directories; then say what to do next.

    Without SITE or --live, what the web server of this host serves is looked at: at a terminal, each of it is proposed
    and asked for; elsewhere the commands to choose from are printed, and nothing is made.

    A configuration that is there is kept as it is, and its directories are made again where they are missing. Where
    the live path was changed by hand since the last deployment, what stands there now is taken over as it is.
    """
    servers = read_servers(layout)
    given = Given(site, live and Path(os.path.abspath(live)), owner, strategy, has_route)
    if given.site is None or given.live is None:
        answers = choose_answers(layout, servers, given, is_yes=is_yes)
    else:
        answers = Answers(given.site, given.live, owner, strategy, bool(has_route))
    options = {"strategy": answers.strategy, "owner": answers.owner, "group": group}
    document = {"live": str(answers.live), **{key: value for key, value in options.items() if value}}
    configured, is_new = make_site(layout, answers.site, document)
    click.echo(f"{'wrote' if is_new else 'kept'} {layout.site_file(configured.name)}")
    for line in (*_look_around(layout, configured, servers), *([] if answers.is_asked else _warn(configured, servers))):
        click.echo(line)
    is_routed = Strategy.PINNED.value in (configured.strategy.value, answers.strategy) or answers.has_route
    if is_routed or configured.route.apache.exists():
        for written in write_snippets(configured, document_root, is_tested=layout.is_host):
            click.echo(written.words)
    if layout.is_host:
        drop_in = write_drop_in(configured)
        opened = ", ".join(str(part.live.parent) for part in configured.parts)
        click.echo(f"wrote {drop_in}: the unit's sandbox may write to {opened}")
        click.echo(restart_unit(restart))
    steps = describe_next_steps(layout, configured, find_serving(servers, configured.live))
    click.echo("\n".join(["", "Next:", *steps]))


def _look_around(layout: Layout, site: Site, servers: Sequence[WebServer]) -> Iterator[str]:
    """What stands there, who owns it, who serves it, and who is paused for it."""
    yield _adopt_drift(layout, site) or _describe_live(site)
    if not site.owner:
        owner = find_owner(site.live, {server.user for server in servers if server.user})
        yield f"releases will belong to {owner.name}, {owner.reason}"
    yield describe_service(servers, site.live)
    yield _describe_httpd(site)


def _warn(site: Site, servers: Sequence[WebServer]) -> Iterator[str]:
    owner = find_owner(site.live, {server.user for server in servers if server.user})
    if not site.owner and owner.warning:
        yield f"beware: {owner.warning}"
    if site.strategy is not Strategy.PINNED:  # for which there is something to do first
        try:
            look(site)
        except Failed as error:
            yield f"beware: as it is, nothing can be deployed: {error.message}. {error.hint}"
        except OSError as error:
            yield f"whether it can be swapped is not known: {error.strerror}"


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
        return f"{site.live} is a symbolic link to {printable(os.readlink(site.live))}: it will be replaced by rename"
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

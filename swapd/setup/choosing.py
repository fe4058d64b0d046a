"""From what was given on the command line to what a site is made with: by proposals, for what is missing."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import click

from swapd.host.configuration import read_sites
from swapd.host.vhosts import WebServer
from swapd.model.config import Site
from swapd.model.errors import ConfigurationError, UsageError
from swapd.model.layout import Layout
from swapd.model.release import SITE_NAME, SiteName, printable
from swapd.model.site_names import suggest_site_name
from swapd.setup.asking import Answers, Given, accept, ask_for, ask_which
from swapd.setup.proposals import Proposal, assess, describe, describe_strategy, propose, select
from swapd.setup.servers import describe_silence, describe_state, find_serving

_THE_LINE = ("the line", "one of the lines")
BY_HAND = "Or name both: swapd init SITE --live PATH"


def choose_answers(layout: Layout, servers: Sequence[WebServer], given: Given, *, is_yes: bool) -> Answers:
    """Proposes what is missing, asks at a terminal, and takes it as it is with ``is_yes``.

    A site that is configured has all of it. ``UsageError`` where somebody has to choose and nobody can be asked: what
    there is to choose from has been printed.
    """
    configured = list(read_sites(layout).values())
    for known in configured:
        if given.site in (None, known.name) and given.live in (None, known.live) and (given.site or given.live):
            return Answers(known.name, known.live, given.owner, given.strategy, bool(given.has_route))
    proposals, left_out = _find(layout, servers, given, configured)
    if is_yes and len(proposals) == 1:
        return accept(proposals[0], given)
    # Who is not root could answer everything, and then make nothing.
    can_ask = sys.stdin.isatty() and sys.stdout.isatty() and (not layout.is_host or os.geteuid() == 0)
    if is_yes or not can_ask:
        _print(proposals, left_out, given)
        if layout.is_host and os.geteuid() != 0:
            what = "only root can make a site"
        else:
            what = "there are several to choose from" if len(proposals) > 1 else "nobody can be asked here"
        raise UsageError("nobody-to-ask", what, f"Run {_THE_LINE[len(proposals) > 1]} above, as root.")
    chosen = ask_which(proposals, left_out) if given.live is None else proposals[0]
    return ask_for(layout, chosen, servers, given)


def _find(
    layout: Layout, servers: Sequence[WebServer], given: Given, configured: Sequence[Site]
) -> tuple[list[Proposal], list[str]]:
    """What goes with what was given, at least one; and in words, what could not be a site. ``UsageError``."""
    proposals, left_out = propose(layout, servers, configured)
    if given.live is not None:
        proposals = [_propose_for(layout, given.live, proposals, servers, {str(known.name) for known in configured})]
    elif given.site is not None:
        proposals = _narrow(proposals, _checked(given.site))
    told = [server for server in select(servers) if proposals or server.issue is None]
    for line in describe_state(told) if layout.is_host else ():
        click.echo(line, err=True)
    if not proposals:
        for words in left_out:
            click.echo(f"not proposed: {words}", err=True)
        issue = describe_silence(servers)
        raise UsageError(issue.problem, issue.message, f"{issue.hint} {BY_HAND}".strip())
    return proposals, left_out


def _checked(site: str) -> SiteName:
    if not SITE_NAME.fullmatch(site):
        what = f"{printable(site)} cannot name a site"
        raise UsageError("bad-site-name", what, "Lower-case letters, digits, - and _, at most 63.")
    return SiteName(site)


def _narrow(proposals: Iterable[Proposal], site: SiteName) -> list[Proposal]:
    """Those that the name goes with, else all of them; under that name."""
    found = list(proposals)
    fitting = [
        proposal
        for proposal in found
        if site == proposal.site
        or site in proposal.live.parts
        or any(site in (name, name.partition(".")[0]) for name in proposal.names)
    ]
    return [replace(proposal, site=site) for proposal in fitting or found]


def _propose_for(
    layout: Layout, live: Path, proposals: Iterable[Proposal], servers: Sequence[WebServer], taken: set[str]
) -> Proposal:
    """What goes with a live path that was given, whoever serves it."""
    served = find_serving(servers, live)
    for proposal in proposals:
        if proposal.live == live:
            return proposal
    names = [name for item in served for name in item.names]
    try:
        return assess(layout, suggest_site_name(names, live, taken), live, served, servers)
    except ConfigurationError as error:
        issue = error.issues[0]
        raise UsageError("bad-live-path", issue.message, issue.right) from error


def _print(proposals: Iterable[Proposal], left_out: Iterable[str], given: Given) -> None:
    """The commands to choose from, fit for a shell."""
    for proposal in proposals:
        lines = [*describe(proposal), describe_strategy(proposal)]
        if proposal.obstacle is not None and proposal.obstacle.hint:
            lines.append(proposal.obstacle.hint)
        owner = f"owner {proposal.owner.name}, {proposal.owner.reason}"
        lines += [owner, *filter(None, [proposal.owner.warning])]
        if proposal.route:
            lines.append(f"--route: with {proposal.route}, pinned can be had, by one line in the <VirtualHost>")
        elif proposal.route_hint:
            lines.append(f"for pinned, run first: {proposal.route_hint}")
        route = ["--route"] if given.wants_route(proposal) else []
        command = ["swapd", "init", proposal.site, "--live", str(proposal.live), *given.options, *route]
        click.echo("".join(f"# {line}\n" for line in lines) + f"{shlex.join(command)}\n")
    for words in left_out:
        click.echo(f"# not proposed: {words}")

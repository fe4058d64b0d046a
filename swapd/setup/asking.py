"""What ``swapd init`` asks at a terminal: each question with the answer that would be given for a site like this."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from swapd.host.owners import read_owner
from swapd.host.vhosts import WebServer
from swapd.model.config import Strategy
from swapd.model.config_values import WrongValue, parse_owner
from swapd.model.errors import ConfigurationError, Failed
from swapd.model.layout import Layout
from swapd.model.release import SITE_NAME, SiteName, printable
from swapd.setup.proposals import Proposal, assess, describe, describe_strategy


@dataclass(frozen=True, slots=True)
class Given:
    """What stood on the command line; None, or empty, where nothing did."""

    site: str | None = None
    live: Path | None = None
    owner: str | None = None
    strategy: str | None = None
    has_route: bool | None = None

    @property
    def options(self) -> list[str]:
        """Those that a command line with the site and its live path would have, too."""
        given = [("--owner", self.owner), ("--strategy", self.strategy)]
        return [word for key, value in given if value for word in (key, value)]

    def wants_route(self, proposal: Proposal) -> bool:
        """Whether to write what the web server includes: as was said, else where it is of use."""
        if self.has_route is None:
            return bool(proposal.route) and self.strategy in (None, Strategy.AUTO.value)
        return self.has_route


@dataclass(frozen=True, slots=True)
class Answers:
    """What a site is made with; what is None has no line in its configuration."""

    site: str
    live: Path
    owner: str | None = None
    strategy: str | None = None
    has_route: bool = False
    is_asked: bool = False  # at a terminal, where what there is to be wary of has been said


def accept(proposal: Proposal, given: Given) -> Answers:
    """The answers as they are proposed, where none was given."""
    route = given.wants_route(proposal)
    return Answers(proposal.site, proposal.live, given.owner, given.strategy, route)


def ask_which(proposals: Sequence[Proposal], left_out: Sequence[str]) -> Proposal:
    """Shows all of them, and asks for one where there are several."""
    click.echo("What the web server of this host serves:\n")
    for number, proposal in enumerate(proposals, 1):
        first, *others = describe(proposal)
        click.echo(f"  {number}  {first}")
        for line in others:
            click.echo(f"     {line}")
    for words in left_out:
        click.echo(f"  -  {words}")
    click.echo()
    if len(proposals) == 1:
        return proposals[0]
    which = click.prompt("Which one", type=click.IntRange(1, len(proposals)), default=1)
    return proposals[which - 1]


def ask_for(layout: Layout, proposal: Proposal, servers: Sequence[WebServer], given: Given) -> Answers:
    """Asks for each answer that was not given."""
    site = proposal.site if given.site is not None else _ask_name(proposal.site)
    chosen = replace(proposal, site=site) if given.live is not None else _ask_live(layout, site, proposal, servers)
    answers = replace(accept(chosen, given), is_asked=True)
    if given.owner is None:
        answers = replace(answers, owner=_ask_owner(chosen))
    if given.strategy is None:
        answers = replace(answers, strategy=_ask_strategy(chosen))
    if given.has_route is None:
        answers = replace(answers, has_route=_ask_route(chosen, answers.strategy))
    return answers


def _ask_owner(proposal: Proposal) -> str | None:
    if proposal.owner.warning:
        click.echo(f"Beware: {proposal.owner.warning}")
    while True:
        owner = str(click.prompt(f"Owner of the releases, {proposal.owner.reason}", default=proposal.owner.name))
        if owner == proposal.owner.name:
            return None
        try:
            read_owner(parse_owner(owner))
        except WrongValue as error:
            click.echo(f"{error.message}; {error.right}")
        except Failed as error:
            click.echo(f"{error.message}. {error.hint}")
        else:
            return owner


def _ask_strategy(proposal: Proposal) -> str | None:
    click.echo(f"auto would take {describe_strategy(proposal)}.")
    if proposal.obstacle is not None and proposal.obstacle.hint:
        click.echo(proposal.obstacle.hint)
    names = click.Choice([strategy.value for strategy in Strategy])
    strategy = str(click.prompt("Strategy", type=names, default=Strategy.AUTO.value))
    return None if strategy == Strategy.AUTO.value else strategy


def _ask_route(proposal: Proposal, strategy: str | None) -> bool:
    if strategy is not None:
        return strategy == Strategy.PINNED.value
    if proposal.route:
        click.echo(
            f"With {proposal.route}, pinned can be had: one release for each request, and no pause. It takes one line "
            "in the <VirtualHost>, and auto changes to it once that line is in force."
        )
        return click.confirm("Write what that line includes", default=True)
    if proposal.route_hint:
        click.echo(f"For pinned (one release for each request, and no pause), run first: {proposal.route_hint}")
    return False


def _ask_name(proposed: SiteName) -> SiteName:
    while True:
        name = click.prompt("Name of the site", default=proposed)
        if SITE_NAME.fullmatch(name):
            return SiteName(name)
        click.echo(f"{printable(name)}: lower-case letters, digits, - and _ only, at most 63.")


def _ask_live(layout: Layout, site: SiteName, proposal: Proposal, servers: Sequence[WebServer]) -> Proposal:
    """The proposal with the live path that was chosen."""
    while True:
        text = click.prompt("Live path, which a release takes the place of", default=str(proposal.live))
        live = Path(os.path.abspath(text))
        try:
            return assess(layout, site, live, proposal.served, servers)
        except ConfigurationError as error:
            click.echo(error.issues[0].message)

"""How `check` tells what it found: for people on a terminal, in a pipe, and for programs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click
import pytest

from swapd import checks
from swapd.checks import find
from swapd.commands.check import describe, summarise
from swapd.model.config import Site
from swapd.model.errors import Failed
from swapd.model.findings import AS_ROOT, Finding, Severity, worst_first
from swapd.model.layout import Layout
from swapd.model.release import SiteName
from tests.support.sites import make_site

SHOP = SiteName("shop")
LONG = (
    "it is on the filesystem /srv/a-rather-long-name/of-a-directory and "
    "the releases are on another one /var/www/shop.releases"
)
WRONG = Finding(SHOP, Severity.ERROR, "wrong", "nothing goes", LONG, "Move it:", commands=("mv /srv/a /srv/b " * 9,))
DOUBTFUL = Finding(None, Severity.WARNING, "doubtful", "some of it goes", "because")
UNSEEN = Finding(SHOP, Severity.UNKNOWN, "not-tried", "not seen", "because", AS_ROOT, commands=("sudo swapd check",))
KNOWN = Finding(SHOP, Severity.INFO, "strategy", "swapped", "because", facts={"strategy": "exchange"})
# To root, nothing is denied for who he is.
DENIED = ("not-looked-at", Severity.UNKNOWN) if os.geteuid() else ("check-broken-off", Severity.WARNING)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


def plain(lines: Iterator[str]) -> list[str]:
    return [click.unstyle(line) for line in lines]


def test_the_worst_comes_first_and_what_is_about_the_host_before_its_sites() -> None:
    error = replace(DOUBTFUL, severity=Severity.ERROR)
    assert worst_first([KNOWN, UNSEEN, WRONG, DOUBTFUL, error]) == [error, WRONG, DOUBTFUL, UNSEEN, KNOWN]


def test_a_pipe_gets_one_line_for_each_sentence() -> None:
    lines = plain(describe([WRONG]))
    assert lines[:3] == ["shop: error: nothing goes (wrong)", f"    {LONG}", "    Move it:"]


@pytest.mark.parametrize("width", [40, 80])
def test_a_terminal_gets_no_longer_lines_than_it_has_columns_and_commands_whole(width: int) -> None:
    *lines, command = plain(describe([WRONG], width))
    assert all(len(line) <= width for line in lines if " " in line.strip())
    assert " ".join(line.strip() for line in lines) == f"shop: error: nothing goes (wrong) {LONG} Move it:"
    assert command.strip() == WRONG.commands[0].strip()


def test_what_is_about_the_whole_host_says_so() -> None:
    assert plain(describe([DOUBTFUL]))[0] == "host: warning: some of it goes (doubtful)"
    assert DOUBTFUL.document()["site"] is None


def test_text_from_outside_changes_no_line_of_the_terminal() -> None:
    (line, *_) = plain(describe([replace(WRONG, what="a\x1b[2J\nhost: all is well")]))
    assert line == "shop: error: a\\x1b[2J\\nhost: all is well (wrong)"


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        ([KNOWN], "nothing is wrong: shop (exchange)"),
        ([UNSEEN], "1 not to be seen by this user: shop (auto, not tried); to see the rest: sudo swapd check shop"),
        ([WRONG, DOUBTFUL, DOUBTFUL, KNOWN], "1 error, 2 warnings: shop (exchange)"),
        ([KNOWN, replace(KNOWN, facts={"strategy": "symlink"})], "nothing is wrong: shop (exchange and symlink)"),
    ],
)
def test_the_last_line_has_the_counts(site: Site, findings: list[Finding], said: str) -> None:
    assert click.unstyle(summarise([site], findings, Layout())) == said


@pytest.mark.parametrize(
    ("error", "problem", "severity"),
    [
        (OSError(5, "Input/output error", "/srv/disk"), "check-broken-off", Severity.WARNING),
        (Failed("no-answer", "it does not answer"), "check-broken-off", Severity.WARNING),
        (subprocess.TimeoutExpired(["systemctl"], 10), "check-broken-off", Severity.WARNING),
        (
            subprocess.CalledProcessError(1, "systemctl", stderr="it is not there\n"),
            "check-broken-off",
            Severity.WARNING,
        ),
        (PermissionError(13, "Permission denied", "/srv/site"), *DENIED),
    ],
)
def test_a_check_that_breaks_off_hides_no_other(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception, problem: str, severity: Severity
) -> None:
    def find_fault(_: Site, __: Layout) -> Iterator[Finding]:
        yield WRONG
        raise error

    def find_host(_: Sequence[Site], __: Layout) -> Iterator[Finding]:
        raise error
        yield

    def find_rest(_: Site, __: Layout) -> Iterator[Finding]:
        yield DOUBTFUL

    monkeypatch.setattr(checks, "CHECKS", (find_fault, find_rest))
    monkeypatch.setattr(checks, "HOST_CHECKS", (find_host,))
    found = find([site], Layout())
    assert sorted(item.problem for item in found) == sorted(["wrong", problem, "doubtful", problem])
    of_host, of_site = (item for item in found if item.problem == problem)
    assert (of_host.site, of_site.site) == (None, "shop")
    assert {of_host.severity, of_site.severity} == {severity}
    assert "find_host" in of_host.what
    assert str(getattr(error, "stderr", None) or "").strip() in of_host.why

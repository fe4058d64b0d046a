"""README.md as somebody new reads it: every command is typed on a host, from top to bottom; then git push, and CI.

Which command is typed how stands in tests/host/newcomer.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.conftest import Expected
from tests.host.machine import Host, booted, sweep
from tests.host.newcomer import (
    STEPS,
    Reader,
    Step,
    begin,
)
from tests.host.package import dependencies
from tests.host.roots import debian_root
from tests.host.webhost import PACKAGES, WebHost
from tests.support.readme import README, Typed, read_blocks, read_inline, read_typed, shape

REPOSITORY = "/home/git/shop.git"


@pytest.fixture(scope="module")
def host(package: Path) -> Iterator[Host]:
    sweep()
    with booted(debian_root([*PACKAGES, *dependencies(package), "git", "sudo"])) as host:
        yield host


@pytest.fixture(scope="module")
def reader(web: WebHost) -> Reader:
    return begin(web)


@pytest.fixture
def whatever_is_said(expected: Expected) -> None:
    """The README leads through warnings, too: a server with AllowOverride, a changed live path, a prune refused."""
    expected.warning(SWAPD_SITE="shop")
    expected.restarts = True


@pytest.mark.usefixtures("whatever_is_said")
def test_every_command_of_the_readme_does_what_it_says(reader: Reader) -> None:
    text = README.read_text()
    typed = [typed for block in read_blocks(text) if not block.language for typed in read_typed(block)]
    done = {typed.command for typed in typed}
    typed += [typed for typed in read_inline(text) if typed.command not in done]
    for one in dict.fromkeys(typed):
        step = STEPS.get(one.command)
        if isinstance(step, Step):
            try:
                take(reader, one, step)
            except AssertionError as error:
                raise AssertionError(f"README.md:{one.line}: {one.command}\n{error}") from error


def take(reader: Reader, typed: Typed, step: Step) -> None:
    step.before(reader)
    command = typed.command.replace(*step.instead) if step.instead[0] else typed.command
    said = ""
    if step.drops:
        marker = reader.shop.outcome_after(lambda: reader.type(command, step.who), step.drops)
        assert marker.outcome in {"live", "unchanged"}, marker.content
    else:
        said = reader.type(command, step.who)
    for line in filter(str.strip, typed.output):
        assert any(shape(line).search(real) for real in said.splitlines()), f"no line like {line!r} in:\n{said}"
    step.after(reader)

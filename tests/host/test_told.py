"""Killed right before and right after a word to the journal: a deployment has one start and one outcome record."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host import journal
from tests.host.field import FORGIVEN, Field, opened, warnings_of_kills
from tests.host.looks import unit_pids

STRATEGY = "symlink"


@pytest.fixture(scope="module")
def field(base: Path, package: Path) -> Iterator[Field]:
    with opened(base, package, "event") as it:
        yield it


@pytest.mark.parametrize("whom", ["worker", "cgroup"])
@pytest.mark.parametrize("event", ["DEPLOYMENT_STARTED", "DEPLOYMENT_LIVE"])
@pytest.mark.parametrize("side", ["before", "after"])
def test_what_was_killed_amid_a_word_is_told_once(field: Field, side: str, event: str, whom: str) -> None:
    mark = journal.mark(field.web.host)
    tarball, content = field.new_release(STRATEGY)
    field.hook.hold(f"{side} {event} #1")
    dropped = field.drop(STRATEGY, tarball)
    held = field.hook.wait_held()
    if whom == "cgroup":
        field.kill_cgroup()
    else:
        os.kill(held.pid, signal.SIGKILL)
    held.release()
    field.wait_live(STRATEGY, dropped, content, FORGIVEN)
    field.check_tidy(STRATEGY)
    field.check_told(mark, warnings_of_kills())


def test_a_journal_that_hangs_holds_up_no_recovery(field: Field) -> None:
    """What it cannot be asked is as the record says."""
    tarball, content = field.new_release(STRATEGY)
    field.hook.hold("before DEPLOYMENT_STARTED #1")
    dropped = field.drop(STRATEGY, tarball)
    held = field.hook.wait_held()
    (journald,) = unit_pids(field.web.host, "systemd-journald")
    os.kill(journald, signal.SIGSTOP)
    try:
        os.kill(held.pid, signal.SIGKILL)
        held.release()
        field.wait_live(STRATEGY, dropped, content, FORGIVEN)
    finally:
        os.kill(journald, signal.SIGCONT)
    field.check_tidy(STRATEGY)

"""Killed amid the swap of two live paths: after it both are of one release, before httpd goes on as well."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.crash.actors import die, die_with_guardian, stop
from tests.crash.children import describe_failure, in_lanes
from tests.crash.steps import Counter
from tests.crash.test_window import check_resumed_in_time
from tests.crash.world import World
from tests.support.httpd import Httpd, state_of
from tests.support.waiting import wait_until

PART = "lib"
STRATEGIES = ("symlink", "exchange", "rename")
CASES = [("symlink", "releases"), ("exchange", "directory"), ("rename", "releases"), ("auto", "nothing")]
NAMES = ("rename", "renameat2", "unlink", "rmdir", "mkdir", "symlink", "syncfs")
each_case = pytest.mark.parametrize("case", CASES, ids="-".join)
Seen = list[tuple[str, str, bool]]


def record(world: World, log: Path, httpd: Httpd | None = None) -> Seen:
    """Deploys to the end: each step, what stands before it, and whether nothing of httpd runs then."""
    pids = httpd.pids() if httpd else []

    def act(step: str) -> None:
        is_at_rest = bool(pids) and all(state_of(pid) == "T" for pid in pids)
        with log.open("a") as file:
            print(json.dumps([step, world.standing(), is_at_rest]), file=file)

    world.work(act).check()
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()]


def window_of(seen: Seen) -> tuple[int, int]:
    """The numbers of the first and the last rename of live paths."""
    last = next(number for number, (_, standing, _) in enumerate(seen) if standing == "new")
    first = max(number for number, (_, standing, _) in enumerate(seen[:last], start=1) if standing == "old")
    return first, last


def many(memory: Path, name: str, case: tuple[str, str], httpd: Httpd | None = None) -> World:
    return World(memory / name, *case, httpd.name if httpd else "", part=PART)


@pytest.mark.parametrize("case", [*CASES, *((strategy, "rollback") for strategy in STRATEGIES)], ids="-".join)
def test_killed_at_every_step(case: tuple[str, str], memory: Path) -> None:
    """Without a pause: the next start puts right what the crash left mixed."""
    seen = record(many(memory, "whole", case), memory / "log")
    first, last = window_of(seen)
    assert last > first, "two live paths are two renames at least"
    # Before that, all cases do the same; a rollback has no such step.
    begin = next((number for number, (step, _, _) in enumerate(seen, start=1) if "syncfs" in step), 1)
    chosen = [number for number in range(begin, len(seen) + 1) if seen[number - 1][0].startswith(NAMES)]

    def kill(index: int) -> list[str]:
        number = chosen[index]
        world = many(memory, str(number), case)
        try:
            assert world.work(Counter(number, die)).is_killed
            assert world.standing() in ("old", "new") or first < number <= last
            world.recover().check()
            world.check_recovered()
            world.check_next()
        except AssertionError:
            return [describe_failure(number, seen[number - 1][0])]
        return []

    failures = in_lanes(kill, len(chosen))
    assert not failures, "\n".join(failures)


@each_case
def test_whoever_runs_finds_one_release(case: tuple[str, str], memory: Path, httpd: Httpd) -> None:
    """In a deployment that nothing befalls: whenever something of httpd runs, both live paths are of one release."""
    seen = record(many(memory, "root", case, httpd), memory / "log", httpd)
    first, last = window_of(seen)
    assert last > first
    for number, (step, standing, is_at_rest) in enumerate(seen, start=1):
        assert is_at_rest or standing in ("old", "new"), (number, step)


@each_case
def test_killed_at_every_step_of_the_pause(case: tuple[str, str], memory: Path, httpd: Httpd) -> None:
    """The guardian makes them of one release before it resumes."""
    seen = record(many(memory, "whole", case, httpd), memory / "log", httpd)
    begin = next(number for number, (step, _, _) in enumerate(seen, start=1) if "SIGSTOP" in step)
    end = next(n for n, (step, _, _) in enumerate(seen, start=1) if step.startswith("unlink") and "pause.toml" in step)

    def kill(count: int) -> list[str]:
        number = begin + count
        with Httpd(workers=2) as httpd:
            world = many(memory, str(number), case, httpd)
            try:
                assert world.work(Counter(number, die)).is_killed
                wait_until(lambda: "T" not in (state_of(pid) for pid in (httpd.master, *httpd.workers)), "the resume")
                assert world.standing() in ("old", "new")
                world.recover().check()
                world.check_recovered()
                world.check_next()
                assert httpd.is_running()
            except AssertionError:
                return [describe_failure(number, seen[number - 1][0])]
        return []

    failures = in_lanes(kill, end - begin + 1)
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("case", [*CASES, ("rename", "rollback")], ids="-".join)
def test_killed_with_its_guardian_between_two_renames(case: tuple[str, str], memory: Path, httpd: Httpd) -> None:
    """``swapd resume`` does what the guardian would have done."""
    seen = record(many(memory, "whole", case, httpd), memory / "log", httpd)
    first, last = window_of(seen)
    for number in range(first + 1, last + 1):
        with Httpd(workers=2) as other:
            world = many(memory, str(number), case, other)
            assert world.work(Counter(number, die_with_guardian)).is_killed
            assert other.is_at_rest()
            assert world.standing() in ("mixed", "nothing")
            done = world.scratch.run("resume")
            assert done.returncode == 0, done
            assert other.is_running()
            assert world.standing() == "old"
            world.recover().check()
            world.check_recovered()
            world.check_next()


@each_case
def test_a_pauser_that_hangs_between_two_renames(case: tuple[str, str], memory: Path, httpd: Httpd) -> None:
    """Its guardian undoes the first; when it goes on one day, both are of one release in the end."""
    seen = record(many(memory, "whole", case, httpd), memory / "log", httpd)
    world = many(memory, "root", case, httpd)
    child = world.start(Counter(window_of(seen)[1], stop))
    try:
        wait_until(lambda: state_of(child.pid) == "T", "the pauser to be stopped")
        check_resumed_in_time(httpd)
        assert world.standing() == "old"
    finally:
        os.kill(child.pid, signal.SIGCONT)
        ended = child.wait()
    ended.check()
    assert world.standing() in ("old", "new")
    assert httpd.is_running()
    world.check_next()

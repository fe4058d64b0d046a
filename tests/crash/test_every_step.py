"""A deployment is killed at each of its steps: the live path is whole, and the next start puts everything right."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.crash.actors import die
from tests.crash.children import Ended, describe_failure, in_lanes
from tests.crash.reader import Reader
from tests.crash.steps import Act, Counter
from tests.crash.world import World, content

CASES = [
    *(("symlink", beginning) for beginning in ("nothing", "directory", "releases", "kept")),
    *(("exchange", beginning) for beginning in ("nothing", "directory", "link", "kept")),
    *(("rename", beginning) for beginning in ("link", "releases")),
    *((strategy, "rollback") for strategy in ("symlink", "exchange", "rename", "pinned")),
    ("symlink", "undone"),
    *(("pinned", beginning) for beginning in ("directory", "releases")),
]
ALL_CASES = [
    (strategy, beginning)
    for strategy in ("symlink", "exchange", "rename", "pinned")
    for beginning in ("nothing", "directory", "link", "releases", "kept", "rollback")
]
WHOLLY = ("exchange", "directory")
COMMON = "syncfs"  # up to here the cases do the same
# What a start finds is names and what they stand for. Between two steps that change a name it finds the same, but for
# files that are not whole yet under a temporary name, and these are the same ones in every case.
NAMES = ("rename", "renameat2", "unlink", "rmdir", "mkdir", "symlink", "syncfs")


def record_steps(world: World, work: Callable[[Act], Ended]) -> list[tuple[str, str]]:
    """Each step of ``work``, to its end, and what visitors got before it."""
    log = world.scratch.root / "steps"

    def act(step: str) -> None:
        with log.open("a") as file:
            print(json.dumps([step, world.standing()]), file=file)

    work(act).check()
    return [(step, standing) for step, standing in map(json.loads, log.read_text().splitlines())]


@contextmanager
def visited(world: World, *, may_be_missing: bool) -> Iterator[None]:
    """Somebody reads the live path all the while, and always finds one whole release.

    It may be missing between two renames, which is what the pause is for, and there is none here.
    """
    reader = Reader(world.live, content, world.scratch.root / "visits")
    try:
        yield
    finally:
        seen = reader.stop()
    assert not seen.faults, seen.faults[:3]
    assert seen.whole
    assert may_be_missing or not seen.missing, f"missing at {seen.missing} of {seen.whole} visits"


def check_kills(memory: Path, case: tuple[str, str], kinds: tuple[str, ...]) -> None:
    """Kills a deployment before each of its steps that is of one of ``kinds``, and has it recovered from."""
    world = World(memory / "whole", *case)
    seen = record_steps(world, world.work)
    # Two renames have an instant without a live path; the pause is there for it.
    window = [index for index, (_, standing) in enumerate(seen) if standing == "nothing"]
    assert len(window) == (case[0] == "rename" and case[1] != "nothing")
    assert {standing for _, standing in seen} <= {"old", "new", "nothing"}
    steps = [step for step, _ in seen]
    is_same = kinds != ("",) and case[1] not in ("rollback", "undone")
    begin = next(index for index, step in enumerate(steps) if COMMON in step) if is_same else 0
    chosen = [index for index in range(begin, len(steps)) if steps[index].startswith(kinds)]

    def kill(number: int) -> list[str]:
        index = chosen[number]
        world = World(memory / str(index), *case)
        try:
            with visited(world, may_be_missing=case[0] == "rename"):
                assert world.work(Counter(index + 1, die)).is_killed
                assert world.standing() in ("old", "new") or index in window
                world.recover().check()
                world.check_recovered()
                world.check_next()
        except AssertionError:
            return [describe_failure(index + 1, steps[index])]
        return []

    failures = in_lanes(kill, len(chosen))
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_killed_at_every_step(case: tuple[str, str], memory: Path) -> None:
    """Without a pause, which has tests of its own."""
    check_kills(memory, case, ("",) if case == WHOLLY else NAMES)


def kill_after_swap(world: World, is_half_done: bool) -> None:
    """With the new release live and nothing else done; or between the two renames of that strategy."""

    def act(_: str) -> None:
        if world.standing() == ("nothing" if is_half_done else "new"):
            die()

    assert world.work(act).is_killed


@pytest.mark.parametrize(
    ("case", "is_half_done"),
    [
        (("symlink", "directory"), False),
        (("exchange", "releases"), False),
        (("rename", "releases"), True),
        (("exchange", "rollback"), False),
        (("rename", "rollback"), True),
        (("pinned", "directory"), False),
    ],
    ids=str,
)
def test_recovery_killed_at_every_step(case: tuple[str, str], is_half_done: bool, memory: Path) -> None:
    """However often a start is killed, the next one puts everything right."""
    world = World(memory / "whole", *case)
    kill_after_swap(world, is_half_done)
    seen = record_steps(world, world.recover)
    assert {standing for _, standing in seen} <= ({"nothing", "new"} if is_half_done else {"new"})
    chosen = [index for index, (step, _) in enumerate(seen) if step.startswith(NAMES)]

    def kill(number: int) -> list[str]:
        index = chosen[number]
        world = World(memory / str(index), *case)
        try:
            with visited(world, may_be_missing=case[0] == "rename"):
                kill_after_swap(world, is_half_done)
                assert world.recover(Counter(index + 1, die)).is_killed
                world.recover().check()
                world.check_recovered()
                assert world.standing() == "new"
                world.check_next()
        except AssertionError:
            return [describe_failure(index + 1, seen[index][0])]
        return []

    failures = in_lanes(kill, len(chosen))
    assert not failures, "\n".join(failures)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", ALL_CASES, ids="-".join)
def test_killed_at_every_step_of_any_kind(case: tuple[str, str], memory: Path) -> None:
    """The same, the steps left out above included."""
    check_kills(memory, case, ("",))

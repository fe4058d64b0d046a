"""Killed, stopped or robbed of its guardian in the window: httpd runs on, and finds a whole live path."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.actors import die, die_with_guardian, guardian_of, kill_guardian, stop
from tests.crash.children import describe_failure, in_lanes
from tests.crash.steps import Counter
from tests.crash.world import MAX_PAUSE, World
from tests.support.httpd import PROJECT, Httpd, state_of
from tests.support.sites import environment
from tests.support.waiting import wait_until

CASES = [("symlink", "releases"), ("exchange", "directory"), ("rename", "releases")]
# Which pauses only where it is asked to always.
SOAKED = pytest.param(("pinned", "releases"), marks=pytest.mark.soak)
GUARDED = 0.1  # seconds past the longest pause within which the guardian has everything running again


def check_resumed_in_time(httpd: Httpd) -> None:
    """All of it runs again, within the longest pause from now, plus what this process itself comes late."""
    begin = last = time.monotonic()
    late = 0.0
    while not httpd.is_running():
        time.sleep(0.005)
        late, last = max(late, time.monotonic() - last), time.monotonic()
        assert last - begin < MAX_PAUSE + GUARDED + 2 * late, httpd.states()


def record_window(world: World, httpd: Httpd, log: Path) -> list[tuple[str, str, bool]]:
    """Deploys to the end: each step, what visitors would get before it, and whether nothing of httpd runs then."""
    pids = httpd.pids()  # looking for them takes long, and the window is short

    def act(step: str) -> None:
        with log.open("a") as file:
            print(json.dumps([step, world.standing(), all(state_of(pid) == "T" for pid in pids)]), file=file)

    world.work(act).check()
    return [(step, standing, rests) for step, standing, rests in map(json.loads, log.read_text().splitlines())]


def number_of(seen: list[tuple[str, str, bool]], is_it: Callable[[str], bool]) -> int:
    return next(number for number, (step, _, _) in enumerate(seen, start=1) if is_it(step))


def last_rename(seen: list[tuple[str, str, bool]]) -> int:
    """The number of the step that makes the new release live."""
    return next(number for number, (_, standing, _) in enumerate(seen) if standing == "new")


each_case = pytest.mark.parametrize("case", [*CASES, SOAKED], ids="-".join)


@each_case
def test_the_live_path_is_renamed_while_nothing_of_httpd_runs(
    case: tuple[str, str], memory: Path, httpd: Httpd
) -> None:
    seen = record_window(World(memory / "root", *case, httpd.name), httpd, memory / "log")
    swap = last_rename(seen)
    at_rest = [number for number, (_, _, is_at_rest) in enumerate(seen, start=1) if is_at_rest]
    assert at_rest[0] <= swap <= at_rest[-1]
    assert at_rest == list(range(at_rest[0], at_rest[-1] + 1))
    inside = [step for step, _, is_at_rest in seen if is_at_rest]
    assert {step.split()[0] for step in inside} <= {"rename", "renameat2", "send"}, inside
    for number, (step, standing, is_at_rest) in enumerate(seen, start=1):
        assert standing in ("old", "new") or (standing == "nothing" and is_at_rest), (number, step)
    assert httpd.is_running()


@each_case
def test_what_is_stopped_is_written_down_and_guarded_before_the_first_signal(
    case: tuple[str, str], memory: Path, httpd: Httpd
) -> None:
    seen = record_window(World(memory / "root", *case, httpd.name), httpd, memory / "log")
    written = number_of(seen, lambda step: step.startswith("rename") and step.endswith("pause.toml"))
    guarded = number_of(seen, lambda step: "guardian" in step)
    first = number_of(seen, lambda step: "SIGSTOP" in step)
    resumed = max(number for number, (step, _, _) in enumerate(seen, start=1) if "SIGCONT" in step)
    removed = number_of(seen, lambda step: step.startswith("unlink") and step.endswith("pause.toml"))
    assert written < guarded < first < resumed < removed


@each_case
def test_killed_at_every_step_of_the_pause(case: tuple[str, str], memory: Path, httpd: Httpd) -> None:
    seen = record_window(World(memory / "whole", *case, httpd.name), httpd, memory / "log")
    begin = number_of(seen, lambda step: "pause.toml" in step)
    end = number_of(seen, lambda step: step.startswith("unlink") and step.endswith("pause.toml"))

    def kill(count: int) -> list[str]:
        number = begin + count
        with Httpd(workers=2) as httpd:
            world = World(memory / str(number), *case, httpd.name)
            try:
                assert world.work(Counter(number, die)).is_killed
                check_resumed_in_time(httpd)
                # httpd's processes find a site, before any other process of swapd's had a say.
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


@each_case
def test_killed_with_its_guardian_httpd_is_resumed_by_command(
    case: tuple[str, str], memory: Path, httpd: Httpd
) -> None:
    """What the unit's ExecStopPost= runs."""
    seen = record_window(World(memory / "whole", *case, httpd.name), httpd, memory / "log")
    world = World(memory / "root", *case, httpd.name)
    assert world.work(Counter(last_rename(seen), die_with_guardian)).is_killed
    assert httpd.is_at_rest()
    done = world.scratch.run("resume")
    assert done.returncode == 0, done
    assert httpd.is_running()
    assert world.standing() == "old"
    assert not world.scratch.layout.pause_record.exists()
    world.recover().check()
    world.check_recovered()
    world.check_next()


@each_case
def test_a_pause_resumes_what_a_crashed_one_left_stopped(case: tuple[str, str], memory: Path, httpd: Httpd) -> None:
    """Killed with its guardian, and nobody looked before the next deployment of another site."""
    seen = record_window(World(memory / "whole", *case, httpd.name), httpd, memory / "log")
    world = World(memory / "root", *case, httpd.name)
    assert world.work(Counter(last_rename(seen), die_with_guardian)).is_killed
    assert httpd.is_at_rest()
    world.work().check()
    assert httpd.is_running()
    world.check_next()


@each_case
def test_the_guardian_alone_is_killed(case: tuple[str, str], memory: Path, httpd: Httpd) -> None:
    """The pauser goes on, and resumes by itself."""
    seen = record_window(World(memory / "whole", *case, httpd.name), httpd, memory / "log")
    world = World(memory / "root", *case, httpd.name)
    world.work(Counter(last_rename(seen), kill_guardian)).check()
    assert httpd.is_running()
    assert world.standing() == "new"
    world.check_recovered()
    world.check_next()


@each_case
def test_a_pauser_that_hangs_is_overruled_by_its_guardian(case: tuple[str, str], memory: Path, httpd: Httpd) -> None:
    """Stopped at the last rename; continued after the guardian's deadline, it does no harm."""
    seen = record_window(World(memory / "whole", *case, httpd.name), httpd, memory / "log")
    world = World(memory / "root", *case, httpd.name)
    child = world.start(Counter(last_rename(seen), stop))
    wait_until(lambda: state_of(child.pid) == "T", "the pauser to be stopped")
    check_resumed_in_time(httpd)
    assert world.standing() == "old"
    os.kill(child.pid, signal.SIGCONT)
    child.wait().check()
    assert world.standing() in ("old", "new")
    assert httpd.is_running()
    assert not world.scratch.layout.pause_record.exists()
    world.check_next()


def test_what_had_not_stopped_yet_is_resumed_too(memory: Path, httpd: Httpd) -> None:
    """A SIGSTOP takes effect when the process gets round to it, which may be after the guardian has looked."""
    fifo = memory / "fifo"
    os.mkfifo(fifo)
    (stuck,) = httpd.tell(f"stuck {fifo}")
    wait_until(lambda: state_of(stuck) == "D", "a worker inside vfork")
    world = World(memory / "root", "exchange", "directory", httpd.name)

    def act(step: str) -> None:
        if "SIGCONT" in step:  # it gives up, and dies before it has resumed anything
            die()

    assert world.work(act).is_killed
    check_resumed_in_time(httpd)
    fifo.write_text("")
    wait_until(lambda: state_of(stuck) in "ZX", "the worker to go on to its end")
    assert world.standing() == "old"


def test_a_late_guardian_leaves_the_next_pause_alone(memory: Path, httpd: Httpd) -> None:
    """A pauser is killed, and its guardian gets the processor only when somebody else would pause."""

    def pause() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.support.pauser", memory, httpd.name, "5"]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), cwd=PROJECT, bufsize=0
        )

    with pause() as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"stopped\n"
        guardian = guardian_of(first.pid)
        os.kill(guardian, signal.SIGSTOP)
        first.kill()
    with pause() as second:
        assert second.stdout is not None
        select.select([second.stdout], [], [], 1.0)  # were it not to wait for the guardian, it would begin within that
        os.kill(guardian, signal.SIGCONT)
        wait_until(lambda: state_of(guardian) in "ZX", "the guardian's end")
        assert second.stdout.readline() == b"stopped\n"
        assert httpd.is_at_rest()
    assert httpd.is_running()

"""The reader fuzzed: a minute each time, and in `make soak` for SOAK_MINUTES, guided by what its code reaches."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sites import environment

MINUTES = float(os.environ.get("SOAK_MINUTES", "60"))
SEED = int(os.environ.get("SOAK_SEED", random.randrange(1 << 32)))
GRACE = 600  # seconds for its start and its end


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory where there is one: each example makes a tree, and removes it."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="swapd-fuzz-", dir=place) as directory:
        yield Path(directory)


def fuzz(way: str, directory: Path, seconds: float) -> int:
    """Fuzzes in a process of its own; how many archives it has tried. Fails with what it found, and where that is."""
    command = [sys.executable, "-m", "tests.unit.fuzz_reader", way, directory, str(seconds), str(SEED)]
    with (directory / "log").open("w+") as log:
        done = subprocess.run(
            list(map(str, command)),
            stdout=log,
            stderr=log,
            cwd=Path(__file__).parents[2],
            env=environment(),
            timeout=seconds + GRACE,
        )
        log.seek(0)
        said = log.read()
    print(said[-3000:])  # what failed, and otherwise how many of which problem
    found = {path.name: path.read_bytes() for path in directory.glob("crash-*")}
    assert done.returncode == 0, (SEED, found)
    assert not found
    counts = re.findall(r"number_of_executed_units: (\d+)|: (\d+) executions", said)
    return sum(int(number) for number in counts[-1] if number)


@pytest.mark.soak
@pytest.mark.timeout(MINUTES * 60 + 2 * GRACE)
@pytest.mark.parametrize("way", ["guided", "jailed"])
def test_no_crash_no_hang_no_escape_and_bounded_memory(way: str, memory: Path) -> None:
    """Guided where there is atheris for this Python. In the jail, each archive's memory is measured, too."""
    if way == "guided" and importlib.util.find_spec("atheris") is None:
        way = "blind"
    assert fuzz(way, memory, MINUTES * 60) > MINUTES * 60


@pytest.mark.parametrize("way", ["blind", "jailed"])
def test_a_minute_of_it(way: str, memory: Path) -> None:
    assert fuzz(way, memory, 60) > 60

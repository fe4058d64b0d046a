"""The load: what visitors asked, when, and what they got."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.benchmarks.server import PARTS, Server

LONGEST = 600  # seconds; a load is ended before


@dataclass(frozen=True, slots=True)
class Request:
    """One request; times in nanoseconds of CLOCK_MONOTONIC."""

    due: int
    begun: int  # when the generator came round to it
    sent: int
    done: int
    outcome: str  # ok, mixed, or why it failed
    mark: str

    @property
    def latency(self) -> float:
        """Milliseconds from when it was due."""
        return (self.done - self.due) / 1e6

    @property
    def lateness(self) -> float:
        """Milliseconds of it that are the generator's own."""
        return (self.begun - self.due) / 1e6


@dataclass(slots=True)
class Load:
    """Visitors on a schedule; ``requests`` are there once the load has ended."""

    requests: list[Request] = field(default_factory=list)


@contextlib.contextmanager
def load(server: Server, path: str, *, rate: int, keep: int = 0) -> Iterator[Load]:
    """Visitors for as long as the block lasts, on so many kept-alive connections, or each on a new one."""
    arguments = [80, rate, LONGEST, "keep" if keep else "new", keep, path, PARTS]
    command = server.in_network("load", *map(str, arguments))
    result = Load()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            yield result
        finally:
            program.terminate()  # it finishes what is under way
            output, _ = program.communicate(timeout=60)
    if program.returncode:
        raise SystemExit(f"the load generator ended with {program.returncode}")
    for line in output.splitlines():
        *times, outcome, mark = line.split()
        due, begun, sent, done = map(int, times)
        result.requests.append(Request(due, begun, sent, done, outcome, mark))

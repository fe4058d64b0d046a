"""Forked processes that do a test's work, and may be killed in it."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

PROCESSORS = 2  # as many processors as the smallest machine has that this is meant for


@dataclass(frozen=True)
class Ended:
    """How a process ended: killed, or with what it had to say."""

    is_killed: bool
    words: str = ""

    def check(self) -> None:
        assert not self.is_killed
        assert not self.words, self.words


class Child:
    """A forked process that does ``work``, which may end it, and then ends. Wait for it."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            words = b""
            try:
                os.close(self._reading)
                work()
            except BaseException:  # noqa: BLE001 - nothing may return into the test's own code
                words = traceback.format_exc().encode()
            finally:
                with open(writing, "wb") as file:
                    file.write(words)
                os._exit(0)
        os.close(writing)

    def wait(self) -> Ended:
        with open(self._reading, "rb") as file:
            words = file.read().decode()
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL, status
        return Ended(os.WIFSIGNALED(status), words)


def in_lanes(work: Callable[[int], list[str]], count: int, lanes: int = PROCESSORS) -> list[str]:
    """Does ``work`` for each of 0 … count - 1, in processes that share them out; what all of them returned."""

    def run(lane: int, path: str) -> None:
        said = [line for number in range(lane, count, lanes) for line in work(number)]
        with open(path, "w") as file:
            json.dump(said, file)

    found: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        children = [Child(partial(run, lane, f"{directory}/{lane}")) for lane in range(lanes)]
        for lane, child in enumerate(children):
            ended = child.wait()
            found += [ended.words] if ended.words else json.loads(Path(f"{directory}/{lane}").read_text())
    return found


def describe_failure(number: int, step: str, what: str = "killed") -> str:
    """The failure that is being handled, with the step that led to it."""
    kind, error, trace = sys.exc_info()
    last = traceback.extract_tb(trace)[-1]
    return f"{what} before step {number} ({step}): {last.name}:{last.lineno} {kind.__name__ if kind else ''}: {error}"

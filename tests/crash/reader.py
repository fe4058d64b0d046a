"""A visitor that reads the live path all the time, whatever befalls swapd meanwhile."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.crash.children import Child

ROUNDS = 50  # reads between two looks whether it is over


@dataclass
class Seen:
    """What the visitor got: how many whole releases, how often no live path after that, and what should never be."""

    whole: int
    missing: int
    faults: list[str]


class Reader:
    """Reads in a process of its own from the start on, until it is told to ``stop``.

    ``content`` says what the release of a mark holds; the mark is what ``index.html`` says. A visit goes through one
    descriptor of the live directory, as one that began before a swap does.
    """

    def __init__(self, live: Path, content: Callable[[str], dict[str, str]], report: Path) -> None:
        self._report = report
        reading, self._stop = os.pipe()
        self._child = Child(partial(self._read, live, content, reading))
        os.close(reading)

    def stop(self) -> Seen:
        """Ends it; what it saw."""
        os.close(self._stop)
        self._child.wait().check()
        return Seen(**json.loads(self._report.read_text()))

    def _read(self, live: Path, content: Callable[[str], dict[str, str]], stop: int) -> None:
        os.close(self._stop)
        os.nice(5)  # what is read is tested, and comes first
        names = list(content(""))
        seen = Seen(0, 0, [])
        while not select.select([stop], [], [], 0)[0]:
            for _ in range(ROUNDS):
                visit(live, names, content, seen)
        self._report.write_text(json.dumps(vars(seen)))


def visit(live: Path, names: list[str], content: Callable[[str], dict[str, str]], seen: Seen) -> None:
    """One visit, and what comes of it."""
    try:
        directory = os.open(live, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        seen.missing += seen.whole > 0
        return
    except OSError as error:
        seen.faults.append(f"{error!r}")
        return
    try:
        found = {name: _read_text(directory, name) for name in names}
        if found == content(found["index.html"].strip()):
            seen.whole += 1
        elif os.stat(live).st_ino == os.fstat(directory).st_ino:  # else it is an old release, which may be pruned
            seen.faults.append(f"{found}")
    except FileNotFoundError:
        seen.missing += 1
    except OSError as error:
        seen.faults.append(f"{error!r}")
    finally:
        os.close(directory)


def _read_text(directory: int, name: str) -> str:
    try:
        descriptor = os.open(name, os.O_RDONLY, dir_fd=directory)
    except FileNotFoundError:
        return "not there"
    try:
        return os.read(descriptor, 4096).decode()
    finally:
        os.close(descriptor)

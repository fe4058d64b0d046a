"""How often a process, and what it forks, lists a directory: its own interpreter tells of each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Python imports a module of this name at its start. The list is opened for each line: a fork closes what it inherits.
HOOK = """
import os, sys

def hook(event, arguments, listed={listed!r}, told={told!r}):
    if event in ("os.listdir", "os.scandir") and arguments:
        where = arguments[0]
        path = f"/proc/self/fd/{{where}}" if isinstance(where, int) else os.fsdecode(where or ".")
        if os.path.realpath(path) == listed:
            with open(told, "a") as file:
                file.write(f"{{os.getpid()}}\\n")

sys.addaudithook(hook)
"""


class Listings:
    """Of one directory, by processes that are started after this."""

    def __init__(self, scratch: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """``scratch`` is a new directory for what this needs."""
        self._told = scratch / "listings"
        scratch.mkdir()
        hook = HOOK.format(listed=os.path.realpath(directory), told=str(self._told))
        (scratch / "sitecustomize.py").write_text(hook)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(scratch), os.environ.get("PYTHONPATH")))))

    def by_process(self) -> dict[int, int]:
        """How many, by the pids of those that listed it."""
        pids = [int(line) for line in self._told.read_text().split()]
        return {pid: pids.count(pid) for pid in set(pids)}

"""Asking a program of this machine for what it knows, such as a web server for its configuration as it reads it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

PATIENCE = 30.0  # seconds; a configuration with thousands of virtual hosts takes some
# Administrators' programs, which a plain user's PATH may lack.
PATH = f"{os.defpath}:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program said, and how it ended."""

    status: int
    output: str
    complaint: str  # its standard error

    @property
    def words(self) -> str:
        """What it complained of, on one line, for a message."""
        return " ".join((self.complaint or self.output).split())


def find_program(names: Iterable[str]) -> str | None:
    """The first of the programs that is there."""
    return next(filter(None, (shutil.which(name, path=PATH) for name in names)), None)


def ask(*command: str, environment: Mapping[str, str] = MappingProxyType({})) -> Answer:
    """Runs the program to its end, with nothing of our own environment and in no directory of anybody's.

    In English, and without a terminal. Raises nothing: one that cannot be run, or does not end, has failed.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
            cwd="/",
            env={"PATH": PATH, "LC_ALL": "C", **environment},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Answer(127, "", str(error))
    return Answer(done.returncode, done.stdout, done.stderr)

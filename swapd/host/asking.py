"""Asking a program of this machine for what it knows, such as a web server for its configuration as it reads it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

PATIENCE = 30.0  # seconds; a configuration with thousands of virtual hosts takes some
# For programs that are asked; and administrators' own, which a plain user's PATH may lack.
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
    path = os.pathsep.join(filter(None, (os.environ.get("PATH"), PATH)))
    return next(filter(None, (shutil.which(name, path=path) for name in names)), None)


def ask(*command: str, environment: Mapping[str, str] = MappingProxyType({})) -> Answer:
    """Runs the program to its end, with nothing of our own environment and in no directory of anybody's.

    In English, and without a terminal. Raises nothing: one that cannot be run, or does not end, has failed.
    """
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            cwd="/",
            env={"PATH": PATH, "LC_ALL": "C", **environment},
            start_new_session=True,
        )
    except OSError as error:
        return Answer(127, "", str(error))
    with child:
        try:
            output, complaint = child.communicate(timeout=PATIENCE)
        except BaseException as error:
            # Also what a shell that it is has started, such as apache2ctl's httpd, which would keep our pipes open.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return Answer(127, "", f"{command[0]} has not ended within {PATIENCE:g} s")
            raise
    return Answer(child.returncode, output, complaint)

"""Apache's own program on this host, and how it is asked about its configuration.

The one that runs is asked, with its own options and environment: what is installed may have another configuration. As
root, we run what root's own server is, and nothing that another user calls httpd.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from swapd.host.masters import find_masters

PATIENCE = 60.0  # seconds for a configuration test; a big one takes one
# In this order: Debian's apache2 needs what apache2ctl sets, and Fedora's apachectl passes no options on.
APACHE_PROGRAMS = ("apache2ctl", "httpd", "apachectl")
NAMES = ("httpd", "apache2")
# A service manager's for the server itself, which our question is not.
_NOT_PASSED_ON = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
# Options that say what to do, and with which argument; the others say with which configuration.
_DOING = re.compile(r"-(k|X|t|T|S|M|l|L|v|V|h)")


@dataclass(frozen=True, slots=True)
class Program:
    """How a server's program is run. ``pid`` is the server that runs with it; 0: none does."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    pid: int = 0

    @property
    def name(self) -> str:
        return Path(self.command[0]).name

    def ask(self, *options: str) -> Answer:
        """What it answers to these options. Raises ``OSError`` and ``subprocess.TimeoutExpired``."""
        return run_program([*self.command, *options], {**os.environ, **self.environment})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program said before it ended with ``status``."""

    status: int
    out: str
    err: str


def run_program(command: Iterable[str], environment: Mapping[str, str] | None = None) -> Answer:
    """Runs a program to its end, without a terminal, in English; after ``PATIENCE``, it and its children are killed.

    Raises ``OSError`` and ``subprocess.TimeoutExpired``.
    """
    child = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env={**(os.environ if environment is None else environment), "LC_ALL": "C"},
        start_new_session=True,  # no terminal to ask for a password on, and a group to kill
    )
    with child:
        try:
            out, err = child.communicate(timeout=PATIENCE)
        except BaseException:
            # Also what a shell around it started, which would keep our pipes open.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            raise
    return Answer(child.returncode, out, err)


def find_apache() -> Program | None:
    """The program of the Apache that runs, else the installed one's; None where there is neither."""
    masters = find_masters(NAMES)
    if program := next(filter(None, map(_find_running, masters)), None):
        return program
    path = next(filter(None, map(shutil.which, APACHE_PROGRAMS)), None)
    return Program((path,), pid=masters[0] if masters else 0) if path else None


def _find_running(pid: int) -> Program | None:
    """How the server with this pid was started; None unless it is root's own, and its program is still there."""
    try:
        process = psutil.Process(pid)
        exe = process.exe()
        if set(process.uids()) != {0} or not re.fullmatch(r"(httpd|apache2)([.-]\w+)?", Path(exe).name):
            return None
        # It may have been replaced by an update, or be another root's.
        if not os.path.samefile(exe, f"/proc/{pid}/exe"):
            return None
        environment = {key: value for key, value in process.environ().items() if key not in _NOT_PASSED_ON}
        return Program((exe, *_configuring(process.cmdline()[1:])), environment, pid)
    except (psutil.Error, OSError):
        return None


def _configuring(arguments: list[str]) -> list[str]:
    """Those of a server's options that say which configuration it has."""
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if not _DOING.match(argument):
            kept.append(argument)
        elif argument == "-k":
            next(rest, None)
    return kept

"""Apache's own program on this host, and how it is asked about its configuration.

The one that runs is asked, with its own options and environment: what is installed may have another configuration. As
root, we run what root's own server is, and nothing that another user calls httpd.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from swapd.host.asking import Answer, ask, find_program
from swapd.host.masters import find_masters

# In this order: Debian's apache2 needs what apache2ctl sets, and Fedora's apachectl passes no options on.
APACHE_PROGRAMS = ("apache2ctl", "httpd", "apachectl")
NAMES = ("httpd", "apache2")
# What a service manager tells the server itself, which our question is not; and the language of its answer.
_NOT_PASSED_ON = re.compile(r"NOTIFY_SOCKET|WATCHDOG_.*|LISTEN_.*|LANG|LANGUAGE|LC_.*")
# Options that say what to do, or where to write what goes wrong; the others say with which configuration.
_DOING = re.compile(r"-[kXtTSMlLvVhE]")


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
        """What it answers to these options."""
        return ask(*self.command, *options, environment=self.environment)


def find_apache() -> Program | None:
    """The program of the Apache that runs, else the installed one's; None where there is neither."""
    masters = find_masters(NAMES)
    if program := next(filter(None, map(read_program, masters)), None):
        return program
    path = find_program(APACHE_PROGRAMS)
    return Program((path,), pid=masters[0] if masters else 0) if path else None


def read_program(pid: int) -> Program | None:
    """How the server with this pid was started; None unless it is root's own, and its program is still there."""
    try:
        process = psutil.Process(pid)
        exe = process.exe()
        if set(process.uids()) != {0} or not re.fullmatch(r"(httpd|apache2)([.-]\w+)?", Path(exe).name):
            return None
        # It may have been replaced by an update, or be another root's.
        if not os.path.samefile(exe, f"/proc/{pid}/exe"):
            return None
        environment = {key: value for key, value in process.environ().items() if not _NOT_PASSED_ON.fullmatch(key)}
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
        elif argument in ("-k", "-E"):
            next(rest, None)
    return kept

"""Who uses a release that is past its time, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from swapd.model.release import printable

NAMED = 3  # how many processes are named


class Way(Enum):
    """How a process uses a file or directory; the first two are their links' names in ``/proc/PID``."""

    DIRECTORY = "cwd"
    ROOT = "root"
    FILE = "file"
    MAPPING = "mapping"


WORDS = {
    Way.DIRECTORY: "working directory",
    Way.ROOT: "root directory",
    Way.FILE: "open file",
    Way.MAPPING: "mapped file",
}


@dataclass(frozen=True, slots=True)
class User:
    """A process that uses something."""

    pid: int
    name: str
    way: Way


def describe_users(users: Sequence[User]) -> str:
    """Such as ``cron, pid 812 (working directory)``; each process once."""
    processes = list({user.pid: user for user in reversed(users)}.values())[::-1]
    named = [f"{printable(user.name)}, pid {user.pid} ({WORDS[user.way]})" for user in processes[:NAMED]]
    more = len(processes) - NAMED
    return "; ".join(named) + (f"; and {more} more" if more > 0 else "")

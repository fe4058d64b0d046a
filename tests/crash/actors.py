"""What may befall swapd: at a step of its work, done by the process that is about to take it; or at any moment."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from pathlib import Path

from swapd.host.watcher import NAME
from tests.support.httpd import name_of


def guardian_of(pid: int) -> int:
    """The guardian that the process has started, found without swapd's own code."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if "guardian" in Path(f"/proc/{child}/cmdline").read_text():
            return int(child)
    raise AssertionError("no guardian")


def die(_: str = "") -> None:
    """As by a crash: nothing of this process is done any more."""
    os.kill(os.getpid(), signal.SIGKILL)


def stop(_: str = "") -> None:
    """As if hanging; until somebody continues it."""
    os.kill(os.getpid(), signal.SIGSTOP)


def interrupt(_: str = "") -> None:
    """As by Ctrl-C; whether it ends then is its own decision."""
    os.kill(os.getpid(), signal.SIGINT)


def kill_guardian(_: str = "") -> None:
    os.kill(guardian_of(os.getpid()), signal.SIGKILL)


def die_with_guardian(_: str = "") -> None:
    kill_guardian()
    die()


def kill_daemon(_: str = "") -> None:
    """The daemon alone: this process, its worker, goes on."""
    os.kill(os.getppid(), signal.SIGKILL)


def die_with_daemon(_: str = "") -> None:
    kill_daemon()
    die()


def die_with_all(_: str = "") -> None:
    kill_guardian()
    die_with_daemon()


def children_of(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def kill_something(daemon: int, source: random.Random) -> str:
    """From outside: the daemon, its workers, the workers' children (the guardian), in any combination; which.

    Or the process that watches, whose successor nobody has to wait for.
    """
    children = children_of(daemon)
    watching = [pid for pid in children if name_of(pid) == f"swapd {NAME}"]
    workers = [pid for pid in children if pid not in watching]
    # Not the process that extracts: that its end is told, and waits for a touch, has tests of its own.
    guardians = [pid for it in workers for pid in children_of(it) if name_of(pid) == "swapd guardian"]
    groups = {"daemon": [daemon], "worker": workers, "guardian": guardians, "watch": watching}
    combinations = ["daemon", "worker", "guardian", "worker daemon", "worker guardian", "worker guardian daemon"]
    chosen = source.choice([*combinations, "watch", "nothing"])
    for group in chosen.split():
        for pid in groups.get(group, ()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return chosen

"""The steps of a deployment: each call that changes something outside of the process that makes it.

The functions are wrapped where Python meets the kernel (``os``, ``swapd.host.linux``, pidfds, child processes), in a
process that was forked for it; what they do is real. So code under test knows nothing of this, and a step that is
added to it tomorrow is a step here, too.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swapd.host import linux

Act = Callable[[str], object]

CHANGES = ("mkdir", "rmdir", "rename", "replace", "unlink", "remove", "symlink", "link", "chown", "fchown", "chmod")
CHANGES += ("fchmod", "utime", "ftruncate", "truncate", "fsync", "fdatasync", "write")

# What differs from one run to the next: UUIDs, random suffixes, digests, inodes and descriptors are not shown.
_RANDOM = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|(?<=[-.])[0-9a-f]{8,16}\b|(?<=@)[0-9a-f]{12}|(?<=:\[)\d+|(?<=#)\d+")


def _shown(arguments: tuple[Any, ...]) -> str:
    texts = [item for item in arguments if isinstance(item, str | os.PathLike)]
    names = [f"{path.parent.name}/{path.name}" for path in map(Path, texts)]
    return " → ".join(_RANDOM.sub("…", name) for name in names)


def _descriptor(number: int) -> str:
    try:
        return _shown((os.readlink(f"/proc/self/fd/{number}"),))
    except OSError:
        return ""  # in a jail there is no /proc


def install(act: Act) -> None:
    """From now on ``act`` is called before each step of this process, with what the step is about to do."""
    act = _once_at_a_time(act)
    forking = os.fork

    def fork() -> int:
        act("fork")
        return forking()

    os.fork = fork
    for name in CHANGES:
        setattr(os, name, _before(getattr(os, name), name, act))
    opening = os.open

    def open_(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_CREAT or flags & os.O_TMPFILE == os.O_TMPFILE:
            act(f"create {_shown((path,))}")
        return opening(path, flags, *more, **named)

    os.open = open_
    replace_everywhere(linux.renameat2, _before(linux.renameat2, "renameat2", act))
    replace_everywhere(linux.syncfs, _before(linux.syncfs, "syncfs", act))
    sending = signal.pidfd_send_signal

    def send(pidfd: int, number: int, *more: Any) -> None:
        if number:
            act(f"send {signal.Signals(number).name}")
        sending(pidfd, number, *more)

    signal.pidfd_send_signal = send

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, arguments: Any, *more: Any, **named: Any) -> None:
            act(f"start {arguments[-2] if 'guardian' in str(arguments) else arguments[0]}")
            super().__init__(arguments, *more, **named)

    subprocess.Popen = Popen  # type: ignore[misc]


def _once_at_a_time(act: Act) -> Act:
    """What ``act`` itself does is no step, nor what a child forked later does: the one that extracts."""
    acting = False
    installed_in = os.getpid()

    def guarded(step: str) -> None:
        nonlocal acting
        if not acting and os.getpid() == installed_in:
            acting = True
            try:
                act(step)
            finally:
                acting = False

    return guarded


def _before(function: Callable[..., Any], name: str, act: Act) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        if name in ("mkdir", "unlink") and (name == "mkdir") == _is_there(arguments[0], named.get("dir_fd")):
            return function(*arguments, **named)  # it will be refused: no step
        on = _descriptor(arguments[0]) if arguments and type(arguments[0]) is int else _shown(arguments)
        act(f"{name} {on}")
        return function(*arguments, **named)

    return wrapped


def _is_there(path: Any, directory: int | None) -> bool:
    try:
        os.stat(path, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def replace_everywhere(old: Callable[..., Any], new: Callable[..., Any]) -> None:
    """Also where modules have imported it by its name."""
    for module in [module for name, module in sys.modules.items() if name.startswith("swapd")]:
        for name, value in list(vars(module).items()):
            if value is old:
                setattr(module, name, new)


class Counter:
    """Does ``act`` at the N-th step, which is then not done, and tells every step's number and what it was."""

    def __init__(self, number: int, act: Act) -> None:
        self.count = 0
        self._number = number
        self._act = act

    def __call__(self, step: str) -> None:
        self.count += 1
        if self.count == self._number:
            self._act(step)

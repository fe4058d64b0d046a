"""Every call of a process that may reach the kernel, as steps: also those that only look, between which others act.

``tests.crash.steps`` has what changes something outside, which is what matters to a crash; to somebody who changes
files under a process's hands it matters what it reads, and when. Python's profiler tells each call of a function that
is written in C, whoever makes it, so a call that is added to the code tomorrow is a step here, too.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from tests.crash.steps import Act

PACKAGE = str(Path(__file__).parents[2] / "swapd")
KERNEL = ("posix", "fcntl", "io", "_io", "select", "pwd")  # what Python's own modules in C reach it by
# Not: what only looks at its argument or at this process, and what happens to no file of anybody else's.
WITHOUT = ("fspath", "_path_normpath", "getpid", "geteuid", "urandom", "fileno", "waitstatus_to_exitcode", "register")
RAW = f"{PACKAGE}/host/linux.py"  # and ours


def watch(act: Act, begin: str, end: str) -> None:
    """From the call of ``begin`` until ``end`` returns, ``act`` is called before each such call of this process.

    Both are a module's path in the package and a function's name. A step is named by the function of swapd's that
    makes it, by what it calls, and by how often it has done that: a loop that waits has as many as it needs.
    """
    owner = os.getpid()
    seen: Counter[str] = Counter()
    watching = False

    def notice(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal watching
        if os.getpid() != owner:
            sys.setprofile(None)  # a child that was forked from here, whose steps are its own
            return
        if event == "call" and not watching:
            watching = is_at(frame, begin)
        elif event == "return" and watching and is_at(frame, end):
            sys.setprofile(None)
        elif watching and (called := _find_call(frame, event, argument)):
            step = f"{_find_caller(frame)}: {called}"
            seen[step] += 1
            act(f"{step} #{seen[step]}")

    sys.setprofile(notice)


def is_at(frame: FrameType, place: str) -> bool:
    """Whether the frame is of the function that ``place`` names."""
    module, _, function = place.partition(":")
    return frame.f_code.co_name == function and frame.f_code.co_filename == f"{PACKAGE}/{module}"


def _find_call(frame: FrameType, event: str, argument: Any) -> str:
    """What is called of the kernel; empty where nothing is."""
    if event == "c_call":
        owner = type(getattr(argument, "__self__", None)).__module__
        if (owner in KERNEL or argument.__module__ in KERNEL) and argument.__name__ not in WITHOUT:
            return str(argument.__name__)
    elif event == "call" and frame.f_code.co_filename == RAW and not frame.f_code.co_name.startswith("_"):
        return str(frame.f_code.co_name)
    return ""


def _find_caller(frame: FrameType) -> str:
    """The innermost function of swapd's that is not a mere wrapper."""
    at: FrameType | None = frame
    while at is not None:
        if at.f_code.co_filename.startswith(PACKAGE) and at.f_code.co_filename != RAW:
            return f"{Path(at.f_code.co_filename).stem}.{at.f_code.co_name}"
        at = at.f_back
    return "?"

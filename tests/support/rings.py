"""What the rings have in common: tests that need root, and what no test may leave behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


def skip_without_root(items: list[pytest.Item]) -> None:
    """Skips what is marked ``root`` where we are not root; with root nothing is skipped."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


def _descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
    return found


def _children() -> set[str]:
    """By pid; from the kernel's own list, because asking for every process of the machine would take 10 ms a test."""
    return {pid for tasks in Path("/proc/self/task").glob("*/children") for pid in tasks.read_text().split()}


def leaves_nothing() -> Iterator[None]:
    """Fails a test that leaves a descriptor, a child process or a thread behind."""
    descriptors, threads, children = _descriptors(), set(threading.enumerate()), _children()
    yield
    left = {number: path for number, path in _descriptors().items() if number not in descriptors}
    assert not left, f"descriptors left open: {left}"
    assert _children() <= children, f"processes left: {_children() - children}"
    assert set(threading.enumerate()) <= threads, "threads left"

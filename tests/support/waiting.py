"""Waiting for something to become so, with a deadline: no test sleeps and hopes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 30.0  # seconds; on a quiet machine everything here takes a fraction of one
LOOK = 0.005


def wait_until(condition: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """What ``condition`` returned once it was true; fails, naming ``what``, when it never is."""
    deadline = time.monotonic() + patience
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience:g} s: {what}; last: {result!r}")
        time.sleep(LOOK)

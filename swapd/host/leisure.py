"""Leisure: what takes the longer the more there is, such as a look at a whole directory, is not done all the time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

SHARE = 9.0  # of rest for one of work: nine tenths of the time are left for what is waited for


class Leisure:
    """Time to rest between two goes at the same thing: nine times as long as one takes, ``least`` seconds anyway."""

    def __init__(self, least: float = 0.0) -> None:
        self._least = least
        self.until = 0.0  # of time.monotonic()

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.until

    @contextlib.contextmanager
    def earned(self) -> Iterator[None]:
        """A go; the rest counts from its end."""
        begin = time.monotonic()
        try:
            yield
        finally:
            end = time.monotonic()
            self.until = end + max(self._least, SHARE * (end - begin))

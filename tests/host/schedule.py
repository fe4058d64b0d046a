"""Requests that are due on a schedule, whatever becomes of those before them."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

from tests.host.machine import Host

TIMEOUT = 20  # seconds for a single request
V = TypeVar("V")


class Schedule(ABC, Generic[V]):
    """Visitors who come on a schedule, whether or not the ones before them have been served.

    A context manager, entered when the first has been answered. ``requests`` is how many have come so far; ``visits``
    is what became of them all, once it is left.
    """

    def __init__(self, host: Host, name: str, rate: float) -> None:
        """``name`` is the virtual host's, ``rate`` in requests a second."""
        self.host = host
        self.name = name
        self.rate = rate
        self.visits: list[V] = []
        self.requests = 0
        self._answered = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._come)

    def __enter__(self) -> Self:
        self._thread.start()
        self._answered.wait(TIMEOUT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _come(self) -> None:
        started = time.monotonic()
        with ThreadPoolExecutor(max_workers=64, initializer=self.host.join_network) as pool:
            waiting: list[Future[V]] = []
            while not self._stop.wait(max(0.0, started + len(waiting) / self.rate - time.monotonic())):
                waiting.append(pool.submit(self._visit, started + len(waiting) / self.rate))
                self.requests = len(waiting)
            self.visits = [visit.result() for visit in waiting]

    def _visit(self, due: float) -> V:
        visit = self.visit(due)
        self._answered.set()
        return visit

    @abstractmethod
    def visit(self, due: float) -> V:
        """One request, in a thread of the host's network, to its end; it was due at that time of time.monotonic()."""

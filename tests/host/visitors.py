"""Visitors of the host's web server: every file of a release compared, and an open-loop load."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from tests.host.machine import Host
from tests.host.releases import MARK, file_paths

TIMEOUT = 20  # seconds for a single request


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    modified: str = field(default="", compare=False)  # its Last-Modified


def fetch(host: Host, name: str, path: str, since: str = "") -> Response:
    """One request to the virtual host ``name``; ``since`` is its If-Modified-Since."""

    def request() -> Response:
        return _fetch(http.client.HTTPConnection("127.0.0.1", 80, timeout=TIMEOUT), name, path, since=since)

    return host.in_network(request)


def served_differences(host: Host, name: str, tree: Path) -> list[str]:
    """Which files of the tree the virtual host serves otherwise than byte for byte; empty when all is well."""
    # Apache never serves names that begin with .ht
    paths = [path for path in file_paths(tree) if not Path(path).name.startswith(".ht")]
    assert paths, f"{tree} has no files"

    def compare() -> list[str]:
        connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=TIMEOUT)
        try:
            return [found for path in paths if (found := _difference(connection, name, tree, path))]
        finally:
            connection.close()

    return host.in_network(compare)


def _difference(connection: http.client.HTTPConnection, name: str, tree: Path, path: str) -> str:
    response = _fetch(connection, name, path, close=False)
    expected = (tree / path).read_bytes()
    if response == Response(200, expected):
        return ""
    return f"{path}: status {response.status}, {len(response.body)} bytes instead of {len(expected)}"


def _fetch(
    connection: http.client.HTTPConnection, name: str, path: str, *, close: bool = True, since: str = ""
) -> Response:
    headers = {"Host": name, **({"If-Modified-Since": since} if since else {})}
    try:
        connection.request("GET", "/" + quote(path.lstrip("/")), headers=headers)
        response = connection.getresponse()
        return Response(response.status, response.read(), response.getheader("Last-Modified", ""))
    finally:
        if close:
            connection.close()


@dataclass(slots=True)
class Load:
    """Visitors who come on a schedule, whether or not the ones before them have been served.

    A context manager, entered when the first has been answered. ``failures`` says what went wrong for whom; ``worst``
    is the longest that anybody waited, counted from when the request was due.
    """

    host: Host
    name: str
    rate: float = 50.0  # requests a second
    failures: list[str] = field(default_factory=list)
    marks: set[str] = field(default_factory=set)
    requests: int = 0
    worst: float = 0.0
    _answered: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._schedule)
        self._thread.start()
        self._answered.wait(TIMEOUT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def assert_served(self, marks: Collection[str]) -> None:
        """Every visitor was served, by one of the releases that there were."""
        assert self.requests, "no visitor came"
        assert not self.failures, f"{len(self.failures)} of {self.requests} failed: {self.failures[:5]}"
        assert self.marks <= set(marks)

    def _schedule(self) -> None:
        started = time.monotonic()
        with ThreadPoolExecutor(max_workers=64, initializer=self.host.join_network) as visitors:
            waiting: list[Future[tuple[str, str, float]]] = []
            while not self._stop.wait(max(0.0, started + len(waiting) / self.rate - time.monotonic())):
                waiting.append(visitors.submit(self._visit, started + len(waiting) / self.rate))
                self.requests = len(waiting)
            for visit in waiting:
                failure, mark, latency = visit.result()
                if failure:
                    self.failures.append(failure)
                else:
                    self.marks.add(mark)
                self.worst = max(self.worst, latency)

    def _visit(self, due: float) -> tuple[str, str, float]:
        failure, mark = "", ""
        try:
            response = _fetch(http.client.HTTPConnection("127.0.0.1", 80, timeout=TIMEOUT), self.name, MARK)
            mark = response.body.decode(errors="replace").strip()
            if response.status != 200:
                failure = f"status {response.status}"
        except (OSError, http.client.HTTPException) as error:
            failure = repr(error)
        self._answered.set()
        return failure, mark, time.monotonic() - due

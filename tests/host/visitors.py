"""Visitors of the host's web server: every file of a release compared, and an open-loop load."""

from __future__ import annotations

import http.client
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from tests.host.machine import Host
from tests.host.releases import MARK, file_paths
from tests.host.schedule import TIMEOUT, Schedule


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


@dataclass(frozen=True, slots=True)
class Visit:
    """What became of a request, and how long its visitor waited, counted from when it was due."""

    failure: str
    mark: str
    latency: float


class Load(Schedule[Visit]):
    """Visitors who ask which release is served."""

    def __init__(self, host: Host, name: str, rate: float = 50.0) -> None:
        super().__init__(host, name, rate)

    @property
    def failures(self) -> list[str]:
        """What went wrong, for each for whom something did."""
        return [visit.failure for visit in self.visits if visit.failure]

    @property
    def marks(self) -> set[str]:
        """The releases that were served."""
        return {visit.mark for visit in self.visits if not visit.failure}

    @property
    def worst(self) -> float:
        """The longest that anybody waited."""
        return max((visit.latency for visit in self.visits), default=0.0)

    def assert_served(self, marks: Collection[str]) -> None:
        """Every visitor was served, by one of the releases that there were."""
        assert self.requests, "no visitor came"
        assert not self.failures, f"{len(self.failures)} of {self.requests} failed: {self.failures[:5]}"
        assert self.marks <= set(marks), f"served were {self.marks}"

    def visit(self, due: float) -> Visit:
        failure, mark = "", ""
        try:
            response = _fetch(http.client.HTTPConnection("127.0.0.1", 80, timeout=TIMEOUT), self.name, MARK)
            mark = response.body.decode(errors="replace").strip()
            if response.status != 200:
                failure = f"status {response.status}"
        except (OSError, http.client.HTTPException) as error:
            failure = repr(error)
        return Visit(failure, mark, time.monotonic() - due)

"""Hosts for the tests of this ring, and what no test on a host may leave behind.

The ring needs root, for namespaces and mounts. Without it nothing here is collected, and the run says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.host import journal
from tests.host.machine import Host, NotYet, booted, sweep, wait_until
from tests.host.package import built_package, dependencies
from tests.host.roots import debian_root
from tests.host.webhost import PACKAGES, WebHost

if os.geteuid() != 0:
    collect_ignore_glob = ["test_*.py"]


def pytest_report_header() -> str | None:
    return "host ring: left out, because it needs root" if os.geteuid() else None


@pytest.fixture(scope="session")
def package() -> Path:
    """The built .deb."""
    return built_package()


@pytest.fixture(scope="session")
def base(package: Path) -> Path:
    """A Debian root with a web server, sshd, and all that the package depends on: installing it needs no network."""
    sweep()
    return debian_root([*PACKAGES, *dependencies(package)])


@pytest.fixture(scope="module")
def mpm() -> str:
    """Apache's multi-processing module; a test module that wants others parametrises this."""
    return "event"


@pytest.fixture(scope="module")
def host(base: Path, mpm: str) -> Iterator[Host]:
    """A booted host for the tests of a module, one for each of Apache's modules that it asks for."""
    del mpm
    with booted(base) as host:
        yield host


@pytest.fixture(scope="module")
def web(host: Host, package: Path, mpm: str) -> WebHost:
    """The host with swapd installed and Apache running the module ``mpm``."""
    web = WebHost(host)
    web.use_mpm(mpm)
    web.install(package)
    return web


@dataclass(slots=True)
class Expected:
    """What a test declares to happen that would otherwise make it fail."""

    warnings: list[dict[str, str]] = field(default_factory=list)
    restarts: bool = False

    def warning(self, **fields: str) -> None:
        """A journal record at warning or worse that has these fields; MESSAGE need only contain the text."""
        self.warnings.append(fields)

    def covers(self, record: journal.Record) -> bool:
        return any(
            all(
                value in record.get(key, "") if key == "MESSAGE" else record.get(key) == value
                for key, value in fields.items()
            )
            for fields in self.warnings
        )


@pytest.fixture
def expected() -> Expected:
    """Where a test declares what it means to provoke."""
    return Expected()


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest, expected: Expected) -> Iterator[None]:
    """Fails a test on journal lines of swapd that it did not declare, on a stopped httpd, on a unit that is down."""
    if "web" not in request.fixturenames:
        yield
        return
    web: WebHost = request.getfixturevalue("web")
    before = journal.mark(web.host)
    restarts = web.unit("NRestarts")
    yield
    # A pause that is under way is no leftover; one that outlasts every allowed pause is.
    try:
        wait_until(lambda: not web.stopped_httpd(), "all httpd processes run", deadline=5)
    except NotYet as error:
        pytest.fail(f"{error}: {web.stopped_httpd()} are stopped")
    if surprising := journal.warnings(web.host, after=before, known=expected.covers):
        pytest.fail("unexpected journal lines:\n" + "\n".join(surprising))
    if (state := web.unit("ActiveState")) != "active":
        pytest.fail(f"swapd.service is {state} ({web.unit('Result')})")
    if not expected.restarts and web.unit("NRestarts") != restarts:
        pytest.fail(f"swapd.service was restarted {web.unit('NRestarts')} times, {restarts} before")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Adds what the host has to say to the report of a test that failed."""
    result = yield
    report = result.get_result()  # type: ignore[attr-defined]
    web = getattr(item, "funcargs", {}).get("web")
    if report.failed and isinstance(web, WebHost) and not web.host.ended:
        report.sections.append(("swapd on the host", web.describe()))

"""The pipeline ring: whole deployments below a scratch root, with real tarballs and processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.httpd import Httpd
from tests.support.rings import leaves_nothing, skip_without_root
from tests.support.sites import Scratch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_without_root(items)


@pytest.fixture(autouse=True)
def _leaves_nothing() -> Iterator[None]:
    yield from leaves_nothing()


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    """A swapd of the test's own; its daemons end with the test, and must end well."""
    scratch = Scratch(tmp_path / "root")
    yield scratch
    for daemon in scratch.daemons:
        daemon.stop()


@pytest.fixture
def httpd() -> Iterator[Httpd]:
    """A master with three workers."""
    with Httpd(workers=3) as httpd:
        yield httpd

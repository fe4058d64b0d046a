"""The crash ring: swapd killed at every step, restarted, and found whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.httpd import Httpd
from tests.support.rings import leaves_nothing, skip_without_root
from tests.support.sites import Scratch


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: takes long; only with -m soak, which is what `make soak` says")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skip_without_root(items)
    if "soak" not in config.option.markexpr:
        long = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(autouse=True)
def _leaves_nothing() -> Iterator[None]:
    yield from leaves_nothing()


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory where there is one: a kill loses nothing of what the kernel has, and syncing takes long."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="swapd-crash-", dir=place) as directory:
        yield Path(directory)


@pytest.fixture
def scratch(memory: Path) -> Iterator[Scratch]:
    """A swapd of the test's own; its daemons end with the test, and must end well."""
    scratch = Scratch(memory / "root")
    yield scratch
    complaints = []
    for daemon in scratch.daemons:
        try:
            daemon.stop()
        except AssertionError as error:
            complaints.append(str(error))
    assert not complaints, "\n".join(complaints)


@pytest.fixture
def httpd() -> Iterator[Httpd]:
    """A master with two workers: enough for an order, and quick."""
    with Httpd(workers=2) as httpd:
        yield httpd

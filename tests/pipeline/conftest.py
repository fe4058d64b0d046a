"""The pipeline ring: whole deployments below a scratch root, with real tarballs and processes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.httpd import Httpd
from tests.support.rings import leaves_nothing, skip_without_root
from tests.support.sites import Scratch
from tests.support.tarballs import write_tarball


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


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scratch]:
    """A swapd whose daemon the tests of a module share, each with sites of its own."""
    farm = Scratch(tmp_path_factory.mktemp("farm") / "root")
    farm.start_daemon()
    yield farm
    for daemon in farm.daemons:
        daemon.stop()


@pytest.fixture
def plot(farm: Scratch) -> Iterator[Callable[..., Scratch]]:
    """Adds a site to the module's daemon, with the keys that it is given."""
    yield farm.plot
    assert farm.daemon.is_alive(), farm.daemon.log()


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tarball of thousands of files, which takes a good part of a second to extract. Not to be changed."""
    source = random.Random(1)
    content = {f"data/{number % 50}/{number}.bin": source.randbytes(3000) for number in range(4000)}
    return write_tarball(tmp_path_factory.mktemp("large") / "large.tar", {"index.html": "large", **content})


@pytest.fixture
def httpd() -> Iterator[Httpd]:
    """A master with three workers."""
    with Httpd(workers=3) as httpd:
        yield httpd

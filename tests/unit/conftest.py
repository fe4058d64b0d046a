"""The unit ring: values, and real files and processes; unprivileged but for what is marked ``root``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.rings import leaves_nothing, skip_without_root

# A time limit for one example fails on a busy machine; a database of examples is one more thing left behind.
settings.register_profile("swapd", deadline=None, database=None)
settings.load_profile("swapd")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_without_root(items)


@pytest.fixture(autouse=True)
def _leaves_nothing() -> Iterator[None]:
    yield from leaves_nothing()

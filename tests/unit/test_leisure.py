"""Rest between two goes at what takes long."""

from __future__ import annotations

import time

import pytest

from swapd.host.leisure import SHARE, Leisure


def test_the_rest_is_a_share_of_the_work() -> None:
    leisure = Leisure()
    assert leisure.is_over
    begin = time.monotonic()
    with leisure.earned():
        while time.monotonic() == begin:
            pass
    assert leisure.until - time.monotonic() <= SHARE * (time.monotonic() - begin)
    assert leisure.until > begin


def test_it_is_not_shorter_than_the_least_also_after_an_error() -> None:
    leisure = Leisure(3600.0)
    with pytest.raises(BlockingIOError), leisure.earned():
        raise BlockingIOError
    assert not leisure.is_over
    assert leisure.until > time.monotonic() + 3000

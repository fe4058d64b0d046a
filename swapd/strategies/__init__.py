"""The ways in which a release takes the place of the live one: one module each, behind the interface ``Way``."""

from __future__ import annotations

from swapd.model.config import Strategy
from swapd.strategies import exchange, pinned, rename, symlink
from swapd.strategies.way import Way

WAYS: dict[Strategy, Way] = {
    Strategy.SYMLINK: symlink,
    Strategy.EXCHANGE: exchange,
    Strategy.RENAME: rename,
    Strategy.PINNED: pinned,
}

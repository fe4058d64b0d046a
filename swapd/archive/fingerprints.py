"""A set of 64-bit numbers that takes little more than 21 bytes for each at most; Python's own takes about 70."""

from __future__ import annotations

from array import array

_FEWEST = 64
# As many tables, which grow at different moments: while one does, it is there twice, and the others are not.
_TABLES = 16


class Fingerprints:
    """The numbers that were added; 0 and 1 are taken for one."""

    def __init__(self) -> None:
        self._tables = [_Table() for _ in range(_TABLES)]

    def add(self, number: int) -> bool:
        """Whether the number is new."""
        number = number or 1
        return self._tables[(number >> 60) % _TABLES].add(number)


class _Table:
    """Numbers but 0, by open addressing."""

    def __init__(self) -> None:
        self._count = 0
        self._slots = array("q", [0]) * _FEWEST

    def add(self, number: int) -> bool:
        if 4 * self._count >= 3 * len(self._slots):
            old = self._slots
            self._slots = array("q", [0]) * (2 * len(old))
            for each in old:
                if each:
                    self._slots[self._find(each)] = each
        slot = self._find(number)
        if self._slots[slot]:
            return False
        self._slots[slot] = number
        self._count += 1
        return True

    def _find(self, number: int) -> int:
        """The number's slot, or the free one where it belongs."""
        slots = self._slots
        mask = len(slots) - 1
        slot = number & mask
        while slots[slot] not in (0, number):
            slot = slot + 1 & mask
        return slot

"""A stream cut into tar's 512-byte blocks and the contents between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from swapd.archive.names import shown
from swapd.model.errors import Rejected

SIZE = 512
UPLOAD_AGAIN = "It is truncated: upload it again."


class Blocks(Protocol):
    """Where the bytes come from: ``next_block`` returns none only at a verified end."""

    def next_block(self) -> bytes: ...


class BlockReader:
    """A stream cut into pieces of exact length."""

    def __init__(self, stream: Blocks) -> None:
        self._stream = stream
        self._chunk = b""
        self._at = 0

    def header(self) -> bytes:
        """The next 512 bytes; fewer only where the stream ends, and none at its end."""
        at = self._at
        block = self._chunk[at : at + SIZE]
        self._at = at + len(block)
        while len(block) < SIZE and self._refill():
            missing = self._chunk[: SIZE - len(block)]
            self._at = len(missing)
            block += missing
        return block

    def pieces(self, count: int, name: bytes) -> Iterable[memoryview]:
        """Exactly ``count`` bytes, piece by piece, uncopied; ``Rejected`` where the stream ends before."""
        end = self._at + count
        if count and end <= len(self._chunk):  # as most files have it
            piece = memoryview(self._chunk)[self._at : end]
            self._at = end
            return (piece,)
        return self._pieces(count, name)

    def _pieces(self, count: int, name: bytes) -> Iterator[memoryview]:
        while count:
            if self._at == len(self._chunk) and not self._refill():
                raise Rejected.because("truncated", f"the archive ends inside {shown(name)}", UPLOAD_AGAIN)
            piece = memoryview(self._chunk)[self._at : self._at + count]
            self._at += len(piece)
            count -= len(piece)
            yield piece

    def skip(self, count: int, name: bytes) -> None:
        """Leaves out exactly ``count`` bytes."""
        end = self._at + count
        if end <= len(self._chunk):
            self._at = end
            return
        for _ in self._pieces(count, name):
            pass

    def rest(self) -> Iterator[bytes]:
        """Everything up to the stream's end."""
        yield self._chunk[self._at :]
        while self._refill():
            yield self._chunk
        self._at = len(self._chunk)

    def _refill(self) -> bool:
        self._chunk = self._stream.next_block()
        self._at = 0
        return bool(self._chunk)

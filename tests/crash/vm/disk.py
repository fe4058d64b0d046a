"""A disk with a write cache that a power cut loses: a block device for a virtual machine, served over NBD.

What the guest writes is in the cache until the guest asks for a flush, or says with the write itself that it must last
(FUA). A power cut leaves of the cache whatever chance decides: for each block of 4 KiB, which is written as a whole or
not at all, what was durable or any of the versions that were written since, in no order. That is all that a disk
promises, and harder than most disks are. What is durable is in a file.

https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
from pathlib import Path

BLOCK = 4096  # bytes; the guest is told that this is the size of a sector

INIT_PASSWORD, OPTION_MAGIC = b"NBDMAGIC", b"IHAVEOPT"
OPTION_REPLY_MAGIC, REQUEST_MAGIC, REPLY_MAGIC = 0x3E889045565A9, 0x25609513, 0x67446698
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
OPTION_ABORT, OPTION_GO = 2, 7
REPLY_ACK, REPLY_INFO, REPLY_UNSUPPORTED = 1, 3, (1 << 31) + 1
INFO_EXPORT, INFO_BLOCK_SIZE = 0, 3
HAS_FLAGS, SEND_FLUSH, SEND_FUA = 1, 4, 8
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
FUA = 1
MOST = 1 << 25  # bytes of one request


class Disk:
    """A file as a disk with a cache. ``plug`` it into one machine at a time, and ``cut`` it off in the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size
        self._cache: dict[int, list[bytes]] = {}  # by the block's number: its versions since the last flush
        self._served: threading.Thread | None = None
        self._file = -1

    def plug(self) -> socket.socket:
        """The guest's end of the cable: a connected socket, which the machine is to inherit. Close it here then."""
        ours, theirs = socket.socketpair()
        self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        self._served = threading.Thread(target=self._serve, args=(ours,))
        self._served.start()
        return theirs

    def cut(self, source: random.Random) -> str:
        """Once the machine is gone: what of the cache was written at that moment is there, the rest is lost; how much.

        Sometimes none of it, sometimes all.
        """
        self.unplug()
        lasting = source.choice((0.0, 0.0, 1.0, source.random()))
        lost = 0
        file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            for number, versions in self._cache.items():
                if source.random() < lasting:
                    os.pwrite(file, versions[-1], number * BLOCK)
                    continue
                lost += 1
                # With 0.0 nothing at all: not even an older version.
                older = [None, *versions[:-1]] if lasting else [None]
                if (version := source.choice(older)) is not None:
                    os.pwrite(file, version, number * BLOCK)
        finally:
            os.close(file)
        count = len(self._cache)
        self._cache.clear()
        return f"{lost} of {count} blocks in the cache lost"

    def unplug(self) -> None:
        """Waits for the machine's end of the cable to be closed."""
        if self._served is not None:
            self._served.join()
            os.close(self._file)
            self._served = None

    def _serve(self, cable: socket.socket) -> None:
        with cable:
            try:
                self._negotiate(cable)
                while self._answer(cable):
                    pass
            except (ConnectionError, EOFError):
                pass  # the machine was killed

    def _negotiate(self, cable: socket.socket) -> None:
        cable.sendall(INIT_PASSWORD + OPTION_MAGIC + struct.pack(">H", FIXED_NEWSTYLE | NO_ZEROES))
        _receive(cable, 4)
        while True:
            magic, option, length = struct.unpack(">8sII", _receive(cable, 16))
            assert magic == OPTION_MAGIC
            _receive(cable, length)
            if option == OPTION_GO:
                export = struct.pack(">HQH", INFO_EXPORT, self._size, HAS_FLAGS | SEND_FLUSH | SEND_FUA)
                blocks = struct.pack(">HIII", INFO_BLOCK_SIZE, BLOCK, BLOCK, MOST)
                for kind, data in ((REPLY_INFO, export), (REPLY_INFO, blocks), (REPLY_ACK, b"")):
                    _reply(cable, option, kind, data)
                return
            _reply(cable, option, REPLY_ACK if option == OPTION_ABORT else REPLY_UNSUPPORTED)
            if option == OPTION_ABORT:
                raise EOFError

    def _answer(self, cable: socket.socket) -> bool:
        magic, flags, kind, cookie, offset, length = struct.unpack(">IHHQQI", _receive(cable, 28))
        assert magic == REQUEST_MAGIC
        if kind == DISCONNECT:
            return False
        data = b""
        if kind == READ:
            data = self._read(offset, length)
        elif kind == WRITE:
            self._write(offset, _receive(cable, length), is_durable=bool(flags & FUA))
        elif kind == FLUSH:
            self._flush()
        else:
            raise AssertionError(f"an NBD command that was not offered: {kind}")
        cable.sendall(struct.pack(">IIQ", REPLY_MAGIC, 0, cookie) + data)
        return True

    def _read(self, offset: int, length: int) -> bytes:
        data = bytearray(os.pread(self._file, length, offset))
        if self._cache:
            for number in range(offset // BLOCK, (offset + length) // BLOCK):
                if (versions := self._cache.get(number)) is not None:
                    begin = number * BLOCK - offset
                    data[begin : begin + BLOCK] = versions[-1]
        return bytes(data)

    def _write(self, offset: int, data: bytes, *, is_durable: bool) -> None:
        assert offset % BLOCK == 0
        assert len(data) % BLOCK == 0
        for begin in range(0, len(data), BLOCK):
            number = (offset + begin) // BLOCK
            if is_durable:
                self._cache.pop(number, None)
            else:
                self._cache.setdefault(number, []).append(data[begin : begin + BLOCK])
        if is_durable:
            os.pwrite(self._file, data, offset)

    def _flush(self) -> None:
        for number, versions in self._cache.items():
            os.pwrite(self._file, versions[-1], number * BLOCK)
        self._cache.clear()


def _receive(cable: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = cable.recv(count - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)


def _reply(cable: socket.socket, option: int, kind: int, data: bytes = b"") -> None:
    cable.sendall(struct.pack(">QIII", OPTION_REPLY_MAGIC, option, kind, len(data)) + data)

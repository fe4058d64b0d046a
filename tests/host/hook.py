"""Where the workers of one host ask at which step to wait: the other end of ``tests.crash.held``.

A socket's name needs no common network, and its credentials come in the reader's own numbers: so a worker in the
host's sandbox waits for the test outside, which knows it by its pid.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEADLINE = 30.0  # seconds for a worker to come to a step; it takes a fraction of one


@dataclass(frozen=True, slots=True)
class Held:
    """A worker that waits right before a step."""

    pid: int
    connection: socket.socket

    def release(self) -> None:
        """Lets it go on, if it is still there."""
        with contextlib.suppress(OSError):
            self.connection.sendall(b".")
        self.connection.close()


class Hook:
    """Gives each upload's worker its order; without one, the worker goes on as ever. Close it."""

    def __init__(self, path: Path) -> None:
        self._orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._taken: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _answer(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            try:
                order = self._orders.get_nowait()
            except queue.Empty:
                connection.close()
                continue
            connection.sendall(json.dumps(order).encode() + b"\n")
            self._taken.put(connection)

    def close(self) -> None:
        # Closing alone does not wake up whoever is in accept().
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def hold(self, step: str) -> None:
        """The worker of the next upload waits right before the step."""
        self._orders.put({"hold": step})

    def wait_held(self) -> Held:
        """The worker that waits. ``AssertionError`` when its upload ended without that step."""
        connection = self._taken.get(timeout=DEADLINE)
        connection.settimeout(DEADLINE)
        if not connection.recv(4096):
            connection.close()
            raise AssertionError("the step was never taken")
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return Held(struct.unpack("3i", credentials)[0], connection)

    def tell(self) -> None:
        """The worker of the next upload tells its steps."""
        self._orders.put({"tell": True})

    def told(self) -> Iterator[str]:
        """The steps, as they are taken, to the upload's end."""
        with self._taken.get(timeout=DEADLINE) as connection:
            connection.settimeout(DEADLINE)
            with connection.makefile() as lines:
                yield from (line.rstrip("\n") for line in lines)

"""The daemon's worker, which waits at a step for whoever listens; its argument is the listener's SOCKET.

The steps are those of ``tests.crash.steps``, and both sides of each word to the journal. Before each upload it asks the
listener (``tests.host.hook``) for an order: to go on, to tell every step, or to say so and wait right before one of
them. What then befalls it, the daemon or the guardian is done from outside.
"""

from __future__ import annotations

import json
import socket
from collections import Counter
from typing import Any

from swapd import worker
from swapd.host.journal import NativeJournal
from swapd.model.config import Site
from swapd.model.layout import Layout
from swapd.model.message_ids import MessageId
from tests.crash.steps import install


class Hold:
    """Called before each step."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connection: socket.socket | None = None
        self._order: dict[str, Any] = {}
        self._seen: Counter[str] = Counter()

    def ask(self) -> None:
        """Gets the order for the upload that comes next; nobody there means to go on."""
        self.leave()
        self._seen.clear()
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self._address)
        except OSError:
            connection.close()
            return
        self._order = json.loads(connection.makefile().readline() or "{}")
        self._connection = connection

    def leave(self) -> None:
        """The end of the upload, for the listener."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __call__(self, step: str) -> None:
        if self._connection is None:
            return
        self._seen[step] += 1
        name = f"{step} #{self._seen[step]}"
        if self._order.get("tell"):
            self._connection.sendall(f"{name}\n".encode())
        elif self._order.get("hold") == name:
            self._connection.sendall(f"{name}\n".encode())
            self._connection.recv(1)


real_work = worker.work


def work(arguments: list[str], site: Site, layout: Layout) -> None:
    hold = Hold(arguments[0])
    take_up = worker.Worker.take_up

    def held(self: worker.Worker, document: dict[str, Any]) -> None:
        hold.ask()
        try:
            take_up(self, document)
        finally:
            hold.leave()

    worker.Worker.take_up = held  # type: ignore[method-assign]
    install(hold)
    _install_telling(hold)
    real_work(site, layout)


def _install_telling(hold: Hold) -> None:
    transmit = NativeJournal._transmit

    def telling(self: NativeJournal, priority: int, message: str, fields: Any) -> bool:
        what = MessageId(fields["MESSAGE_ID"]).name if "MESSAGE_ID" in fields else "something"
        hold(f"before {what}")
        is_sent = transmit(self, priority, message, fields)
        hold(f"after {what}")
        return is_sent

    NativeJournal._transmit = telling  # type: ignore[method-assign]

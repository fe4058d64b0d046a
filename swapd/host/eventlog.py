"""Where events go: the journal on a host, standard error below ``--root``."""

from __future__ import annotations

import logging

from swapd.host.journal import NATIVE_SOCKET, JournalHandler, Record, open_journal
from swapd.model import events
from swapd.model.events import Event
from swapd.model.layout import Layout


def _describe_dropped(count: int) -> Record:
    event = events.records_dropped(count)
    return event.priority, event.message, event.journal_fields


class EventLog:
    """Emits events, and takes in what Python's logging says."""

    def __init__(self, layout: Layout, *, is_command: bool = False) -> None:
        """``is_command``: not one of the unit's own processes, and yet part of what ``journalctl -u swapd`` tells."""
        self._fields = {"OBJECT_SYSTEMD_UNIT": "swapd.service"} if is_command else {}
        self._journal = open_journal(socket_path=NATIVE_SOCKET if layout.is_host else None, describe=_describe_dropped)
        root = logging.getLogger()
        root.setLevel(logging.INFO)
        root.handlers = [JournalHandler(self._journal)]  # and not those of whom we were forked from

    def emit(self, event: Event) -> None:
        """Never blocks and never raises; what the journal does not take is counted and reported later."""
        self._journal.send(event.priority, event.message, {**event.journal_fields, **self._fields})

"""Where events go: the journal on a host, standard error below ``--root``."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from swapd.host.journal import NATIVE_SOCKET, JournalHandler, NativeJournal, Record, open_journal
from swapd.host.journalctl import find_message_ids
from swapd.model import events
from swapd.model.events import Event
from swapd.model.layout import Layout
from swapd.model.release import DeploymentId

# ``journalctl -u swapd`` shows what has this, also where it comes from a command, or from a process that was gone
# before journald could look up its unit.
UNIT = {"OBJECT_SYSTEMD_UNIT": "swapd.service"}


def _describe_dropped(count: int) -> Record:
    event = events.records_dropped(count)
    return event.priority, event.message, event.journal_fields


class EventLog:
    """Emits events, and takes in what Python's logging says."""

    def __init__(self, layout: Layout) -> None:
        self._journal = open_journal(socket_path=NATIVE_SOCKET if layout.is_host else None, describe=_describe_dropped)
        self._known: set[object] = set()  # deployments of which nobody need be asked what was told
        root = logging.getLogger()
        root.setLevel(logging.INFO)
        root.handlers = [JournalHandler(self._journal)]  # and not those of whom we were forked from

    def emit(self, event: Event) -> None:
        """Never blocks and never raises; what the journal does not take is counted and reported later."""
        self._known.add(event.fields.get("SWAPD_DEPLOYMENT"))
        self._journal.send(event.priority, event.message, {**event.journal_fields, **UNIT})

    def find_told(self, deployments: Collection[DeploymentId]) -> Mapping[DeploymentId, frozenset[str]]:
        """The ids of what the journal has of deployments that another process may have left between two words.

        Those of which that is not known are left out: they are as their records say. Each is asked for once, so that
        nothing is told again and again to a journal that does not store it.
        """
        unknown = [deployment for deployment in deployments if deployment not in self._known]
        self._known.update(unknown)
        if not unknown or not isinstance(self._journal, NativeJournal):
            return {}
        return find_message_ids(unknown) or {}

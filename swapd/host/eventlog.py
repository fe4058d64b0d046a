"""Where events go: the journal on a host, standard error below ``--root``."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Collection, Mapping

from swapd.host.journal import NATIVE_SOCKET, JournalHandler, NativeJournal, Record, Value, describe_lost, open_journal
from swapd.host.journalctl import find_message_ids
from swapd.host.losses import Losses
from swapd.model.events import Event, Loss
from swapd.model.layout import Layout
from swapd.model.message_ids import MessageId
from swapd.model.release import DeploymentId

log = logging.getLogger(__name__)

# ``journalctl -u swapd`` shows what has this, also where it comes from a command, or from a process that was gone
# before journald could look up its unit.
UNIT = {"OBJECT_SYSTEMD_UNIT": "swapd.service"}


def _describe_lost(loss: Loss) -> Record:
    priority, message, fields = describe_lost(loss)
    return priority, message, {**fields, **UNIT}


def _fields_of(record: logging.LogRecord) -> dict[str, Value]:
    """Of what no event says: what nobody foresaw is an error, and what works less well a warning."""
    kind = MessageId.UNEXPECTED if record.levelno >= logging.ERROR else MessageId.DEGRADED
    return {"MESSAGE_ID": kind.value, **UNIT}


def take_in_complaints() -> None:
    """From now on, what Python itself complains of goes to the journal, of this process and of those forked from it.

    It writes such things to standard error. In a unit that is a stream to journald, and a write there waits for a
    journald that is stopped, for ever.
    """
    logging.captureWarnings(True)
    sys.excepthook = lambda kind, error, trace: log.critical("an unexpected error", exc_info=(kind, error, trace))
    sys.unraisablehook = lambda told: log.error("%s: %r", told.err_msg or "an ignored error", told.exc_value)
    threading.excepthook = lambda told: log.error("an unexpected error in a thread: %r", told.exc_value)


class EventLog:
    """Emits events, and takes in what Python's logging says."""

    def __init__(self, layout: Layout) -> None:
        self._journal = open_journal(
            socket_path=NATIVE_SOCKET if layout.is_host else None,
            losses=Losses(layout.lost_records),
            describe=_describe_lost,
        )
        self._known: set[object] = set()  # deployments of which nobody need be asked what was told
        root = logging.getLogger()
        root.setLevel(logging.INFO)
        root.handlers = [JournalHandler(self._journal, _fields_of)]  # and not those of whom we were forked from

    def emit(self, event: Event) -> None:
        """Never blocks and never raises; what the journal does not take is counted and reported later, by anybody."""
        self._known.add(event.fields.get("SWAPD_DEPLOYMENT"))
        self._journal.send(event.priority, event.message, {**event.journal_fields, **UNIT})

    @property
    def lost(self) -> int:
        """How many records the journal did not take, of all processes, and has not been told of."""
        return self._journal.dropped

    def report_losses(self) -> bool:
        """Says how many records the journal did not take, of all processes; whether nothing is left to say."""
        return self._journal.report_losses()

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

"""A small transport of our own to the journal: records with fields, never blocking, never raising.

Facts that this rests on:

- The native socket takes one record per datagram. ``NAME\\n`` + a 64-bit little-endian length + the value + ``\\n``
  frames a field by its length, so nothing inside a value can end it or begin another one.
- A datagram to a receiver whose queue is full blocks its sender, unless it is sent with MSG_DONTWAIT. swapd must not
  hang on a journal that is stopped or slow: the record is lost and counted, and the count is the next record sent, by
  whichever process of ours.
- A record larger than the socket's send buffer is EMSGSIZE. It goes as a memfd in SCM_RIGHTS with an empty datagram;
  journald maps such a file only when it is sealed, since its writer could change it underneath otherwise.
- journald drops a field whose name begins with an underscore (those are its own) or is longer than 64 characters.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import logging
import os
import re
import select
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from swapd.host.files import write_all
from swapd.host.losses import Losses
from swapd.model.events import Loss, records_dropped

NATIVE_SOCKET = Path("/run/systemd/journal/socket")
BOOTED = Path("/run/systemd/system")  # is there where systemd runs, sd_booted(3)

Value = str | bytes | int
Record = tuple[int, str, Mapping[str, Value]]  # priority, message, fields

LEVELS = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
ERROR, WARNING, NOTICE, INFO, DEBUG = 3, 4, 5, 6, 7  # syslog's numbers, as PRIORITY has them

_FIELD_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_OWN_FIELDS = frozenset({"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER"})  # set here, once each
# What makes journalctl print "[blob data]" in place of a message, and what could move a terminal's cursor.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def is_field_name(name: str) -> bool:
    """Whether the journal takes a field of this name from us."""
    return _FIELD_NAME.fullmatch(name) is not None


def describe_lost(loss: Loss) -> Record:
    """The record that says how many others were lost."""
    event = records_dropped(loss)
    return event.priority, event.message, event.journal_fields


class Journal:
    """Where records go. What is lost is counted among ``losses``, and reported before the next one that goes through.

    Safe to use from several threads and after a fork. ``describe`` makes the record that reports the losses.
    """

    def __init__(self, losses: Losses | None = None, describe: Callable[[Loss], Record] = describe_lost) -> None:
        self._losses = losses or Losses()
        self._describe = describe
        self._lock = threading.RLock()
        self._pid = os.getpid()

    @property
    def dropped(self) -> int:
        """How many records were lost, and that is not said yet."""
        return self._losses.count

    def send(self, priority: int, message: str, fields: Mapping[str, Value]) -> None:
        """Hands one record over, or counts it as dropped. Fields with a name the journal refuses are left out."""
        if self._pid != os.getpid():  # a fork may have copied the lock while another thread held it
            self._pid, self._lock = os.getpid(), threading.RLock()
            self._begin_anew()
        with self._lock:
            if not self.report_losses() or not self._transmit(priority, message, fields):
                self._losses.add()

    def report_losses(self) -> bool:
        """Says how many records were lost, if any were; whether nothing is left to say. Never blocks, never raises."""
        if not self._losses.count:
            return True
        with self._lock, self._losses.taken() as taken:
            if taken and not self._transmit(*self._describe(taken[0])):
                taken.clear()
                return False
        return True

    def _begin_anew(self) -> None:
        """In a process that was forked from the one that opened it, whose descriptors may have been closed since."""

    def close(self) -> None:
        """Gives its descriptors back; records sent afterwards are dropped."""

    def _transmit(self, priority: int, message: str, fields: Mapping[str, Value]) -> bool:
        """Whether the record went through; neither blocks nor raises."""
        raise NotImplementedError


class NativeJournal(Journal):
    """journald's native socket. It is looked up for every record, so a journald that comes back is found again."""

    def __init__(
        self,
        identifier: str,
        socket_path: Path,
        losses: Losses | None = None,
        describe: Callable[[Loss], Record] = describe_lost,
    ) -> None:
        super().__init__(losses, describe)
        self._identifier = identifier
        self._address = os.fspath(socket_path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def _begin_anew(self) -> None:
        self._socket.detach()  # its number may be another's by now
        with contextlib.suppress(OSError):  # in a jail there may be none: then what is sent is lost
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def close(self) -> None:
        self._socket.close()

    def _transmit(self, priority: int, message: str, fields: Mapping[str, Value]) -> bool:
        record = encode_record(priority, message, self._identifier, fields)
        try:
            self._socket.sendto(record, socket.MSG_DONTWAIT, self._address)
        except OSError as error:
            # EAGAIN: the queue is full; ENOENT, ECONNREFUSED: journald is away; ENOBUFS: too large for this moment.
            return error.errno in (errno.EMSGSIZE, errno.ENOBUFS) and self._transmit_memfd(record)
        return True

    def _transmit_memfd(self, record: bytes) -> bool:
        try:
            descriptor = os.memfd_create("swapd-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError:
            return False
        try:
            write_all(descriptor, record)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
            # socket.send_fds() ignores its flags and address (seen in CPython 3.11): it would block.
            self._socket.sendmsg([], [rights], socket.MSG_DONTWAIT, self._address)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True


class StderrJournal(Journal):
    """Records as lines of text, for a terminal, a pipe or a file; and for journald's stream, with its ``<N>`` prefix.

    Each line of a message bears the prefix, or is indented below the first one: text inside cannot pass for a record.
    """

    def __init__(
        self,
        descriptor: int = 2,
        losses: Losses | None = None,
        describe: Callable[[Loss], Record] = describe_lost,
    ) -> None:
        super().__init__(losses, describe)
        self._descriptor = descriptor
        self._has_prefix = is_journal_stream(descriptor)
        self._is_line_open = False  # a line was cut short: the next record must not be glued to it

    def _transmit(self, priority: int, message: str, fields: Mapping[str, Value]) -> bool:  # noqa: ARG002 - text only
        text = _prefixed(priority, message) if self._has_prefix else _friendly(priority, message)
        rest = memoryview((b"\n" if self._is_line_open else b"") + text.encode())
        try:
            while rest:
                if not _is_writable(self._descriptor):
                    return False
                # Room for PIPE_BUF bytes is what "writable" promises of a pipe; more could block.
                rest = rest[os.write(self._descriptor, rest[: select.PIPE_BUF]) :]
                self._is_line_open = bool(rest)
        except OSError:
            return False
        return True


def open_journal(
    identifier: str = "swapd",
    socket_path: Path | None = NATIVE_SOCKET,
    losses: Losses | None = None,
    describe: Callable[[Loss], Record] = describe_lost,
) -> Journal:
    """The journal's native socket where there is one, else standard error (always, with ``socket_path=None``).

    A host that systemd runs has one, also while journald is away: then standard error leads nowhere, for good.
    """
    if socket_path is not None and (_is_socket(socket_path) or (socket_path == NATIVE_SOCKET and BOOTED.is_dir())):
        return NativeJournal(identifier, socket_path, losses, describe)
    return StderrJournal(losses=losses, describe=describe)


def encode_record(priority: int, message: str, identifier: str, fields: Mapping[str, Value]) -> bytes:
    """A record in the journal's native form. Values keep their exact bytes; only the message is made legible."""
    parts = [
        _encode_field("MESSAGE", _legible(message)),
        _encode_field("PRIORITY", min(max(priority, 0), 7)),
        _encode_field("SYSLOG_IDENTIFIER", identifier),
    ]
    parts += [
        _encode_field(name, value) for name, value in fields.items() if name not in _OWN_FIELDS and is_field_name(name)
    ]
    return b"".join(parts)


def is_journal_stream(descriptor: int) -> bool:
    """Whether systemd connected the descriptor to the journal, which then takes ``<N>`` as a line's priority.

    Compared by device and inode, as systemd.exec(5) asks: the variable is inherited by children whose stderr is
    somewhere else.
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class JournalHandler(logging.Handler):
    """Sends log records to a journal, with the fields of a record's attribute ``journal_fields``.

    A record's exception follows its message, and is the field ``EXCEPTION_TEXT`` as well.
    """

    def __init__(
        self, journal: Journal, fields: Callable[[logging.LogRecord], Mapping[str, Value]] = lambda _: {}
    ) -> None:
        """``fields``: those that a record has of its own kind, beside what its caller gives it."""
        super().__init__()
        self._journal = journal
        self._fields = fields

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.format(record)
            fields: dict[str, Value] = {"LOGGER": record.name, **self._fields(record)}
            if record.exc_text:  # where Formatter.format() leaves the traceback
                fields["EXCEPTION_TEXT"] = record.exc_text
            fields.update(getattr(record, "journal_fields", {}))
            self._journal.send(journal_priority(record.levelno), message, fields)
        except Exception as error:  # noqa: BLE001 - an argument's __str__ may raise anything, and logging must not
            # And not handleError(), which writes to standard error: that may lead to a journal that hangs.
            where = f"{record.pathname}:{record.lineno}"
            self._journal.send(WARNING, f"a message of {where} cannot be written: {error!r:.200}", {})


def journal_priority(level: int) -> int:
    """The PRIORITY for a level of the logging module."""
    if level >= logging.CRITICAL:
        return 2
    if level >= logging.ERROR:
        return ERROR
    if level >= logging.WARNING:
        return WARNING
    if level > logging.INFO:
        return NOTICE
    return INFO if level == logging.INFO else DEBUG


def _encode_field(name: str, value: Value) -> bytes:
    data = value if isinstance(value, bytes) else _encode_text(str(value))
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)


def _encode_text(text: str) -> bytes:
    """UTF-8, and the very bytes of a file name that is not; a surrogate that stands for no byte is spelled out."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def _legible(message: str) -> str:
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], message)


def _prefixed(priority: int, message: str) -> str:
    lines = _legible(message).split("\n")
    return "".join(f"<{min(max(priority, 0), 7)}>{line}\n" for line in lines)


def _friendly(priority: int, message: str) -> str:
    first, *others = _legible(message).split("\n")
    line = f"{time.strftime('%H:%M:%S')} {LEVELS[min(max(priority, 0), 7)]} {first}\n"
    return line + "".join(f"    {other}\n" for other in others)


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _is_writable(descriptor: int) -> bool:
    """Whether a write would go through at once; never changes the descriptor's flags, which others may share."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))

"""The journal's transport, against a receiver that parses the native protocol as journald does."""

import errno
import fcntl
import io
import logging
import os
import pty
import re
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swapd.host.journal import (
    INFO,
    WARNING,
    Journal,
    JournalHandler,
    NativeJournal,
    StderrJournal,
    encode_record,
    is_field_name,
    is_journal_stream,
    journal_priority,
    open_journal,
)
from swapd.host.losses import Losses
from swapd.model.message_ids import MessageId

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def parse_record(record: bytes) -> list[tuple[str, bytes]]:
    """The fields of a record, by the protocol's two forms; raises where journald would refuse."""
    fields = []
    stream = io.BytesIO(record)
    while line := stream.readline():
        assert line.endswith(b"\n")
        name, equals, value = line[:-1].partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", stream.read(8))
            value = stream.read(length)
            assert len(value) == length
            assert stream.read(1) == b"\n"
        fields.append((name.decode("ascii"), value))
    return fields


class Receiver:
    """journald's end of the native socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(os.fspath(path))
        self.socket.settimeout(10)
        self.memfds = 0

    def receive(self) -> dict[str, bytes]:
        record, descriptors, _, _ = socket.recv_fds(self.socket, 1 << 20, 1)
        if descriptors:
            assert record == b""
            (descriptor,) = descriptors
            assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) == SEALS
            with open(descriptor, "rb") as memfd:
                memfd.seek(0)
                record = memfd.read()
            self.memfds += 1
        fields = parse_record(record)
        assert len(dict(fields)) == len(fields), "a field came twice"
        return dict(fields)

    def has_more(self) -> bool:
        return bool(select.select([self.socket], [], [], 0)[0])

    def close(self) -> None:
        self.socket.close()
        self.path.unlink(missing_ok=True)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver(tmp_path / "socket")
    yield receiver
    receiver.close()


@pytest.fixture
def journal(receiver: Receiver) -> Iterator[Journal]:
    journal = open_journal("swapd-test", receiver.path)
    assert isinstance(journal, NativeJournal)
    yield journal
    journal.close()


def test_a_record_has_its_message_priority_identifier_and_fields(journal: Journal, receiver: Receiver) -> None:
    journal.send(
        INFO, "release shop-42 is live", {"SWAPD_SITE": "shop", "SWAPD_PAUSE_USEC": 1234, "SWAPD_RAW": b"\x00"}
    )
    assert receiver.receive() == {
        "MESSAGE": b"release shop-42 is live",
        "PRIORITY": b"6",
        "SYSLOG_IDENTIFIER": b"swapd-test",
        "SWAPD_SITE": b"shop",
        "SWAPD_PAUSE_USEC": b"1234",
        "SWAPD_RAW": b"\x00",
    }
    assert journal.dropped == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("two\nlines", b"two\nlines"),
        ("x\nPRIORITY=0\nMESSAGE=forged\n", b"x\nPRIORITY=0\nMESSAGE=forged\n"),
        ("\n" + "\x00" * 8 + "\n", b"\n" + b"\x00" * 8 + b"\n"),
        ("caf\udce9.tar.gz", b"caf\xe9.tar.gz"),  # a file name that is not UTF-8, as os.fsdecode() gives it
        ("\ud800", b"\\ud800"),  # a surrogate that no byte of a file name stands for
        ("", b""),
        (b"\xff\x00\n", b"\xff\x00\n"),
    ],
)
def test_no_value_breaks_or_forges_a_record(journal: Journal, receiver: Receiver, value: Any, expected: bytes) -> None:
    journal.send(INFO, "kept", {"SWAPD_FIRST": value, "SWAPD_LAST": "kept"})
    fields = receiver.receive()
    assert fields["SWAPD_FIRST"] == expected
    assert (fields["MESSAGE"], fields["PRIORITY"], fields["SWAPD_LAST"]) == (b"kept", b"6", b"kept")
    assert len(fields) == 5


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=st.text(), value=st.one_of(st.text(), st.binary(), st.integers()))
def test_whatever_is_sent_arrives_as_one_record_of_these_fields(message: str, value: Any) -> None:
    fields = parse_record(encode_record(INFO, message, "swapd", {"SWAPD_VALUE": value}))
    assert [name for name, _ in fields] == ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "SWAPD_VALUE"]
    assert fields[1:3] == [("PRIORITY", b"6"), ("SYSLOG_IDENTIFIER", b"swapd")]


def test_a_message_stays_legible_text(journal: Journal, receiver: Receiver) -> None:
    journal.send(INFO, "two\nlines \x1b[2J\0 caf\udce9 \u202egnp", {})
    assert receiver.receive()["MESSAGE"] == rb"two" + b"\n" + rb"lines \x1b[2J\x00 caf\udce9 \u202egnp"


@pytest.mark.parametrize("name", ["", "lower", "_PID", "1ST", "WITH SPACE", "A=B", "A\nMESSAGE", "Ä", "A" * 65])
def test_a_field_the_journal_would_refuse_is_left_out(journal: Journal, receiver: Receiver, name: str) -> None:
    assert not is_field_name(name)
    journal.send(INFO, "kept", {name: "value", "SWAPD_SITE": "shop"})
    assert set(receiver.receive()) == {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "SWAPD_SITE"}


def test_a_field_cannot_take_the_place_of_message_and_priority(journal: Journal, receiver: Receiver) -> None:
    journal.send(INFO, "true", {"MESSAGE": "false", "PRIORITY": 0, "SYSLOG_IDENTIFIER": "kernel"})
    fields = receiver.receive()
    assert (fields["MESSAGE"], fields["PRIORITY"], fields["SYSLOG_IDENTIFIER"]) == (b"true", b"6", b"swapd-test")


def test_a_record_too_large_for_a_datagram_goes_as_a_sealed_file(journal: Journal, receiver: Receiver) -> None:
    large = os.urandom(8 << 20)
    journal.send(WARNING, "large", {"SWAPD_LARGE": large})
    assert receiver.receive()["SWAPD_LARGE"] == large
    assert receiver.memfds == 1
    assert journal.dropped == 0


def fill(journal: Journal) -> int:
    """Sends until the receiver's queue is full; how many went through."""
    for sent in range(100_000):
        if journal.dropped:
            return sent - 1
        journal.send(INFO, f"record {sent}", {})
    raise AssertionError("the queue never became full")


def test_a_full_queue_loses_records_and_the_next_that_goes_through_says_how_many(
    journal: Journal, receiver: Receiver
) -> None:
    queued = fill(journal)
    for _ in range(6):
        journal.send(INFO, "lost", {})
    assert journal.dropped == 7
    for number in range(queued):
        assert receiver.receive()["MESSAGE"] == f"record {number}".encode()

    journal.send(INFO, "first again", {})
    report = receiver.receive()
    assert report["SWAPD_RECORDS_DROPPED"] == b"7"
    assert report["PRIORITY"] == b"4"
    assert receiver.receive()["MESSAGE"] == b"first again"
    assert journal.dropped == 0
    assert not receiver.has_more()


def test_a_large_record_for_a_full_queue_is_lost_too(journal: Journal, receiver: Receiver) -> None:
    other = open_journal("other", receiver.path)
    fill(other)
    other.close()
    journal.send(INFO, "large", {"SWAPD_LARGE": b"x" * (8 << 20)})
    assert journal.dropped == 1


def test_the_caller_may_word_the_report_of_losses(receiver: Receiver) -> None:
    describe = lambda loss: (3, f"{loss.count} gone", {"MESSAGE_ID": "0" * 32})  # noqa: E731
    journal = open_journal("swapd", receiver.path, describe=describe)
    queued = fill(journal)
    for _ in range(queued):
        receiver.receive()
    journal.send(INFO, "again", {})
    assert receiver.receive() == {
        "MESSAGE": b"1 gone",
        "PRIORITY": b"3",
        "SYSLOG_IDENTIFIER": b"swapd",
        "MESSAGE_ID": b"0" * 32,
    }
    journal.close()


@pytest.mark.parametrize("leaves_its_name", [True, False], ids=["ECONNREFUSED", "ENOENT"])
def test_a_receiver_that_vanishes_and_returns_is_found_again(
    journal: Journal, receiver: Receiver, leaves_its_name: bool
) -> None:
    journal.send(INFO, "before", {})
    assert receiver.receive()["MESSAGE"] == b"before"
    receiver.socket.close()
    if not leaves_its_name:
        receiver.path.unlink()
    journal.send(INFO, "lost", {})
    journal.send(INFO, "lost", {"SWAPD_LARGE": b"x" * (1 << 20)})
    assert journal.dropped == 2

    receiver.path.unlink(missing_ok=True)
    returned = Receiver(receiver.path)
    journal.send(INFO, "after", {})
    assert returned.receive()["SWAPD_RECORDS_DROPPED"] == b"2"
    assert returned.receive()["MESSAGE"] == b"after"
    returned.close()


def test_records_of_many_threads_arrive_whole_or_are_counted(journal: Journal, receiver: Receiver) -> None:
    def write(thread: int) -> None:
        for number in range(200):
            journal.send(INFO, f"{thread} {number}", {})

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    reported, arrived = 0, 0
    while any(thread.is_alive() for thread in threads) or receiver.has_more():
        if receiver.has_more():
            fields = receiver.receive()
            reported += int(fields.get("SWAPD_RECORDS_DROPPED", 0))
            arrived += "SWAPD_RECORDS_DROPPED" not in fields
    assert arrived + reported + journal.dropped == 800


def test_a_forked_child_is_not_held_up_by_a_lock_that_its_parent_held(journal: Journal, receiver: Receiver) -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with journal._lock:
            held.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    child = os.fork()
    if child == 0:
        journal.send(INFO, "from the child", {})
        os._exit(0)
    assert receiver.receive()["MESSAGE"] == b"from the child"
    assert os.waitpid(child, 0)[1] == 0
    release.set()
    thread.join()


# What was lost by whom -----------------------------------------------------------------------------------------


def test_what_a_process_lost_that_was_killed_is_reported_by_another_one(tmp_path: Path) -> None:
    path, lost = tmp_path / "socket", tmp_path / "lost-records"

    def lose(count: int) -> None:
        """What a worker does that has its one upload while the journal is away."""
        worker = NativeJournal("swapd", path, Losses(lost))
        for _ in range(count):
            worker.send(INFO, "lost", {})
        os.kill(os.getpid(), signal.SIGKILL)

    for count in (3, 4):
        child = os.fork()
        if child == 0:
            try:
                lose(count)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    daemon = NativeJournal("swapd", path, Losses(lost))
    assert daemon.dropped == 7
    assert not daemon.report_losses(), "to nobody"
    assert daemon.dropped == 7, "and nothing is forgotten by the attempt"
    receiver = Receiver(path)
    assert daemon.report_losses()
    report = receiver.receive()
    assert (report["SWAPD_RECORDS_DROPPED"], report["MESSAGE_ID"]) == (b"7", MessageId.RECORDS_DROPPED.value.encode())
    assert daemon.report_losses()
    assert not receiver.has_more(), "said once"
    daemon.close()
    receiver.close()


def test_many_that_lose_and_report_count_each_record_once(tmp_path: Path) -> None:
    """Each arrives or is in a report, whoever reports it, of a receiver whose queue is full again and again."""
    receiver, lost = Receiver(tmp_path / "socket"), tmp_path / "lost-records"
    each, children = 500, []
    for number in range(4):
        children.append(os.fork())
        if children[-1] == 0:
            try:
                mine = NativeJournal(f"swapd-{number}", receiver.path, Losses(lost))
                for _ in range(each):
                    mine.send(INFO, "one", {})
                os._exit(len(mine._losses._mine))  # what it could not write down
            finally:
                os._exit(255)
    arrived = reports = reported = 0
    left = set(children)
    while left or receiver.has_more():
        if left:
            ended, status = os.waitpid(-1, os.WNOHANG)
            reported += os.waitstatus_to_exitcode(status)
            left.discard(ended)
        if receiver.has_more():
            fields = receiver.receive()
            reports += fields["MESSAGE"] != b"one"
            reported += int(fields.get("SWAPD_RECORDS_DROPPED", 0))
            arrived += fields["MESSAGE"] == b"one"
    count = Losses(lost).count
    assert reports > 1, "it was never full"
    assert arrived + reported + count == len(children) * each
    receiver.close()


def test_what_cannot_be_written_down_is_remembered_and_not_by_a_child(tmp_path: Path) -> None:
    losses = Losses(tmp_path / "missing" / "lost-records")
    losses.add()
    losses.add()
    assert losses.count == 2
    child = os.fork()
    if child == 0:
        os._exit(losses.count)
    assert os.waitpid(child, 0)[1] == 0
    with losses.taken() as (loss,):
        assert loss.count == 2
        assert loss.first <= loss.last
    assert losses.count == 0


def test_a_process_that_was_stopped_with_the_file_in_its_hands_holds_up_nobody(tmp_path: Path) -> None:
    losses = Losses(tmp_path / "lost-records")
    losses.add()
    with open(tmp_path / "lost-records") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        losses.add()
        assert losses.count == 2
        with losses.taken() as (loss,):
            assert loss.count == 1, "what this process knows by itself"
    with losses.taken() as (loss,):
        assert loss.count == 1


def test_a_name_that_is_planted_for_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lost-records").symlink_to(tmp_path / "victim")
    (tmp_path / "victim").write_bytes(b"")
    losses = Losses(tmp_path / "lost-records")
    losses.add()
    assert (tmp_path / "victim").read_bytes() == b""


# Standard error ------------------------------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def lines_of(reading: int) -> list[str]:
    return os.read(reading, 1 << 20).decode().splitlines()


def test_without_a_socket_records_are_lines_on_standard_error(tmp_path: Path) -> None:
    (tmp_path / "not-a-socket").touch()
    for path in (None, tmp_path / "missing", tmp_path / "not-a-socket"):
        assert isinstance(open_journal("swapd", path), StderrJournal)


def test_a_line_for_people_has_the_time_and_the_level(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    StderrJournal(writing).send(WARNING, "shop: rejected", {"SWAPD_SITE": "shop"})
    (line,) = lines_of(reading)
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning shop: rejected", line)


def test_on_a_terminal_a_line_has_no_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, terminal = pty.openpty()
    status = os.fstat(terminal)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
    StderrJournal(terminal).send(INFO, "live", {})
    assert re.fullmatch(rb"\d\d:\d\d:\d\d info live\r\n", os.read(leader, 1000))
    os.close(leader)
    os.close(terminal)


def test_on_the_journals_stream_every_line_has_its_priority(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = pipe
    status = os.fstat(writing)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    assert is_journal_stream(writing)
    StderrJournal(writing).send(WARNING, "first\n<0>forged\x1b[2J", {})
    assert lines_of(reading) == ["<4>first", r"<4><0>forged\x1b[2J"]


def test_text_cannot_pass_for_a_line_of_its_own(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    StderrJournal(writing).send(INFO, "first\n12:00:00 info forged\r12:00:00 info forged\u2028again", {})
    first, second = lines_of(reading)
    assert first.endswith("info first")
    assert second == r"    12:00:00 info forged\r12:00:00 info forged\u2028again"


def test_a_pipe_that_nobody_reads_loses_records_but_never_blocks(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    journal = StderrJournal(writing)
    sent = 0
    while not journal.dropped:
        journal.send(INFO, "x" * 9000, {})
        sent += 1
    read = b""
    while len(read) < (sent - 1) * 9000:
        read += os.read(reading, 1 << 20)
    journal.send(INFO, "again", {})
    read += os.read(reading, 1 << 20)
    lines = read.decode().splitlines()
    assert "1 journal record was lost at " in lines[-2]
    assert lines[-1].endswith("info again")
    assert journal.dropped == 0


def test_a_reader_that_is_gone_raises_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    journal = StderrJournal(writing)
    journal.send(INFO, "lost", {})
    os.close(writing)
    journal.send(INFO, "lost", {})
    assert journal.dropped == 2


# The logging module --------------------------------------------------------------------------------------------


@pytest.fixture
def logger(journal: Journal) -> Iterator[logging.Logger]:
    logger = logging.getLogger("swapd.test.journal")
    handler = JournalHandler(journal)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    logger.removeHandler(handler)


def test_a_log_record_is_a_journal_record_with_its_fields(logger: logging.Logger, receiver: Receiver) -> None:
    logger.warning("%s waits", "shop", extra={"journal_fields": {"SWAPD_SITE": "shop", "SWAPD_PAUSED": 3}})
    fields = receiver.receive()
    assert fields["MESSAGE"] == b"shop waits"
    assert fields["PRIORITY"] == b"4"
    assert fields["LOGGER"] == b"swapd.test.journal"
    assert (fields["SWAPD_SITE"], fields["SWAPD_PAUSED"]) == (b"shop", b"3")


def test_an_exception_follows_its_message_and_is_a_field(logger: logging.Logger, receiver: Receiver) -> None:
    try:
        os.open("/nonexistent/swapd", os.O_RDONLY)
    except OSError:
        logger.exception("cannot look")
    fields = receiver.receive()
    message = fields["MESSAGE"].decode().splitlines()
    assert message[:2] == ["cannot look", "Traceback (most recent call last):"]
    assert message[-1].startswith("FileNotFoundError: ")
    assert fields["EXCEPTION_TEXT"].decode().splitlines() == message[1:]
    assert fields["PRIORITY"] == b"3"


def test_a_log_call_that_cannot_be_formatted_raises_nothing(
    journal: Journal, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = io.StringIO()  # where logging itself complains, and may hang
    monkeypatch.setattr(sys, "stderr", stderr)
    handler = JournalHandler(journal)
    handler.handle(logging.LogRecord("swapd", logging.INFO, __file__, 1, "%d", ("not a number",), None))
    assert f"{__file__}:1".encode() in receiver.receive()["MESSAGE"]
    assert stderr.getvalue() == ""
    handler.handle(logging.LogRecord("swapd", logging.INFO, __file__, 1, "%d", (1,), None))
    assert receiver.receive()["MESSAGE"] == b"1"


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (logging.INFO + 5, 5),
        (logging.INFO, 6),
        (logging.DEBUG, 7),
        (1, 7),
    ],
)
def test_levels_and_priorities(level: int, priority: int) -> None:
    assert journal_priority(level) == priority


def test_emsgsize_is_what_a_large_datagram_gets(receiver: Receiver) -> None:
    """The fact that the memfd rests on, seen on this kernel."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending, pytest.raises(OSError) as caught:  # noqa: PT011
        sending.sendto(b"x" * (8 << 20), os.fspath(receiver.path))
    assert caught.value.errno == errno.EMSGSIZE

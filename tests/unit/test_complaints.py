"""What Python itself complains of goes to the journal, because standard error may be a stream that nobody reads."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from swapd.host.child import UNEXPECTED
from swapd.model.message_ids import MessageId
from tests.support.sites import environment
from tests.unit.test_journal import Receiver

COMPLAINING = """
import logging, sys, threading, warnings
from pathlib import Path
from swapd.host import eventlog
from swapd.host.coprocess import Coprocess
from swapd.host.journal import NativeJournal
from swapd.model.layout import Layout

eventlog.open_journal = lambda socket_path, **keys: NativeJournal("swapd", Path(sys.argv[1]), **keys)
eventlog.EventLog(Layout(Path(sys.argv[2])))
eventlog.take_in_complaints()

class Bad:
    def __del__(self):
        raise ValueError("cannot be raised")

def fail(text):
    raise LookupError(text)

warnings.warn("a warning")
Bad()
thread = threading.Thread(target=fail, args=("in a thread",))
thread.start()
thread.join()
logging.getLogger().info("%d", "no number")
print(Coprocess("shop", lambda: fail("in a\\nworker \\x1b[2J")).wait())
fail("in the end")
"""


def test_nothing_is_written_to_a_standard_error_that_is_full(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path / "socket")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    done = subprocess.run(
        [sys.executable, "-c", COMPLAINING, str(receiver.path), str(tmp_path / "root")],
        stdout=subprocess.PIPE,
        stderr=writing,
        env=environment(),
        timeout=60,  # it would never end
    )
    os.close(reading)
    os.close(writing)
    assert (done.returncode, done.stdout) == (1, b"%d\n" % UNEXPECTED)
    found = []
    while receiver.has_more():
        found.append(receiver.receive())
    receiver.close()
    for text, kind, priority in (
        ("a warning", MessageId.DEGRADED, b"4"),
        ("cannot be raised", MessageId.UNEXPECTED, b"3"),
        ("in a thread", MessageId.UNEXPECTED, b"3"),
        (r"worker \x1b[2J", MessageId.UNEXPECTED, b"3"),
        ("in the end", MessageId.UNEXPECTED, b"2"),
    ):
        (record,) = [item for item in found if text in item["MESSAGE"].decode()]
        assert (record["MESSAGE_ID"].decode(), record["PRIORITY"]) == (kind.value, priority)
        assert record["OBJECT_SYSTEMD_UNIT"] == b"swapd.service"
    assert any(b"a message of " in item["MESSAGE"] for item in found)

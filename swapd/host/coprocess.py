"""A process of ours that goes on from here, and that we talk to: what the daemon gives to others to do.

Forked and not started anew: loading what a worker needs takes 110 ms to 200, in which the upload would wait, and a fork
takes 2. So whoever has coprocesses must have one thread only.
"""

from __future__ import annotations

import io
import logging
import os
import select
import signal
from collections.abc import Callable

from swapd.host.child import UNEXPECTED, fork

log = logging.getLogger(__name__)


class Coprocess:
    """A forked process. What is written to ``stdin`` it reads on its standard input; ``stdout`` is the other way."""

    def __init__(self, name: str, work: Callable[[], None], keep: tuple[int, ...] = ()) -> None:
        """Forks; it ends with 0 when ``work`` returns. Its standard error is ours. ``OSError`` when it cannot be."""
        its_input, to_it = os.pipe2(os.O_CLOEXEC)
        from_it, its_output = os.pipe2(os.O_CLOEXEC)
        # Unbuffered: what a dead one did not read must not come back when its pipe is closed.
        self.stdin, self.stdout = io.FileIO(to_it, "w"), io.FileIO(from_it, "r")
        self._status: int | None = None
        try:
            self.pid = fork(name, lambda: _work(name, work), (2, *keep), {0: its_input, 1: its_output})
        except OSError:
            self.close()
            raise
        finally:
            os.close(its_input)
            os.close(its_output)

    def terminate(self) -> None:
        """Asks it to end, if it still runs."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it if it still runs."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self._status is None:
            os.kill(self.pid, number)  # nobody else can have the pid before we have taken the status

    def wait(self) -> int:
        """Waits for its end: its exit status, or the signal's number below zero."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def has_ended(self, patience: float = 0.0) -> bool:
        """Whether it ends within so many seconds; then its status is taken and our ends of the pipes are closed."""
        if not self.stdout.closed:
            end = select.poll()
            end.register(self.stdout, 0)  # that its end is closed is told without being asked for
            if not end.poll(patience * 1000):
                return False
            self.wait()
            self.close()
        return True

    def close(self) -> None:
        """Closes our ends of the pipes: it sees the end of its input."""
        self.stdin.close()
        self.stdout.close()


def _work(name: str, work: Callable[[], None]) -> None:
    """In the process. What nobody foresaw goes where all else goes that we say: its standard error may be stuck."""
    try:
        work()
    except Exception:
        log.exception("swapd %s: an unexpected error ended this process; another one takes its place", name)
        raise SystemExit(UNEXPECTED) from None

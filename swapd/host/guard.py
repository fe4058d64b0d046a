"""A guarded stretch of work: a guardian stands by, and nothing of our own lengthens it or breaks into it."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import subprocess
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from swapd.host.guardian import ARMED, DISMISSED
from swapd.host.linux import memory_locked, take_precedence
from swapd.host.programs import own_program
from swapd.model.errors import Failed
from swapd.model.layout import Layout
from swapd.model.record import ProcessIdentity
from swapd.model.text import printable

ARMING_PATIENCE = 10.0  # seconds for a new process to start on a loaded machine
ENDING_PATIENCE = 2.0  # seconds for a guardian that is not needed any more: one that was itself stopped never ends


@contextlib.contextmanager
def guarded(layout: Layout, lock: int) -> Iterator[Guardian]:
    """Within, the processes of the pause record are resumed by a guardian should we die or hang.

    No garbage collection, and no signal: a KeyboardInterrupt could strike amid the resuming, a terminal's Ctrl-Z would
    stop us with httpd. The guardian inherits the mask, and holds ``lock`` as long as it lives: should it come late, no
    other pause has begun. What we have in memory stays there. ``Failed`` (``no-guardian``) when there cannot be one.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        # Before we take precedence: its start takes longer than the pause, and must not take the processor from httpd.
        guardian = _arm(layout, lock)
        try:
            take_precedence()
            with memory_locked():
                gc.disable()
                yield guardian
        finally:
            gc.enable()
            guardian.dismiss()
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class Guardian:
    """The process that resumes for us."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def take(self, identities: Iterable[ProcessIdentity]) -> None:
        """Has it resume these, too; before they are stopped."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                lines = (b"%d %d\n" % (identity.pid, identity.start_time) for identity in identities)
                self._process.stdin.write(b"".join(lines))

    def dismiss(self) -> None:
        """Ends it. Everything has been resumed, so that one that hangs may as well be killed."""
        with contextlib.suppress(BrokenPipeError):
            try:
                self._process.communicate(DISMISSED, timeout=ENDING_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()


def _arm(layout: Layout, lock: int) -> Guardian:
    """A guardian that has read the pause record, holds its processes and stands by."""
    safe = "Nothing was stopped and the live release is untouched."
    # Not our standard error: where that is a journal's that hangs, the guardian would, too.
    with os.fdopen(os.memfd_create("guardian-stderr", os.MFD_CLOEXEC), "rb") as words:
        try:
            process = subprocess.Popen(
                own_program("swapd.host.guardian", str(layout.pause_record)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                bufsize=0,
                pass_fds=[lock],
                start_new_session=True,  # what is done to our process group or session leaves it alive
            )
        except OSError as error:
            raise Failed("no-guardian", f"the guardian cannot be started: {error.strerror}", safe) from error
        return _wait_armed(process, words, safe)


def _wait_armed(process: subprocess.Popen[bytes], words: BinaryIO, safe: str) -> Guardian:
    said = b""
    if process.stdout is not None:
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        if poll.poll(ARMING_PATIENCE * 1000):
            said = os.read(process.stdout.fileno(), len(ARMED))
    if said != ARMED:
        process.kill()
        process.communicate()
        words.seek(0)
        last = printable(" ".join(words.read().decode(errors="replace").splitlines()[-1:]))
        raise Failed("no-guardian", f"the guardian does not stand by{f': {last}' if last else ''}", safe)
    return Guardian(process)

"""A child process in its jail, that does one thing for us: forked, because a start of Python takes 70 ms and a fork 1.

A fork of a process with one thread only, which swapd's workers and commands are: locks that another thread holds would
stay locked in the child for ever. What the child does is ours, until it has read the first byte from outside; from
then on nothing that it says is trusted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NoReturn

from swapd.host import linux
from swapd.model.release import printable

PIPE_SIZE = 1 << 20  # pipe(7): what an unprivileged process may have; 64 KiB is the default
WORDS = 2000  # of what the child wrote to its standard error, for the message
UNEXPECTED = 70  # EX_SOFTWARE: an exception that nobody foresaw


class Child:
    """A forked process. Close it, whatever happens."""

    def __init__(self, name: str, work: Callable[[], None], keep: Collection[int]) -> None:
        """Forks. ``work`` has of our descriptors those in ``keep``; its standard input and output lead nowhere.

        The child ends with 0 when ``work`` returns. ``OSError`` when there can be no further process.
        """
        # A memfd, not a pipe: nobody has to read it for the child to go on.
        self._words = os.memfd_create(f"{name}-stderr", os.MFD_CLOEXEC)
        self._status: int | None = None
        # With root's uid it could fork, and what it left behind could still write: that becomes ours, and ends with it.
        self._was_subreaper = linux.prctl_set_child_subreaper(True)
        self._others = _children()
        try:
            self.pid = fork(name, work, keep, {2: self._words})
        except OSError:
            linux.prctl_set_child_subreaper(self._was_subreaper)
            os.close(self._words)
            raise

    def kill(self) -> None:
        """Ends it if it still runs."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)  # nobody else can have the pid before we have taken the status

    def wait(self) -> int:
        """Waits for its end: its exit status, or the signal's number below zero."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def words(self) -> str:
        """What it wrote to its standard error, the end of it; not to be trusted."""
        size = os.fstat(self._words).st_size
        return os.pread(self._words, WORDS, max(0, size - WORDS)).decode(errors="replace").strip()

    def describe_end(self) -> str:
        """How it ended, for a message, with its last words."""
        status = self.wait()
        how = f"ended with {status}"
        if status < 0:
            with contextlib.suppress(ValueError):  # realtime signals have no name
                how = f"was killed by {signal.Signals(-status).name}"
        words = printable(self.words(), WORDS)
        return f"{how}: {words}" if words else how

    def close(self) -> None:
        """It is gone after this, and nothing of it left, nor any process that it has forked."""
        self.kill()
        self.wait()
        while orphans := _children() - self._others:
            for orphan in orphans:
                os.kill(orphan, signal.SIGKILL)
            for orphan in orphans:
                os.waitpid(orphan, 0)
        linux.prctl_set_child_subreaper(self._was_subreaper)
        os.close(self._words)


def fork(name: str, work: Callable[[], None], keep: Collection[int], standard: Mapping[int, int]) -> int:
    """A child that does ``work`` and then ends with 0; its pid. ``OSError`` when there can be no further process.

    Of our descriptors it has those in ``keep``, and for 0, 1 and 2 what ``standard`` says; those of the three that are
    in neither lead nowhere. Whoever calls this has one thread only.
    """
    # No signal is to find the child with our handlers.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _be_child(name, work, keep, standard, mask)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _be_child(
    name: str,
    work: Callable[[], None],
    keep: Collection[int],
    standard: Mapping[int, int],
    mask: Collection[int],
) -> NoReturn:
    """All of the child's life. It never returns into what its parent was doing, and flushes none of its buffers."""
    status = UNEXPECTED
    try:
        signal.set_wakeup_fd(-1)
        # Its parent decides what becomes of it, also when a terminal or systemd signals all of them.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        linux.prctl_set_name(f"swapd {name}")  # what ps and top show
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in (0, 1, 2):
            if descriptor in standard or descriptor not in keep:
                os.dup2(standard.get(descriptor, nowhere), descriptor)
        _close_all_but({0, 1, 2, *keep})
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        work()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else UNEXPECTED
    except BaseException as error:  # noqa: BLE001 - a forked child must not come back, whatever it meets
        with contextlib.suppress(BaseException):
            trace = error.__traceback__
            while trace and trace.tb_next:
                trace = trace.tb_next
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
            os.write(2, printable(f"{type(error).__name__}: {error} ({place})", WORDS).encode(errors="replace"))
    finally:
        os._exit(status)


def _children() -> set[int]:
    """Our children now; none where the kernel does not list them (CONFIG_PROC_CHILDREN)."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as children:
            return set(map(int, children.read().split()))
    except FileNotFoundError:
        return set()


def _close_all_but(kept: set[int]) -> None:
    last = -1
    for descriptor in sorted(kept):
        if descriptor > last + 1:  # for an empty range from 0 on, Python closes everything
            os.closerange(last + 1, descriptor)
        last = descriptor
    # close_range(2) does it in one call; where there is none, there are as many calls as descriptors are possible.
    os.closerange(last + 1, max(os.sysconf("SC_OPEN_MAX"), last + 2))


def open_pipe() -> tuple[int, int]:
    """A pipe for contents: its reading and its writing end."""
    output, its_input = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # the user's pipes may have their fill of memory; then it is only slower
        fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    return output, its_input


def execute(
    program: str, arguments: list[str], standard_input: int, standard_output: int, lent: Iterable[int] = ()
) -> NoReturn:
    """Becomes another program, with these two descriptors, those that are lent, and the child's standard error."""
    os.dup2(standard_input, 0)
    os.dup2(standard_output, 1)
    for descriptor in lent:
        os.set_inheritable(descriptor, True)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, and a program would inherit that
        signal.signal(ignored, signal.SIG_DFL)
    environment = {"PATH": os.defpath, "LC_ALL": "C"}
    if "TZ" in os.environ:  # times of a signers file are local ones
        environment["TZ"] = os.environ["TZ"]
    os.execve(program, [os.path.basename(program), *arguments], environment)  # noqa: S606 - a shell is what it avoids

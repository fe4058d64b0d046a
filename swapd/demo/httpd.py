"""A small prefork web server whose processes are called like httpd's: something real for the demo to pause.

A master and its workers, as in Apache's prefork MPM: all workers accept on one listening socket, each serves one
request at a time, and the master replaces those that die. A file is looked up anew for each request, so whatever is
live is served. As root it becomes ``nobody``: no server of the demo's runs as root, and the demo's `[pause] user` then
keeps away from a real httpd on the same machine.

Run as ``python -m swapd.demo.httpd LISTENER LIVE WORKERS PARENT NAME``: the number of a listening socket's descriptor,
the path to serve, how many workers, the process with whose end all of this ends, and what the processes are called.
"""

from __future__ import annotations

import os
import pwd
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Set
from functools import partial
from http import HTTPStatus
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import NoReturn

import psutil

import swapd
from swapd.demo.children import die_with
from swapd.host.linux import prctl_set_name

UNPRIVILEGED = "nobody"
STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
CLIENT_PATIENCE = 10.0  # seconds that a silent client may keep a worker; a pause, which counts too, is 1 s at most
STOP_PATIENCE = 5.0  # seconds for requests under way when told to stop


class Handler(SimpleHTTPRequestHandler):
    """Files and nothing else. Browsers ask each time, and get a 304 where nothing changed."""

    server_version = f"swapd-demo/{swapd.__version__}"
    timeout = CLIENT_PATIENCE

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def list_directory(self, path: str | os.PathLike[str]) -> None:  # noqa: ARG002 - only index.html is for visitors
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
        """Says nothing: the terminal is the daemon's log."""


class WorkerServer(HTTPServer):
    """The requests of one worker, on a listening socket that is shared with the others."""

    timeout = 0  # accept what is there; another worker may have been quicker

    def __init__(self, listener: socket.socket, live: Path) -> None:
        handler = partial(Handler, directory=os.fspath(live))
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - as it is called
        """A visitor who went away is no error; anything else is told, and the worker goes on."""
        if not isinstance(sys.exc_info()[1], OSError):
            traceback.print_exc()


class Signals:
    """Signals as bytes in a pipe, which select(2) can wait for beside sockets."""

    def __init__(self, numbers: Set[signal.Signals]) -> None:
        self.descriptor, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda *_: None)

    def wait(self, *others: socket.socket, timeout: float | None = None) -> bytes:
        """Waits for a signal or one of the sockets; the signals that came, one byte each."""
        readable: list[int | socket.socket] = [self.descriptor, *others]
        select.select(readable, [], [], timeout)
        try:
            return os.read(self.descriptor, 4096)
        except BlockingIOError:
            return b""


class Master:
    """Starts the workers, replaces those that are killed, and stops them all."""

    def __init__(self, listener: socket.socket, live: Path, workers: int) -> None:
        self._listener = listener
        self._live = live
        self._count = workers
        self._workers: set[int] = set()
        self._signals = Signals(STOP_SIGNALS | {signal.SIGCHLD})

    def run(self) -> int:
        """Serves until SIGTERM or SIGINT; then 0, or 1 when a worker failed by itself."""
        status = 0
        while not status:
            while len(self._workers) < self._count:
                self._workers.add(self._fork())
            arrived = self._signals.wait()
            status = self._reap()
            if not STOP_SIGNALS.isdisjoint(arrived):
                break
        self._stop()
        return status

    def _fork(self) -> int:
        master = os.getpid()
        # Until the worker has a pipe of its own, a signal to it would be written to the master's.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                die_with(master, signal.SIGKILL)  # which also ends a worker that is stopped
                _work(self._listener, self._live)
                status = 0
            except BaseException:  # noqa: BLE001 - nothing may return into the master's code
                traceback.print_exc()
            finally:
                os._exit(status)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        return pid

    def _reap(self) -> int:
        """Forgets the workers that ended; the exit status of one that failed, so that it is not forked for ever."""
        failed = 0
        for pid in list(self._workers):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._workers.discard(pid)
                failed = failed or max(os.waitstatus_to_exitcode(status), 0)
        return failed

    def _stop(self) -> None:
        self._listener.close()
        for pid in self._workers:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_PATIENCE
        while self._workers and (left := deadline - time.monotonic()) > 0:
            self._signals.wait(timeout=left)
            self._reap()
        for pid in self._workers:  # busy with a request, or stopped
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _work(listener: socket.socket, live: Path) -> None:
    """Serves requests until SIGTERM; one that is under way is finished first."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signals = Signals(STOP_SIGNALS)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    with WorkerServer(listener, live) as server:
        while not signals.wait(listener):
            server.handle_request()


def server_user() -> str:
    """Who the web server runs as: whoever we are, or ``nobody`` for root."""
    return UNPRIVILEGED if os.geteuid() == 0 else psutil.Process().username()


def _become_unprivileged() -> None:
    if os.geteuid() == 0:
        user = pwd.getpwnam(UNPRIVILEGED)
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)


def main(arguments: list[str]) -> NoReturn:
    """The master process; see the module's text for its arguments."""
    listening, path, workers, parent, name = arguments
    live = Path(path)
    prctl_set_name(name)
    os.chdir(live.parent)  # kept by the unprivileged user, who may not be allowed to walk down to it
    _become_unprivileged()
    die_with(int(parent), signal.SIGKILL)
    listener = socket.socket(fileno=int(listening))
    listener.setblocking(False)
    sys.exit(Master(listener, Path(live.name), int(workers)).run())


if __name__ == "__main__":
    main(sys.argv[1:])

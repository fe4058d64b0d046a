"""A small prefork tree with a name of its own, for tests to pause: ``python -m tests.support.prefork NAME PARENT``.

The master does what lines on its standard input say and answers each with a line, which ends with the pids that it
made: ``fork N`` idle workers, ``busy N`` that compute, ``alien NAME`` a worker with another name, ``family N`` a
worker with N children of its own, ``stuck FIFO`` one that stays in vfork(2), ``churn N`` keeps N short-lived
workers going until the end. ``listen BACKLOG`` is answered with the ports that it listens on from then on, of 127.0.0.1
and, where there is IPv6, of [::1]; it accepts nothing. It never reaps anything but churned workers, so a worker that is
killed stays a zombie.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

from swapd.demo.children import die_with
from swapd.host.linux import prctl_set_name

LIFETIME = 0.003  # seconds, of a short-lived worker


def fork(work: Callable[[], object]) -> int:
    """A child process that does ``work`` and ends; with its parent at the latest."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            die_with(parent, signal.SIGKILL)
            work()
        finally:
            os._exit(0)
    return pid


def idle() -> None:
    while True:
        signal.pause()


def busy() -> None:
    while True:
        sum(range(1000))


def stuck(fifo: str) -> None:
    """posix_spawn waits, in state D, until its child has executed; and that waits for a writer of the FIFO."""
    os.posix_spawn("/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, fifo, os.O_RDONLY, 0)])


class Master:
    """Does what it is told."""

    def __init__(self) -> None:
        self.churning = 0
        self.short_lived: set[int] = set()
        self.listening: list[socket.socket] = []

    def obey(self, verb: str, argument: str) -> list[int]:
        match verb:
            case "fork":
                return [fork(idle) for _ in range(int(argument))]
            case "busy":
                return [fork(busy) for _ in range(int(argument))]
            case "alien":
                return [fork(lambda: (prctl_set_name(argument), idle()))]
            case "stuck":
                return [fork(lambda: stuck(argument))]
            case "family":
                reading, writing = os.pipe()
                worker = fork(lambda: self._raise_family(int(argument), writing))
                return [worker, *map(int, os.read(reading, 4096).split())]
            case "listen":
                return self._listen(int(argument))
            case "churn":
                self.churning = int(argument)
                return []
            case _:
                raise ValueError(verb)

    def _listen(self, backlog: int) -> list[int]:
        ports = []
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            listening = socket.socket(family, socket.SOCK_STREAM)
            self.listening.append(listening)
            try:
                listening.bind((address, 0))
            except OSError:
                continue
            listening.listen(backlog)
            ports.append(listening.getsockname()[1])
        return ports

    @staticmethod
    def _raise_family(count: int, pipe: int) -> None:
        os.write(pipe, " ".join(str(fork(idle)) for _ in range(count)).encode())
        idle()

    def churn(self) -> None:
        """Replaces the short-lived workers that ended."""
        for pid in list(self.short_lived):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self.short_lived.discard(pid)
        while len(self.short_lived) < self.churning:
            self.short_lived.add(fork(lambda: time.sleep(LIFETIME)))

    def run(self) -> None:
        while True:
            self.churn()
            ready, _, _ = select.select([0], [], [], 0.001 if self.churning else None)
            if not ready:
                continue
            line = os.read(0, 4096)
            if not line:
                return
            print(*self.obey(*line.decode().strip().split(maxsplit=1)), flush=True)


def main() -> None:
    name, parent = sys.argv[1], int(sys.argv[2])
    die_with(parent, signal.SIGKILL)
    prctl_set_name(name)
    print(flush=True)
    Master().run()


if __name__ == "__main__":
    main()

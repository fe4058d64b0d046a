"""The real daemon as a child process, and what it tells systemd."""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import threading
from pathlib import Path

from swapd.host.watcher import NAME
from tests.support.httpd import name_of
from tests.support.waiting import PATIENCE, wait_until

# The daemon pings at half of this and checks its watches then: a drop directory that comes back is seen that soon.
WATCHDOG_SECONDS = 0.5


def workers_of(daemon: int) -> list[int]:
    """The pids of a daemon's workers now."""
    children = Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()
    return [int(pid) for pid in children if name_of(int(pid)) != f"swapd {NAME}"]


class NotifySocket:
    """systemd's end of the notification socket. Read all the time: a full one blocks the sender."""

    def __init__(self) -> None:
        name = f"swapd-test-{secrets.token_hex(8)}"
        self.address = f"@{name}"  # an abstract one: a path in a test's directory may be too long
        self.states: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{name}")
        self._name = name
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()

    def _receive(self) -> None:
        while message := self._socket.recv(1 << 16):
            self.states.append(message.decode())

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", f"\0{self._name}")
        self._thread.join()
        self._socket.close()


class Daemon:
    """``swapd run``, with a log file and a notification socket. ``stop`` or ``kill`` it."""

    def __init__(
        self, command_line: list[str], environment: dict[str, str], log: Path, watchdog: float = WATCHDOG_SECONDS
    ) -> None:
        """``watchdog`` is in seconds, as WatchdogSec= of the unit."""
        self.notify = NotifySocket()
        self.log_path = log
        variables = {"NOTIFY_SOCKET": self.notify.address, "WATCHDOG_USEC": str(round(watchdog * 1e6))}
        with log.open("ab") as output:
            self._log_start = output.tell()
            self.process = subprocess.Popen(
                command_line, env={**environment, **variables}, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )

    def log(self) -> str:
        """What it wrote so far."""
        with self.log_path.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def wait_ready(self, times: int = 1) -> None:
        """Until it has said READY so often: at its start, and after each reload."""

        def is_ready() -> bool:
            assert self.process.poll() is None, self.log()
            return self.notify.states.count("READY=1") >= times

        wait_until(is_ready, "the daemon to be ready")

    def reload(self) -> None:
        """As ``systemctl reload``: returns when it is done."""
        times = self.notify.states.count("READY=1")
        self.process.send_signal(signal.SIGHUP)
        self.wait_ready(times + 1)

    def status_lines(self) -> list[str]:
        return [state.removeprefix("STATUS=") for state in self.notify.states if state.startswith("STATUS=")]

    def wait_status(self, *texts: str, patience: float = PATIENCE) -> str:
        """The newest status line, once it has all of ``texts`` in it."""

        def line() -> str:
            assert self.process.poll() is None, self.log()
            lines = self.status_lines()
            return lines[-1] if lines and all(text in lines[-1] for text in texts) else ""

        return wait_until(line, f"a status line with {texts} after {self.status_lines()[-3:]}", patience)

    def workers(self) -> list[int]:
        """The pids of its workers now."""
        return workers_of(self.process.pid)

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> int:
        """Ends it as systemd does; its exit status. It must not have complained."""
        if self.process.poll() is None:
            self.process.terminate()
        status = self.process.wait(PATIENCE)
        self._close()
        assert "Traceback" not in self.log(), self.log()
        return status

    def kill(self) -> None:
        """Ends it as a crash does."""
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        if self.notify.states[-1:] != ["closed"]:
            self.notify.close()
            self.notify.states.append("closed")

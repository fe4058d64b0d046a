"""What systemd is told, through sdnotify."""

from __future__ import annotations

import os
import time

from sdnotify import SystemdNotifier


class Notifier:
    """Tells systemd's notification socket; silently nothing where there is none, as sdnotify does."""

    def __init__(self) -> None:
        self._notifier = SystemdNotifier()
        self._status = ""

    @staticmethod
    def watchdog_interval() -> float | None:
        """How often to ping, in seconds: half of what the unit allows (sd_watchdog_enabled(3)); None without one."""
        usec = os.environ.get("WATCHDOG_USEC", "")
        if not usec.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return None
        return int(usec) / 2e6

    def _send(self, state: str) -> None:
        # sdnotify encodes Latin-1: this way UTF-8 arrives as it is.
        self._notifier.notify(state.encode("utf-8", "surrogateescape").decode("latin-1"))

    def ready(self) -> None:
        self._send("READY=1")

    def reloading(self) -> None:
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def ping(self) -> None:
        self._send("WATCHDOG=1")

    def status(self, line: str) -> None:
        """The one line of ``systemctl status``; said only when it has changed."""
        if line != self._status:
            self._status = line
            self._send("STATUS=" + line.replace("\n", " "))

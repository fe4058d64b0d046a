"""The demo's parts: the web server, the daemon, and a visitor; each of them real."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from swapd.demo.children import die_with
from swapd.demo.site import Edition
from swapd.host.masters import find_masters
from swapd.host.programs import own_program
from swapd.model.errors import Failed
from swapd.model.layout import Layout
from swapd.model.release import Outcome
from swapd.packing.tarball import Packed

HTTPD = "httpd"
WORKERS = 4
BACKLOG = 511  # as Apache's ListenBacklog
PATIENCE = 60.0  # seconds for anything that takes far less, on a machine that is busy with something else
POLL = 0.05  # seconds between two looks

# What systemd tells a service: meant for whoever started the demo, and not for the demo's own daemon.
SERVICE_VARIABLES = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"})


@dataclass(frozen=True, slots=True)
class WebServer:
    """The embedded web server, by its master process."""

    process: subprocess.Popen[bytes]
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/"

    def get(self, path: str) -> tuple[int, bytes]:
        """What a visitor gets: status and body. Raises ``OSError`` or ``HTTPException``."""
        # Not through urllib: it would send even this through the proxy that the environment names.
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@contextmanager
def own_process_name(user: str) -> Iterator[str]:
    """What the web server's processes may be called, so that no other daemon pauses them, nor ours another's.

    ``httpd``, unless somebody's httpd or another demo's runs as that user: two pausers of one process break each
    other's pauses. The name is ours alone till the context ends.
    """
    with socket.socket(socket.AF_UNIX) as claim:
        try:
            claim.bind(f"\0swapd-demo-{user}")  # an abstract name: gone with us, whatever ends us
            is_first = True
        except OSError:
            is_first = False
        is_free = is_first and not find_masters([HTTPD], user)
        yield HTTPD if is_free else f"{HTTPD}-{os.getpid()}"


@contextmanager
def web_server(live: Path, name: str = HTTPD, workers: int = WORKERS) -> Iterator[WebServer]:
    """Serves what is live on a free port of this machine; all of its processes are gone afterwards."""
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        host, port = listener.getsockname()
        arguments = [str(listener.fileno()), str(live), str(workers), str(os.getpid()), name]
        process = subprocess.Popen(
            own_program("swapd.demo.httpd", *arguments),
            stdin=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            process_group=0,  # Ctrl-C is for the demo, which then stops everything in its order
        )
    try:
        yield WebServer(process, host, port)
    finally:
        stop(process)


@contextmanager
def daemon(layout: Layout, log: IO[bytes] | None) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon, in its own process; its log goes to the file, or to our standard error. Stopped afterwards."""
    process = subprocess.Popen(
        command_line(layout, "run"),
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stderr=log,
        process_group=0,
        preexec_fn=partial(die_with, os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - the demo has no threads
    )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process as systemd would: SIGTERM, and SIGKILL when that has not helped in time."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def command_line(layout: Layout, *arguments: str) -> list[str]:
    """A command of this very swapd, below the demo's directory."""
    return own_program("swapd", "--root", str(layout.root), *arguments)


def print_command(layout: Layout, *arguments: str) -> None:
    """Runs a command and lets it print. Raises ``Failed`` when it fails."""
    done = subprocess.run(command_line(layout, *arguments), env=_environment(), check=False)
    if done.returncode:
        raise Failed("demo-command-failed", f"swapd {' '.join(arguments)} ended with status {done.returncode}")


def drop(packed: Packed, incoming: Path) -> None:
    """Copies a tarball into the drop directory as scp would: to its own name, its sidecars first."""
    for path in (*packed.sidecars, packed.tarball):
        (incoming / path.name).write_bytes(path.read_bytes())


def wait_for_outcome(incoming: Path, tarball: str, daemon: subprocess.Popen[bytes]) -> None:
    """Returns once the tarball's marker says that it is live. ``Failed`` for any other outcome, or none in time."""

    def has_ended() -> bool:
        if daemon.poll() is not None:
            raise Failed("demo-daemon-ended", f"the daemon ended with status {daemon.returncode}; its log says why")
        return any(os.path.exists(incoming / f"{tarball}.{outcome.value}") for outcome in ENDS)

    wait_until(has_ended, f"an outcome of {tarball}")
    outcome = next(outcome for outcome in ENDS if os.path.exists(incoming / f"{tarball}.{outcome.value}"))
    if outcome is not Outcome.LIVE:
        marker = tomllib.loads((incoming / f"{tarball}.{outcome.value}").read_text())
        raise Failed("demo-not-live", f"{tarball} {outcome.value}: {marker['reason']}", marker.get("hint", ""))


ENDS = tuple(outcome for outcome in Outcome if outcome is not Outcome.PENDING)


def check_served(server: WebServer, edition: Edition) -> int:
    """Asks for every file of the edition; how many there are. ``Failed`` unless each is served byte for byte."""
    files: Mapping[str, str] = {"": edition.files()["index.html"], **edition.files()}
    for path, text in files.items():
        try:
            status, body = server.get(f"/{path}")
        except (OSError, http.client.HTTPException) as error:
            raise Failed("demo-not-served", f"{server.url}{path}: {error!r}") from error
        if (status, body) != (http.HTTPStatus.OK, text.encode()):
            raise Failed("demo-not-served", f"{server.url}{path} is not release {edition.version}'s (status {status})")
    return len(files)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Looks again and again until the condition holds; ``Failed`` when it does not in time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise Failed("demo-too-slow", f"waited {PATIENCE:.0f} s in vain for {what}")
        time.sleep(POLL)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in SERVICE_VARIABLES}

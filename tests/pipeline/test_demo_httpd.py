"""The demo's web server: a real prefork server, as far as a pause can tell."""

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from swapd.demo.httpd import server_user
from swapd.demo.play import HTTPD, PATIENCE, WebServer, web_server
from swapd.host.masters import find_masters
from swapd.host.processes import child_pids, read_status
from tests.support.waiting import wait_until

WORKERS = 3
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Server:
    """The web server as the demo starts it, and the processes that it is."""

    web: WebServer

    @property
    def master(self) -> int:
        return self.web.process.pid

    def workers(self) -> list[int]:
        return child_pids(self.master)

    def processes(self) -> list[int]:
        return [self.master, *self.workers()]

    def is_complete(self) -> bool:
        return len(self.workers()) == WORKERS and all(map(is_ready, self.workers()))

    def ask(self, path: str = "/", **headers: str) -> http.client.HTTPConnection:
        """Sends a request, and leaves the answer for later."""
        connection = http.client.HTTPConnection(self.web.host, self.web.port, timeout=PATIENCE)
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return connection

    def get(self, path: str = "/", **headers: str) -> tuple[int, bytes]:
        return answer(self.ask(path, **headers))

    def connect(self) -> socket.socket:
        return socket.create_connection((self.web.host, self.web.port), timeout=PATIENCE)


def answer(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


def is_ready(worker: int) -> bool:
    """Whether a worker has done what it does with signals blocked, before it serves."""
    try:
        status = Path(f"/proc/{worker}/status").read_text()
    except FileNotFoundError:
        return False
    blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
    return not blocked & 1 << signal.SIGTERM - 1


def state(pid: int) -> str:
    status = read_status(pid)
    return status.state if status else "gone"


def is_gone(pid: int) -> bool:
    return state(pid) in {"gone", "Z", "X"}


@pytest.fixture
def live(tmp_path: Path) -> Path:
    live = tmp_path / "www/shop"
    live.mkdir(parents=True)
    (live / "index.html").write_text("one")
    return live


@pytest.fixture
def server(live: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Server]:
    with web_server(live, workers=WORKERS) as web:
        server = Server(web)
        wait_until(server.is_complete, "all workers")
        processes = server.processes()
        yield server
    wait_until(lambda: all(map(is_gone, processes)), "the end of all processes")
    assert capfd.readouterr().err == "", "the server complained"


def test_every_process_is_called_httpd_and_none_runs_as_root(server: Server) -> None:
    for pid in server.processes():
        process = psutil.Process(pid)
        assert process.name() == HTTPD
        assert process.username() == server_user()
    username = psutil.Process(server.master).username()
    assert server.master in find_masters([HTTPD], username)
    assert not set(server.workers()) & set(find_masters([HTTPD], username))


def test_whatever_is_live_is_served(server: Server, live: Path) -> None:
    assert server.get() == (200, b"one")
    (live.parent / "next").mkdir()
    (live.parent / "next/index.html").write_text("two")
    os.rename(live, live.parent / "previous")
    assert server.get()[0] == 404
    os.rename(live.parent / "next", live)
    assert server.get() == (200, b"two")
    (live / "empty").mkdir()
    assert server.get("/empty/")[0] == 404  # no listing of directories


def test_a_browser_that_has_the_file_gets_a_304(server: Server) -> None:
    connection = server.ask("/index.html")
    modified = connection.getresponse().headers["Last-Modified"]
    connection.close()
    assert server.get("/index.html", If_Modified_Since=modified) == (304, b"")


def test_requests_wait_while_it_is_paused_and_none_is_lost(server: Server) -> None:
    processes = server.processes()
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: {state(pid) for pid in processes} == {"T"}, "all of them stopped")
    waiting = [server.ask() for _ in range(20)]
    for pid in reversed(processes):
        os.kill(pid, signal.SIGCONT)
    assert [answer(connection) for connection in waiting] == [(200, b"one")] * 20
    assert server.processes() == processes


def test_it_serves_on_under_stops_in_the_middle_of_everything(server: Server) -> None:
    for round_ in range(30):
        asked = [server.ask() for _ in range(WORKERS)]
        processes = server.processes()
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        asked += [server.ask() for _ in range(WORKERS)]
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
        for connection in asked:
            assert answer(connection) == (200, b"one"), f"round {round_}"


def test_a_worker_that_dies_is_replaced(server: Server) -> None:
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in server.workers() and server.is_complete(), "a new worker")
    assert server.get() == (200, b"one")


def test_a_client_that_says_nothing_or_leaves_holds_up_nobody(server: Server) -> None:
    silent = [server.connect() for _ in range(WORKERS - 1)]
    leaving = server.connect()
    leaving.sendall(b"GET / HTT")
    leaving.close()
    assert server.get() == (200, b"one")
    for client in silent:
        client.close()


def test_it_stops_when_told_with_the_request_under_way_answered(server: Server) -> None:
    workers = server.workers()
    busy = server.connect()
    busy.sendall(b"GET / HTTP/1.0\r\n")
    server.get()  # by now one worker holds the other request
    os.kill(server.master, signal.SIGTERM)
    wait_until(lambda: sum(map(is_gone, workers)) >= WORKERS - 1, "the end of the idle workers")
    busy.sendall(b"\r\n")
    received = b""
    while part := busy.recv(4096):
        received += part
    busy.close()
    assert received.endswith(b"one")
    assert server.web.process.wait(PATIENCE) == 0
    assert all(map(is_gone, workers))


def test_it_stops_even_when_its_workers_are_stopped(server: Server) -> None:
    workers = server.workers()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    os.kill(server.master, signal.SIGTERM)
    assert server.web.process.wait(PATIENCE) == 0
    assert all(map(is_gone, workers))


@pytest.mark.parametrize("is_stopped", [False, True], ids=["running", "stopped"])
def test_workers_do_not_outlive_a_master_that_is_killed(server: Server, is_stopped: bool) -> None:
    workers = server.workers()
    for pid in workers * is_stopped:
        os.kill(pid, signal.SIGSTOP)
    server.web.process.kill()
    wait_until(lambda: all(map(is_gone, workers)), "the end of the workers")


def test_nothing_outlives_the_process_that_started_it(live: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from swapd.demo.play import web_server
with web_server(Path(sys.argv[1])) as web:
    print(web.process.pid, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, live], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as starter:
        assert starter.stdout is not None
        master = int(starter.stdout.readline())
        wait_until(lambda: bool(child_pids(master)), "workers")
        processes = [master, *child_pids(master)]
        starter.kill()
    wait_until(lambda: all(map(is_gone, processes)), "the end of all processes")

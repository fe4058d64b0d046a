"""The demo's web server: a real prefork server, as far as a pause can tell."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from swapd.demo.httpd import PROCESS_NAME, UNPRIVILEGED
from swapd.host.processes import child_pids, find_masters, read_status

WORKERS = 3
DEADLINE = 20.0
ROOT = Path(__file__).parents[2]


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE:.0f} s: {what}"
        time.sleep(0.01)


def is_ready(worker: int) -> bool:
    """Whether a worker has done what it does with signals blocked, before it serves."""
    status = Path(f"/proc/{worker}/status").read_text()
    return status.partition("SigBlk:")[2].split()[0] == "0" * 16


class Server:
    """The web server as the demo starts it."""

    def __init__(self, live: Path) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            self.port = listener.getsockname()[1]
            numbers = map(str, (listener.fileno(), live, WORKERS, os.getpid()))
            self.master = subprocess.Popen(
                [sys.executable, "-m", "swapd.demo.httpd", *numbers],
                pass_fds=[listener.fileno()],
                cwd=ROOT,
                stderr=subprocess.PIPE,
                text=True,
            )
        wait_until(lambda: len(self.workers()) == WORKERS and all(map(is_ready, self.workers())), "all workers")

    def workers(self) -> list[int]:
        return child_pids(self.master.pid)

    def processes(self) -> list[int]:
        return [self.master.pid, *self.workers()]

    def ask(self, path: str = "/", **headers: str) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return connection

    def get(self, path: str = "/", **headers: str) -> tuple[int, bytes]:
        return answer(self.ask(path, **headers))


def answer(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


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
def server(live: Path) -> Iterator[Server]:
    server = Server(live)
    processes = server.processes()
    yield server
    if server.master.poll() is None:
        server.master.kill()
    assert server.master.communicate()[1] == "", "the server complained"
    wait_until(lambda: all(map(is_gone, processes)), "the end of all processes")


def test_every_process_is_called_httpd_and_none_runs_as_root(server: Server) -> None:
    for pid in server.processes():
        process = psutil.Process(pid)
        assert process.name() == PROCESS_NAME
        assert process.username() == (UNPRIVILEGED if os.geteuid() == 0 else psutil.Process().username())
    username = psutil.Process(server.master.pid).username()
    assert server.master.pid in find_masters([PROCESS_NAME], username)
    assert not set(server.workers()) & set(find_masters([PROCESS_NAME], username))


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
    wait_until(lambda: victim not in server.workers() and len(server.workers()) == WORKERS, "a new worker")
    assert server.get() == (200, b"one")


def test_a_client_that_says_nothing_or_leaves_holds_up_nobody(server: Server) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(WORKERS - 1)]
    leaving = socket.create_connection(("127.0.0.1", server.port))
    leaving.sendall(b"GET / HTT")
    leaving.close()
    assert server.get() == (200, b"one")
    for client in silent:
        client.close()


def test_it_stops_when_told_with_the_request_under_way_answered(server: Server) -> None:
    workers = server.workers()
    busy = socket.create_connection(("127.0.0.1", server.port))
    busy.sendall(b"GET / HTTP/1.0\r\n")
    server.get()  # by now one worker holds the other request
    server.master.send_signal(signal.SIGTERM)
    wait_until(lambda: sum(map(is_gone, workers)) >= WORKERS - 1, "the end of the idle workers")
    busy.sendall(b"\r\n")
    received = b""
    while part := busy.recv(4096):
        received += part
    busy.close()
    assert received.endswith(b"one")
    assert server.master.wait(DEADLINE) == 0
    assert all(map(is_gone, workers))


def test_it_stops_even_when_its_workers_are_stopped(server: Server) -> None:
    workers = server.workers()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    server.master.send_signal(signal.SIGTERM)
    assert server.master.wait(DEADLINE) == 0
    assert all(map(is_gone, workers))


@pytest.mark.parametrize("is_stopped", [False, True], ids=["running", "stopped"])
def test_workers_do_not_outlive_a_master_that_is_killed(server: Server, is_stopped: bool) -> None:
    workers = server.workers()
    for pid in workers * is_stopped:
        os.kill(pid, signal.SIGSTOP)
    server.master.kill()
    server.master.wait()
    wait_until(lambda: all(map(is_gone, workers)), "the end of the workers")


def test_nothing_outlives_the_process_that_started_it(live: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from tests_demo_httpd import Server;"
        "server = Server(Path(sys.argv[1])); print(*server.processes(), flush=True); time.sleep(600)"
    )
    loader = (
        "import importlib.util as u, sys; s = u.spec_from_file_location('tests_demo_httpd', sys.argv[2]);"
        "m = u.module_from_spec(s); sys.modules[s.name] = m; s.loader.exec_module(m);"
    )
    with subprocess.Popen(
        [sys.executable, "-c", loader + program, live, __file__], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as starter:
        assert starter.stdout is not None
        processes = list(map(int, starter.stdout.readline().split()))
        assert len(processes) == 1 + WORKERS
        starter.kill()
    wait_until(lambda: all(map(is_gone, processes)), "the end of all processes")

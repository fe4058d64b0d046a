"""``swapd demo``, as people call it: real processes, real signals, and nothing left behind."""

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from swapd.commands.demo import build, play_once
from swapd.demo.httpd import server_user
from swapd.demo.play import HTTPD, WORKERS, command_line, own_process_name, web_server
from swapd.model.errors import Failed
from swapd.model.layout import Layout
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
# A shell without job control has what it runs in the background ignore SIGINT, and the demo keeps to that.
DEMO = ["env", "--default-signal=INT,TERM,HUP", sys.executable, "-m", "swapd", "demo"]


def processes_of(directory: Path) -> list[psutil.Process]:
    """Those whose command line names the directory, and everything below them."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and any(str(directory) in word for word in process.info["cmdline"] or []):
            found.add(process)
            try:
                found.update(process.children(recursive=True))
            except psutil.NoSuchProcess:
                continue
    return list(found)


def nothing_runs(directory: Path) -> bool:
    return not processes_of(directory)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "demo"
    yield directory
    assert nothing_runs(directory)


def test_once_deploys_two_releases_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--once"], cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert "shop-1 is live" in done.stdout
    assert re.search(r"live +shop-2@[0-9a-f]{12} since .* paused for", done.stdout), "status"
    assert re.search(r"kept +shop-1@[0-9a-f]{12}, adopted@[0-9a-f]{12}", done.stdout), "status"
    assert len(re.findall(r"(?m)^.* shop-\d@[0-9a-f]{12} +live ", done.stdout)) == 2, "history"
    assert re.search(r"(?m)^\d\d:\d\d:\d\d notice shop: shop-2@\w+ is live; .*$", done.stdout), "log"
    assert os.listdir(tmp_path) == []
    assert nothing_runs(tmp_path)


def test_once_keeps_a_directory_that_was_named(directory: Path) -> None:
    subprocess.run([*DEMO, "--once", "--directory", directory], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert (directory / "www/shop/version.txt").read_text() == "2\n"
    assert [path.name for path in directory.glob("var/spool/swapd/shop/*.live")]
    again = subprocess.run([*DEMO, "--directory", directory], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 2
    assert "not empty" in again.stderr


def test_a_release_that_does_not_go_live_is_a_clear_failure(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory.mkdir(mode=0o755)
    user = server_user()
    with own_process_name(user) as name:
        stage = build(directory, name, user)
        tarball = stage.second.tarball.read_bytes()
        stage.second.tarball.write_bytes(tarball[: len(tarball) // 2])
        with pytest.raises(Failed, match=r"shop-2\.tar\.gz rejected: ") as failure:
            play_once(stage)
    assert str(directory) in failure.value.hint
    assert "shop-1@" in capfd.readouterr().err, "the log"
    assert (directory / "www/shop/version.txt").read_text() == "1\n"


def paused_counts(output: str) -> set[str]:
    return set(re.findall(r"(\d+) httpd processes were paused", output))


def check_only_its_own_are_paused(directory: Path) -> None:
    done = subprocess.run([*DEMO, "--once", "--directory", directory], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert paused_counts(done.stdout) == {str(1 + WORKERS)}


def test_another_httpd_of_the_same_user_is_not_paused(directory: Path, tmp_path: Path) -> None:
    with web_server(tmp_path / "elsewhere") as other:
        assert other.get("/")[0] == 404  # so it has its name by now
        check_only_its_own_are_paused(directory)


def test_a_httpd_of_ours_is_not_paused(directory: Path) -> None:
    program = """
import sys
from swapd.host.linux import prctl_set_name
prctl_set_name(sys.argv[1])
print(flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, HTTPD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline()
        check_only_its_own_are_paused(directory)
        other.stdin.close()


def test_demos_side_by_side_leave_each_other_alone(tmp_path: Path) -> None:
    demos = [
        subprocess.Popen(
            [*DEMO, "--once", "--directory", tmp_path / str(number)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(3)
    ]
    for demo in demos:
        output = demo.communicate()[0]
        assert demo.returncode == 0, output
        assert paused_counts(output) == {str(1 + WORKERS)}


class Demo:
    """The demo in its interactive form, up to the line that says that Ctrl-C stops everything."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [*DEMO, "--directory", directory], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if line.startswith("Ctrl-C"):
                break
        else:
            raise AssertionError("\n".join(self.lines))
        self.port = int(self.after("Open:").rstrip("/").rpartition(":")[2])

    def after(self, words: str) -> str:
        """The line below the one that begins with these words."""
        return next(self.lines[at + 1] for at, line in enumerate(self.lines) if line.startswith(words))

    def get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", f"/{path}")
        body = connection.getresponse().read()
        connection.close()
        return body


@pytest.fixture
def demo(directory: Path) -> Iterator[Demo]:
    demo = Demo(directory)
    with demo.process:
        yield demo
        demo.process.kill()
    wait_until(lambda: nothing_runs(directory), "the end of all processes")


def test_the_lines_to_copy_deploy_the_next_releases(demo: Demo) -> None:
    assert demo.get("version.txt") == b"1\n"
    subprocess.run(demo.after("drop the next release"), shell=True, check=True, cwd=ROOT)  # noqa: S602 - as people do
    wait_until(lambda: demo.get("version.txt") == b"2\n", "release 2")
    assert b"Release 2" in demo.get("")

    (demo.directory / "shop-2/version.txt").write_text("mine\n")
    subprocess.run(demo.after("change that release"), shell=True, check=True, cwd=ROOT)  # noqa: S602
    wait_until(lambda: demo.get("version.txt") == b"mine\n", "a release of one's own")

    line = demo.after("ask what is live")
    status = subprocess.run(line, shell=True, check=True, cwd=ROOT, capture_output=True, text=True)  # noqa: S602
    assert "shop-2-" in status.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_in_order(demo: Demo, number: signal.Signals) -> None:
    demo.process.send_signal(number)
    output = demo.process.communicate()[0]
    assert demo.process.returncode == 0
    assert "swapd is stopping" in output, "the daemon's log"
    assert f"What it left is in {demo.directory}" in output
    assert nothing_runs(demo.directory)


def test_nothing_outlives_a_demo_that_is_killed(demo: Demo) -> None:
    assert len(processes_of(demo.directory)) >= 1 + 1 + WORKERS
    demo.process.kill()
    wait_until(lambda: nothing_runs(demo.directory), "the end of all processes")


def test_a_demo_whose_daemon_dies_says_so_and_stops_the_rest(demo: Demo) -> None:
    line = command_line(Layout(demo.directory), "run")
    found = {it.pid: it for it in psutil.process_iter(["cmdline", "ppid"]) if it.info["cmdline"] == line}
    # What it has forked has its command line, too.
    (daemon,) = [process for process in found.values() if process.info["ppid"] not in found]
    daemon.kill()
    output = demo.process.communicate()[0]
    assert demo.process.returncode == 1
    assert "the daemon ended with status -9" in output

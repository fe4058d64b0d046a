"""The harness itself: without it, no result of this ring means anything."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.host.machine import PREFIX, Host, booted, sweep, wait_until
from tests.host.package import CHECKOUT
from tests.host.roots import CACHE
from tests.host.visitors import Load, fetch

# A test run that boots a host, says what its init process is, and is killed.
KILLED_RUN = """
import sys
from pathlib import Path
from tests.host.machine import boot
host = boot(Path(sys.argv[1]))
print(host.leader, host.name, flush=True)
sys.stdin.read()
"""


def test_a_host_serves_its_visitors(host: Host) -> None:
    host.write("/var/www/html/release.txt", "one\n")
    assert fetch(host, "localhost", "release.txt").body == b"one\n"
    assert fetch(host, "localhost", "missing").status == 404
    with Load(host, "localhost") as load:
        wait_until(lambda: load.requests >= 20, "20 visitors have come")
    load.assert_served({"one"})


def test_a_load_sees_what_fails(host: Host) -> None:
    with Load(host, "localhost") as load:
        host.run("systemctl", "stop", "apache2")
        reached = load.requests
        wait_until(lambda: load.requests >= reached + 5, "5 visitors have met nobody")
        host.run("systemctl", "start", "apache2")
    assert any("Refused" in failure for failure in load.failures), load.failures


def test_a_command_runs_in_the_host_and_without_our_environment(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKED", "1")
    assert "LEAKED" not in host.run("env").stdout
    assert host.run("cat", "/proc/1/comm").stdout == "systemd\n"
    with pytest.raises(AssertionError, match="no-such-file"):
        host.run("cat", "/no-such-file")


def test_a_stopped_process_is_seen(host: Host) -> None:
    pid = next(pid for pid, name, _ in host.processes() if name == "apache2")
    subprocess.run(["kill", "-STOP", str(pid)], check=True)
    wait_until(lambda: (pid, "apache2", "T") in host.processes(), "the process is seen stopped")
    subprocess.run(["kill", "-CONT", str(pid)], check=True)


def test_two_hosts_share_nothing_and_leave_nothing(host: Host, base: Path) -> None:
    with booted(base) as other:
        other.write("/var/www/html/release.txt", "other\n")
        assert fetch(other, "localhost", "release.txt").body == b"other\n"
        assert fetch(host, "localhost", "release.txt").body != b"other\n"
        mine = {pid for pid, _, _ in host.processes()}
        assert mine.isdisjoint(pid for pid, _, _ in other.processes())
    assert not Path(f"/proc/{other.leader}").exists()
    assert not (CACHE / other.name).exists()
    assert other.name not in Path("/proc/self/mountinfo").read_text()


def test_a_killed_run_leaves_no_processes_and_the_next_one_sweeps(base: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN, str(base)], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with run:
        assert run.stdout is not None
        leader, name = run.stdout.readline().decode().split()
        assert name.startswith(PREFIX)
        run.send_signal(signal.SIGKILL)
    wait_until(lambda: not _is_alive(leader), "the host's init process has ended")
    assert (CACHE / name).exists()
    sweep()
    assert not (CACHE / name).exists()


def _is_alive(pid: str) -> bool:
    """Whether there is such a process, and no mere zombie that nobody has waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False

"""Which program is asked about the web server's configuration, and how."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swapd.host import asking
from swapd.host.asking import ask
from swapd.host.httpd_program import read_program
from tests.support.waiting import wait_until

pytestmark = pytest.mark.root  # nobody else's server is run again by root


@contextmanager
def server(place: Path, name: str = "httpd", user: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A shell by that name, with a server's options, that waits."""
    place.chmod(0o755)
    for parent in place.parents[:3]:
        parent.chmod(0o755)
    program = place / name
    shutil.copy2(os.path.realpath("/bin/sh"), program)
    configuration = ["-c", "echo here; read forever", "-f", "/etc/my.conf", "-D", "FOREGROUND"]
    options = [*configuration, "-E", "/dev/tty", "-k", "start"]
    process = subprocess.Popen(
        [str(program), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        user=user,
        env={"APACHE_RUN_USER": "www-data", "NOTIFY_SOCKET": "/run/notify", "LANG": "de_DE.UTF-8"},
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            yield process
        finally:
            process.kill()


def test_the_server_that_runs_is_asked_with_its_own_options(tmp_path: Path) -> None:
    with server(tmp_path) as process:
        program = read_program(process.pid)
        assert program is not None
        configuration = ("-f", "/etc/my.conf", "-D", "FOREGROUND")
        assert program.command == (str(tmp_path / "httpd"), "-c", "echo here; read forever", *configuration)
        assert program.environment["APACHE_RUN_USER"] == "www-data"
        assert not {"NOTIFY_SOCKET", "LANG"} & program.environment.keys()


def test_what_another_user_calls_httpd_is_never_run(tmp_path: Path) -> None:
    with server(tmp_path, user=54321) as process:
        assert read_program(process.pid) is None


def test_what_only_bears_the_name_is_never_run(tmp_path: Path) -> None:
    with server(tmp_path, name="busybox") as process:
        assert read_program(process.pid) is None


def test_a_program_that_was_replaced_is_not_the_one_that_runs(tmp_path: Path) -> None:
    with server(tmp_path) as process:
        (tmp_path / "new").write_text("#!/bin/sh\n")
        (tmp_path / "new").rename(tmp_path / "httpd")
        assert read_program(process.pid) is None


def test_who_does_not_answer_is_ended_with_what_he_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PATIENCE", 0.5)
    answer = ask("/bin/sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/pid; wait")
    assert answer.status != 0
    assert "has not ended" in answer.words
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not _runs(pid), "its child has ended")


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False

"""Who runs a command: what a login's uid, sudo and the process itself say."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from swapd.host.users import find_operator, user_name

DAEMON = pwd.getpwnam("daemon")
UNSET = "4294967295"
SUDO = {"SUDO_USER": "daemon", "SUDO_UID": str(DAEMON.pw_uid)}


@pytest.fixture
def loginuid(tmp_path: Path) -> Path:
    return tmp_path / "loginuid"


def test_who_logged_in_is_believed_before_all(loginuid: Path) -> None:
    loginuid.write_text(str(DAEMON.pw_uid))
    assert find_operator({"SUDO_USER": "root", "SUDO_UID": "0"}, loginuid, euid=0) == "daemon"


@pytest.mark.parametrize("text", [UNSET, "", "nonsense", None])
def test_without_a_login_the_user_of_sudo(loginuid: Path, text: str | None) -> None:
    if text is not None:
        loginuid.write_text(text)
    assert find_operator(SUDO, loginuid, euid=0) == "daemon"


@pytest.mark.parametrize(
    ("environment", "euid"),
    [
        (SUDO, 1000),  # anybody can say so of themselves
        ({**SUDO, "SUDO_UID": "0"}, 0),
        ({"SUDO_USER": "daemon"}, 0),
        ({"SUDO_USER": "nobody-is-called-so", "SUDO_UID": "1"}, 0),
        ({}, 0),
    ],
)
def test_what_nobody_vouches_for_is_not_believed(loginuid: Path, environment: dict[str, str], euid: int) -> None:
    loginuid.write_text(UNSET)
    assert find_operator(environment, loginuid, euid) == user_name(os.getuid())


def test_a_user_that_the_system_does_not_know() -> None:
    assert user_name(4_123_456) == "4123456"

"""``swapd pack`` as a command in the test's own process, and a git that reads nobody's configuration."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from swapd.commands.pack import command
from swapd.model.errors import SwapdError

WHEN = 1_700_000_000  # when everything is committed


def isolate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes an empty directory ``out`` the one to be in, and nobody's settings those of git and swapd."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "somebody")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "somebody@example.org")
        monkeypatch.setenv(f"GIT_{who}_DATE", f"{WHEN} +0000")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def succeed(*arguments: str | Path) -> str:
    """What a call that succeeds says."""
    result = run(*arguments)
    if result.exception:
        raise result.exception
    return result.stdout


def problem(*arguments: str | Path) -> str:
    """The problem code of a call that fails."""
    result = run(*arguments)
    assert isinstance(result.exception, SwapdError), result.output
    return result.exception.problem


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout.strip()

"""What can go wrong, as values: a stable problem code, a sentence, and what to do about it.

Two families end a deployment, and the difference is whose fault it is: ``Rejected`` (the tarball's) and
``Failed`` (this host's). The others end a command. Scripts and tests compare ``problem``; people read
``message`` and ``hint``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from swapd.model.text import LONGEST, printable


class ExitStatus(IntEnum):
    """The exit statuses of every swapd command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REJECTED = 3
    ROLLED_BACK = 4
    BUSY = 5
    CONFIGURATION = 78  # EX_CONFIG of sysexits.h


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that is wrong: a stable kebab-case ``problem``, what it is, and the way out."""

    problem: str
    message: str
    hint: str = ""


class SwapdError(Exception):
    """An error with a message for people; ``exit_status`` is what a command ends with.

    Message and hint are each one line that a terminal can show, whatever names from outside they are made with.
    """

    exit_status = ExitStatus.FAILED

    def __init__(self, problem: str, message: str, hint: str = "") -> None:
        super().__init__(printable(message, LONGEST))
        self.problem = problem
        self.message = printable(message, LONGEST)
        self.hint = printable(hint, LONGEST)


class Failed(SwapdError):
    """This host is at fault: the same tarball may well go live once the host is mended."""


class Interrupted(Failed):
    """swapd was told to stop in the middle of a deployment; it is taken up again at the next start."""

    def __init__(self, stage: str) -> None:
        super().__init__(
            "interrupted",
            f"swapd was told to stop during {stage}",
            "Nothing to do: the live path is as it was, and what was dropped is taken up again at the next start.",
        )


class NotComplete(SwapdError):
    """The upload goes on, or waits for its sidecar: no deployment has begun, and it is looked at again."""


class Rejected(SwapdError):
    """The tarball is at fault; ``issues`` holds everything that was found, never empty."""

    exit_status = ExitStatus.REJECTED

    def __init__(self, issues: Iterable[Issue]) -> None:
        self.issues = tuple(issues)
        first = self.issues[0]
        super().__init__(first.problem, "; ".join(issue.message for issue in self.issues), first.hint)

    @classmethod
    def because(cls, problem: str, message: str, hint: str = "") -> Rejected:
        """A rejection for a single reason."""
        return cls([Issue(problem, message, hint)])


class Busy(SwapdError):
    """Somebody else holds the lock."""

    exit_status = ExitStatus.BUSY


class UsageError(SwapdError):
    """The command line asks for something that is not there."""

    exit_status = ExitStatus.USAGE


@dataclass(frozen=True, slots=True)
class ConfigurationIssue:
    """One mistake in a configuration file: where it stands, and what would be right."""

    file: str
    line: int
    key: str
    message: str
    right: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        key = f"{self.key}: " if self.key else ""
        return printable(f"{where}: {key}{self.message}; {self.right}", LONGEST)


class ConfigurationError(SwapdError):
    """The configuration cannot be used; ``issues`` holds every mistake of every file, ``message`` a line for each."""

    exit_status = ExitStatus.CONFIGURATION

    def __init__(self, issues: Iterable[ConfigurationIssue]) -> None:
        self.issues = tuple(issues)
        super().__init__("bad-configuration", "", "Correct the lines above; `swapd check` tells when all is well.")
        self.message = "\n".join(map(str, self.issues))

    def __str__(self) -> str:
        return self.message

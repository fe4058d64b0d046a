"""What ``swapd follow`` shows, and how: on a terminal, in a pipe, to a program."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from typing import Protocol

import click

from swapd.commands.deploy import Bar, print_outcome
from swapd.commands.documents import (
    describe_deployment,
    describe_instant,
    describe_progress,
    describe_waiting,
    print_document,
)
from swapd.commands.paper import Paper
from swapd.commands.pursuit import Again, Ended, Goes, Gone, Nothing, Pursuit, State, Waits
from swapd.commands.status import describe_when
from swapd.model.config import Site
from swapd.model.errors import SwapdError
from swapd.model.progress import Progress
from swapd.model.record import now
from swapd.model.status import describe_time

HEARTBEAT = 10.0  # seconds after which a pipe hears how far a long stage is
LATE = 10.0  # seconds after which an outcome is one of the past


class Screen(Protocol):
    """Shows how a deployment stands, when that has changed."""

    def show(self, state: State, pursuit: Pursuit) -> None:
        """Shows it."""

    def warn(self, message: str) -> None:
        """Says what is wrong meanwhile."""

    def fail(self, error: SwapdError) -> None:
        """Says why there is no outcome, where nobody else does."""

    def close(self) -> None:
        """Leaves a terminal as it was."""


def describe(state: State, pursuit: Pursuit) -> str:
    """How it stands, in words that stay the same until that has changed."""
    match state:
        case Waits(upload, reason, behind):
            while_ = f"; {behind.release or behind.file_name} is under way" if behind else ""
            return f"{upload.file_name}: {reason}, since {describe_time(upload.since, now())}{while_}"
        case Goes(file_name, record, progress):
            if progress is None:
                return f"{file_name} was under way when its process ended; swapd sees to it"
            return f"{progress.release or file_name}: {progress.stage.value}"
        case Again(record):
            return f"{record.file_name}: {record.reason}; it is taken up again"
        case Gone(file_name):
            return f"{file_name} is gone"
        case _:
            incoming = pursuit.site.incoming
            blind = f"; you may not look into {incoming}, so what waits there is not seen" if pursuit.is_blind else ""
            if pursuit.file_name:
                return f"{pursuit.file_name} is neither there nor was it deployed; this waits for it{blind}"
            return f"nothing is under way; this waits for what is dropped into {incoming} next{blind}"


class Lines:
    """A line for each step, for people who read them in a pipe."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._paper = Paper()
        self._said = ""
        self._said_at = 0.0

    def show(self, state: State, pursuit: Pursuit) -> None:
        if isinstance(state, Ended):
            self._end(state)
            return
        if isinstance(state, Gone):
            return
        text, present = describe(state, pursuit), time.monotonic()
        progress = state.progress if isinstance(state, Goes) else None
        is_due = present - self._said_at >= HEARTBEAT and progress is not None and progress.fraction is not None
        if text != self._said or is_due:
            self._said, self._said_at = text, present
            self._say(text + _describe_share(progress))

    def _say(self, text: str) -> None:
        self._paper.line(f"{self._site.name}: {text}", indent=len(self._site.name) + 2)

    def _end(self, state: Ended) -> None:
        ended, present = state.record.ended or state.record.started, now()
        if (present - ended).total_seconds() > LATE:
            self._say(f"this was over at {describe_when(ended, present)}:")
        print_outcome(state.record, as_json=False)

    def warn(self, message: str) -> None:
        self.close()
        click.echo(f"swapd: {message}", err=True)

    def fail(self, error: SwapdError) -> None:
        """Whoever runs the command says it."""
        del error
        self.close()

    def close(self) -> None:
        """Nothing is to be put back."""


def _describe_share(progress: Progress | None) -> str:
    return f" {progress.fraction:.0%}" if progress is not None and progress.fraction else ""


class Terminal(Lines):
    """The same, with a bar for what is under way."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._bar: Bar | None = None

    @staticmethod
    def is_there() -> bool:
        """Whether standard output is a terminal that can go back on a line."""
        return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")

    def show(self, state: State, pursuit: Pursuit) -> None:
        if not isinstance(state, Goes) or state.progress is None:
            if isinstance(state, Ended | Gone) or describe(state, pursuit) != self._said:
                self.close()
            super().show(state, pursuit)
            return
        if self._bar is None:
            self._said = f"{state.file_name} is under way"
            self._say(self._said)
            self._bar = Bar()
            self._bar.progress.start()
        self._bar(state.progress.stage, state.progress.fraction, state.progress.release)

    def close(self) -> None:
        """The bar is wiped out."""
        if self._bar is not None:
            self._bar.progress.stop()
            self._bar = None


class JsonLines:
    """A JSON document for each step, on a line of its own."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._said: object = None

    def show(self, state: State, pursuit: Pursuit) -> None:
        match state:
            case Waits(upload, reason):
                self._tell("waiting", waiting=describe_waiting(upload, reason))
            case Goes(_, record, progress):
                deployment = record.id if record else None
                self._tell("progress", deployment=deployment, progress=describe_progress(_rounded(progress)))
            case Again(record):
                self._tell("retried", deployment=describe_deployment(record))
            case Ended(record):
                self._tell("ended", deployment=describe_deployment(record))
            case Nothing():
                self._tell("idle", incoming=str(self._site.incoming), is_readable=not pursuit.is_blind)
            case Gone():
                pass  # an error, which is told as such

    def warn(self, message: str) -> None:
        self._print("warning", message=message)

    def fail(self, error: SwapdError) -> None:
        self._tell("error", problem=error.problem, message=error.message, hint=error.hint or None)

    def close(self) -> None:
        """Nothing is to be put back."""

    def _tell(self, event: str, **more: object) -> None:
        if self._said != (event, more):
            self._said = (event, more)
            self._print(event, **more)

    def _print(self, event: str, **more: object) -> None:
        time_ = describe_instant(now())
        print_document({"event": event, "site": self._site.name, "time": time_, **more}, is_line=True)
        sys.stdout.flush()


def _rounded(progress: Progress | None) -> Progress | None:
    """To a hundredth: a line for each of a stage's steps would be no news."""
    if progress is None or progress.fraction is None:
        return progress
    return replace(progress, fraction=round(progress.fraction, 2))

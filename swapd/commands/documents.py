"""What commands print with ``--json``, as ``swapd/schema.json`` describes it: every key is always there.

A record has more in it, which is for swapd alone and may change with any version of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from swapd.commands.waiting import Waiting
from swapd.model.errors import ConfigurationError
from swapd.model.progress import Progress
from swapd.model.record import Deployment, LiveRelease
from swapd.model.release import PauseCost

VERSION = 1  # of what is printed. A further key is no new version; one that goes, or means something else, is.


def print_document(document: Mapping[str, Any], *, is_line: bool = False) -> None:
    """A whole document; or one of several, each on a line of its own."""
    text = json.dumps({"version": VERSION, **document}, indent=None if is_line else 2)
    click.echo(text)


def describe_issues(error: ConfigurationError | None) -> list[dict[str, Any]]:
    """Every mistake in the configuration."""
    return [] if error is None else [asdict(issue) for issue in error.issues]


def describe_instant(instant: datetime | None) -> str | None:
    """As RFC 3339 has it, with its offset from UTC."""
    return None if instant is None else instant.isoformat()


def describe_deployment(item: Deployment) -> dict[str, Any]:
    """One attempt to make a release live."""
    return {
        "id": item.id,
        "site": item.site,
        "kind": item.kind.value,
        "outcome": item.outcome.value,
        "problem": item.problem or None,
        "reason": item.reason,
        "hint": item.hint or None,
        "release": item.release,
        "previous": item.previous,
        "file_name": item.file_name,
        "digest": item.digest,
        "uploader": item.uploader or None,
        "signer": item.signer or None,
        "operator": item.operator or None,
        "attempt": item.attempt,
        "started": describe_instant(item.started),
        "ended": describe_instant(item.ended),
        "duration_usec": item.duration_usec if item.ended else None,
        "stage": item.stage or None,
        "stages": [{"stage": time.stage.value, "usec": time.usec} for time in item.stages],
        "strategy": item.strategy or None,
        "strategy_reason": item.strategy_reason or None,
        "pause": describe_cost(item.pause),
    }


def describe_cost(pause: PauseCost | None) -> dict[str, Any] | None:
    """What a pause cost."""
    return None if pause is None else {**asdict(pause), "queues": [asdict(queue) for queue in pause.queues]}


def describe_live(live: LiveRelease | None) -> dict[str, Any] | None:
    """What is live."""
    return (
        None
        if live is None
        else {
            "release": live.release,
            "digest": live.digest,
            "deployment": live.deployment,
            "since": describe_instant(live.since),
            "pause": describe_cost(live.pause),
        }
    )


def describe_progress(progress: Progress | None) -> dict[str, Any] | None:
    """How far what is under way has come."""
    return (
        None
        if progress is None
        else {
            "file_name": progress.file_name,
            "release": progress.release or None,
            "stage": progress.stage.value,
            "fraction": progress.fraction,
        }
    )


def describe_waiting(item: Waiting, reason: str) -> dict[str, Any]:
    """A file that waits."""
    return {"file_name": item.file_name, "reason": reason, "since": describe_instant(item.since)}


def describe_answered(item: Deployment) -> dict[str, Any]:
    """A file that lies there still, and what it was answered."""
    return {
        "file_name": item.file_name,
        "deployment": item.id,
        "outcome": item.outcome.value,
        "problem": item.problem or None,
        "reason": item.reason,
    }

"""The host's journal, as ``journalctl -o json`` gives it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from tests.host.machine import Host

Record = dict[str, str]

# The ids of swapd's events as a site's administrator may have written them into a filter: they never change.
DEPLOYMENT_STARTED = "ac7ca862b6464d9fb8487a15969c9d82"
DEPLOYMENT_LIVE = "14517fd0f403455baabf99acb168afe3"
DEPLOYMENT_UNCHANGED = "b5051cf6d3144b3eaadc80c587d00496"
DEPLOYMENT_REJECTED = "e74f7016de8b4e468ff1fc45706df908"
DEPLOYMENT_FAILED = "fe14b8dba2da4a92a8afe3049a9c5cfb"
ROLLBACK_STARTED = "d93574c87bf74d44baa08fdcd8aabf00"
ROLLBACK_LIVE = "31a88c9949c641399405d3ab86bd6254"
ROLLBACK_UNCHANGED = "a1a7ef3e822a49c3bb7b63091f330c5e"
ROLLBACK_REJECTED = "13582a3d1b234085833907342e27a358"
ROLLBACK_FAILED = "0751961464f94535ab2de30b93fdd3cd"
CONFIGURATION_REFUSED = "6163c50b194c4f9ea3cc6d6975a46e43"
RELOADED = "39b2cbf03e7844adb36ce3ff83c9ec5f"
RECOVERED = "d02a3d0548904d1497e610c9c05bfe9c"
RESUMED_LEFTOVER = "5fe2879ae7664c5e9cf6c4f3c9477594"
WATCH_REBUILT = "485b8bfaec1a4cc284d6fca628b5bf75"
DROP_DIRECTORY_LOST = "e31b46393124498aaf9f35799fbab60c"
INTERRUPTED = "d8fcdc0b78df415383876a0604a83f9f"
STARTS = (DEPLOYMENT_STARTED, ROLLBACK_STARTED)
OUTCOMES = (
    *(DEPLOYMENT_LIVE, DEPLOYMENT_UNCHANGED, DEPLOYMENT_REJECTED, DEPLOYMENT_FAILED, INTERRUPTED),
    *(ROLLBACK_LIVE, ROLLBACK_UNCHANGED, ROLLBACK_REJECTED, ROLLBACK_FAILED),
)


def mark(host: Host) -> int:
    """The present place in the journal, for ``records(after=…)``."""
    # No cursor: systemd 252 leaves out the first record after a cursor whose own record the arguments do not match.
    host.run("journalctl", "--sync")
    return time.time_ns() // 1000


def records(host: Host, *arguments: str, after: int = 0) -> list[Record]:
    """The records that journalctl finds for the arguments, oldest first; without any, those of the unit swapd."""
    host.run("journalctl", "--sync")
    # --all: fields of more than 4096 bytes would be null.
    lines = host.run("journalctl", "--output=json", "--all", *(arguments or ("--unit=swapd",))).stdout
    found = [_parse(json.loads(line)) for line in lines.splitlines()]
    return [record for record in found if int(record["__REALTIME_TIMESTAMP"]) > after]


def warnings(host: Host, *, after: int, known: Callable[[Record], bool]) -> list[str]:
    """What the daemon, commands and systemd said of swapd at warning or worse, and is not known."""
    ours = ("SYSLOG_IDENTIFIER=swapd", "+", "_SYSTEMD_UNIT=swapd.service", "+", "UNIT=swapd.service")
    loud = records(host, "--priority=warning", *ours, after=after)
    return [describe(record) for record in loud if not known(record)]


def of_deployment(found: Iterable[Record], deployment: str) -> list[Record]:
    """Those records that are about the deployment."""
    return [record for record in found if record.get("SWAPD_DEPLOYMENT") == deployment]


def describe(record: Record) -> str:
    """A record on one line, with its own fields."""
    fields = " ".join(f"{key}={value}" for key, value in sorted(record.items()) if key.startswith("SWAPD_"))
    return f"<{record.get('PRIORITY')}> {record.get('MESSAGE')}  {fields}"


def _parse(raw: dict[str, Any]) -> Record:
    """Fields as text. journalctl gives what is not printable UTF-8 as a list of bytes, repeated fields as a list."""
    return {key: _text(value) for key, value in raw.items()}


def _text(value: Any) -> str:
    if isinstance(value, list):
        if all(isinstance(item, int) for item in value):
            return bytes(value).decode("utf-8", "surrogateescape")
        return "\n".join(_text(item) for item in value)
    return "" if value is None else str(value)

"""What the journal has of deployments, for whoever goes on after a crash.

A record of ours is one datagram, and that it is sent is noted in a file: nothing makes the two one step. Only the
journal itself knows afterwards whether the datagram went out before the kill.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection

from swapd.model.release import DeploymentId

PATIENCE = 3.0  # seconds for each of two calls: a journal that hangs is not to hold up a recovery
MATCHES = ("SYSLOG_IDENTIFIER=swapd", "_UID=0")  # anybody may write a record that has our names in it


def find_message_ids(deployments: Collection[DeploymentId]) -> dict[DeploymentId, frozenset[str]] | None:
    """The ``MESSAGE_ID`` of each record that the journal has of each of the deployments, what was just sent included.

    None where it cannot be asked. What has been rotated away, or is not stored, is not there. For root.
    """
    found: dict[DeploymentId, set[str]] = {deployment: set() for deployment in deployments}
    try:
        _run("--sync")
        # Several matches of one field are alternatives, those of different fields must all be there.
        matches = [f"SWAPD_DEPLOYMENT={deployment}" for deployment in deployments]
        for line in _run("--output=json", "--output-fields=MESSAGE_ID,SWAPD_DEPLOYMENT", *MATCHES, *matches):
            record = json.loads(line)
            found[record["SWAPD_DEPLOYMENT"]].add(record["MESSAGE_ID"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None
    return {deployment: frozenset(ids) for deployment, ids in found.items()}


def _run(*arguments: str) -> list[str]:
    done = subprocess.run(
        ["journalctl", "--quiet", "--no-pager", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout.splitlines()

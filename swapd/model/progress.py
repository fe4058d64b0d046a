"""How far a deployment is that is under way, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from swapd.model.record import Recorded
from swapd.model.release import SiteName, Stage


@dataclass(frozen=True, slots=True)
class Progress(Recorded):
    """The stage that a deployment is in, and how much of it is done."""

    site: SiteName
    pid: int  # of whoever says so: the daemon, or a command
    file_name: str  # as records have it
    stage: Stage
    release: str = ""  # empty before it is known
    fraction: float | None = None  # 0 to 1; None where it cannot be told

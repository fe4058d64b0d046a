"""How far a deployment is that is under way, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from swapd.model.record import Deployment, Recorded
from swapd.model.release import SiteName, Stage


@dataclass(frozen=True, slots=True)
class Progress(Recorded):
    """The stage that a deployment is in, and how much of it is done."""

    site: SiteName
    pid: int  # of whoever says so: the daemon, or a command
    begun: float  # seconds since the epoch: before whatever is recorded of this deployment
    file_name: str  # as records have it
    stage: Stage
    release: str = ""  # empty before it is known
    fraction: float | None = None  # 0 to 1; None where it cannot be told

    def is_of(self, deployment: Deployment) -> bool:
        """Whether it is said of this deployment; it is for a moment longer than that goes on."""
        return deployment.file_name == self.file_name and deployment.started.timestamp() >= self.begun

"""What a deployment needs of whoever runs it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from swapd.host.leisure import Leisure
from swapd.host.refusals import PASSING
from swapd.model import events
from swapd.model.errors import Failed
from swapd.model.events import Event
from swapd.model.layout import Layout
from swapd.model.release import DeploymentId, SiteName, Stage, printable

RARELY = 30.0  # seconds between two looks at all of a drop directory by who deploys: a crowd may lie there


@dataclass(frozen=True, slots=True)
class Context:
    """Of a worker of the daemon, or of a command."""

    layout: Layout
    emit: Callable[[Event], None]
    progress: Callable[[Stage, float | None, str], None]  # the stage, how much of it is done (0 to 1), the release
    is_cancelled: Callable[[], bool] = lambda: False
    operator: str = ""  # who ran the command
    # The ids of the events that the journal has of each of the deployments; of one that is left out that is not known.
    find_told: Callable[[Collection[DeploymentId]], Mapping[DeploymentId, Collection[str]]] = lambda _: {}
    sweeping: Leisure = field(default_factory=lambda: Leisure(RARELY))  # of what crashes left in the drop directory
    tidying: Leisure = field(default_factory=lambda: Leisure(RARELY))  # of markers of releases that are gone

    def degrading(self, site: SiteName, what: str, write: Callable[[], object]) -> bool:
        """Does what must not change an outcome when it fails: that is said. Whether there is no more to hope for."""
        try:
            write()
        except Failed as error:
            self.emit(events.degraded(f"{what}: {error.message}", site))
        except OSError as error:
            self.degrade(site, what, error)
            return error.errno not in PASSING
        return True

    def degrade(self, site: SiteName, what: str, error: OSError) -> None:
        """Says what failed, and that nothing is lost by it."""
        self.emit(events.degraded(f"{what}: {printable(str(error.filename))}: {error.strerror}", site))

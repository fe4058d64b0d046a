"""What is compared: ways to put a release into the place of another while visitors come.

All but swapd's are what administrators type today. A line with ``{next}`` switches a live link between two releases;
the others exchange the live directory and the staged one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tests.benchmarks.server import LIVE, STAGED, WWW

OLD = f"{WWW}/old"
MOVES = f"mv {LIVE} {OLD}; mv {STAGED} {LIVE}"


@dataclass(frozen=True, slots=True)
class Way:
    """A way to swap; ``line`` is for a shell, and empty for swapd's own pause and exchange."""

    name: str
    line: str = ""
    after: str = ""  # brings the trees back to where the next swap needs them; not part of the swap
    interval: float = 0.25  # seconds from one swap to the next

    @property
    def is_link(self) -> bool:
        return "{next}" in self.line


SWAPD = Way("swapd", interval=0.3)
RECIPES = (
    Way("STOP, mv, mv, CONT", f"killall -STOP apache2; {MOVES}; killall -CONT apache2", f"mv {OLD} {STAGED}"),
    Way("mv, mv", MOVES, f"mv {OLD} {STAGED}"),
    Way("ln -nfs", f"ln -nfs {{next}} {LIVE}"),
    Way("ln -s, mv -T", f"ln -s {{next}} {WWW}/link; mv -T {WWW}/link {LIVE}"),
    Way("stop, mv, mv, start", f"systemctl stop apache2; {MOVES}; systemctl start apache2", f"mv {OLD} {STAGED}", 1.0),
    Way("ln -nfs, graceful", f"ln -nfs {{next}} {LIVE}; apachectl graceful", interval=1.0),
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """So many stretches, each a quiet one and then one of so many swaps."""

    stretches: int
    swaps: int
    quiet: float  # seconds

    def document(self, way: Way) -> str:
        """For the swapper on the host."""
        plan = {"stretches": self.stretches, "swaps": self.swaps, "quiet": self.quiet}
        return json.dumps(plan | {"line": way.line, "after": way.after, "interval": way.interval})

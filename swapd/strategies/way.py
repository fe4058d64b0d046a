"""What every strategy is: when it can be had, what it renames, and whether that has a window.

The renames themselves, done and undone, are in ``host/renames.py``: whoever resumes httpd after a crash undoes them,
and knows nothing but what was written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from swapd.model.config import Site
from swapd.model.errors import Issue
from swapd.model.record import PathSwap
from swapd.model.release import DeploymentId, ReleaseId


@dataclass(frozen=True, slots=True)
class Place:
    """What goes live: the staged tree as the stages before left it, for one live path of the site."""

    site: Site  # the part of the site that has the live path
    staging: Path
    release: ReleaseId
    deployment: DeploymentId

    def under(self, name: str) -> str:
        """A name among the releases that only this deployment has."""
        return str(self.site.releases / f".{name}-{self.deployment}")


@dataclass(frozen=True, slots=True)
class Renames:
    """What a strategy is about to rename for one live path."""

    swap: PathSwap
    staged_path: str  # of the staged tree right before that


class Way(Protocol):
    """A strategy; each is a module with these names."""

    @property
    def IS_PAUSED_FOR(self) -> bool:  # noqa: N802 - a module's constant
        """Whether ``[pause] mode = "auto"`` pauses httpd for it: its renames touch the live path that httpd serves."""

    def find_obstacle(self, site: Site) -> Issue | None:
        """Why the site cannot be swapped in this way on this host, or None. Tried; nothing is changed by it."""

    def plan(self, place: Place) -> Renames:
        """The renames; nothing is done yet. Raises ``OSError``."""


def describe_live(site: Site) -> str:
    """What stands at the live path, as the end of a sentence."""
    kind = "a symbolic link" if site.live.is_symlink() else "a directory" if site.live.exists() else "not there yet"
    return f"{site.live} is {kind}"

"""What a look at this host and a site's configuration finds: values, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from swapd.model.errors import SwapdError
from swapd.model.release import SiteName
from swapd.model.room import UNTOUCHED


class Severity(Enum):
    """How much a finding matters."""

    INFO = "info"  # good to know
    WARNING = "warning"  # deployments go well, and something else may not
    ERROR = "error"  # the next deployment fails


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. ``problem`` is a stable kebab-case code, ``facts`` what programs may want of it."""

    site: SiteName
    severity: Severity
    problem: str
    what: str  # it means for deployments or visitors
    why: str
    remedy: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, site: SiteName, what: str, error: SwapdError) -> Finding:
        """What would make a deployment fail with this error."""
        # A deployment has to say what is still safe; a look touches nothing.
        remedy = error.hint.removeprefix(UNTOUCHED).strip()
        return cls(site, Severity.ERROR, error.problem, what, error.message, remedy)

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "site": self.site,
            "severity": self.severity.value,
            "problem": self.problem,
            "what": self.what,
            "why": self.why,
            "remedy": self.remedy,
            "facts": dict(self.facts),
        }

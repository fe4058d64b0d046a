"""What a look at this host and a site's configuration finds: values, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from swapd.model.errors import SwapdError
from swapd.model.release import SiteName
from swapd.model.room import UNTOUCHED


class Severity(Enum):
    """How much a finding matters; the worst first."""

    ERROR = "error"  # the next deployment fails
    WARNING = "warning"  # deployments go well, and something else may not
    UNKNOWN = "unknown"  # whether something is wrong there, whoever asks may not see
    INFO = "info"  # good to know


ORDER = tuple(Severity)
AS_ROOT = "Run it as root."  # the remedy of what only root may see


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. ``problem`` is a stable kebab-case code, ``facts`` what programs may want of it.

    ``remedy`` says what to do; where that is to run something, ``commands`` are the exact lines, to be run in a shell
    as they are, in this order, and ``remedy`` says what they do.
    """

    site: SiteName | None  # None: it is about the host as a whole
    severity: Severity
    problem: str
    what: str  # it means for deployments or visitors
    why: str
    remedy: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()

    @classmethod
    def of(cls, site: SiteName | None, what: str, error: SwapdError) -> Finding:
        """What would make a deployment fail with this error."""
        # A deployment has to say what is still safe; a look touches nothing.
        remedy = error.hint.removeprefix(UNTOUCHED).strip()
        return cls(site, Severity.ERROR, error.problem, what, error.message, remedy)

    @property
    def is_trouble(self) -> bool:
        """Whether something is wrong, and not only good to know or not to be seen."""
        return self.severity in (Severity.ERROR, Severity.WARNING)

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "site": self.site,
            "severity": self.severity.value,
            "problem": self.problem,
            "what": self.what,
            "why": self.why,
            "remedy": self.remedy,
            "commands": list(self.commands),
            "facts": dict(self.facts),
        }


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """By severity; of the same one, what is about the whole host comes first, and else they stay in their order."""
    return sorted(findings, key=lambda finding: (ORDER.index(finding.severity), finding.site is not None))

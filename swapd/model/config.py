"""The configuration of a site, as values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from swapd.model.release import SiteName
from swapd.model.units import exact_duration, exact_size

DROP_GROUP = "swapd"  # made by the package's sysusers file


class Strategy(Enum):
    """How a release takes the place of the one that is live."""

    AUTO = "auto"
    EXCHANGE = "exchange"
    SYMLINK = "symlink"
    RENAME = "rename"
    PINNED = "pinned"


class Mtime(Enum):
    """Which modification times the files of a release get."""

    RELEASE = "release"
    ARCHIVE = "archive"


class Require(Enum):
    """What a tarball must prove; each includes the ones before it."""

    INTEGRITY = "integrity"
    DIGEST = "digest"
    SIGNATURE = "signature"


class Queue(Enum):
    """Which of several complete uploads that wait are deployed."""

    ALL = "all"  # one after the other, in the order in which they came
    LATEST = "latest"  # the one that came last; those before it only if it does not go live


class Drift(Enum):
    """What is done about a live path that is not what swapd left there."""

    REFUSE = "refuse"
    ADOPT = "adopt"


class Reuse(Enum):
    """Whether what a release has in common with the live one shares its place on the disk."""

    AUTO = "auto"
    NEVER = "never"


class PauseMode(Enum):
    """When the httpd processes are paused."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Verify:
    """The table ``[verify]``; ``settle`` in seconds, sizes in bytes."""

    require: Require
    allowed_signers: Path
    settle: float
    max_tarball: int
    max_extracted: int
    max_entries: int
    newer_only: bool = False  # than what is live
    allow_links_to: tuple[Path, ...] = ()  # where symlinks of a release may lead besides the release


@dataclass(frozen=True, slots=True)
class Pause:
    """The table ``[pause]``; ``max`` in seconds. ``user``, ``unit`` and ``exe`` restrict where they are not empty."""

    mode: PauseMode
    processes: tuple[str, ...]
    max: float
    user: str = ""
    unit: str = ""
    exe: str = ""


@dataclass(frozen=True, slots=True)
class LivePath:
    """A table ``[[path]]``: a further live path, and the directory of each release that goes there."""

    live: Path
    part: str
    releases: Path


@dataclass(frozen=True, slots=True)
class Route:
    """Where the files are by which a web server finds a pinned site's release; nothing that can be configured."""

    map: Path  # names the release
    apache: Path  # what httpd's configuration includes
    nginx: Path
    root: Path  # below which the web server's own configuration is


@dataclass(frozen=True, slots=True)
class Site:
    """One site's complete configuration; every path is absolute and normal.

    A site has one live path, and perhaps further ones that are swapped with it; ``parts`` has one of each.
    """

    name: SiteName
    live: Path
    strategy: Strategy
    incoming: Path
    releases: Path
    keep: int
    owner: str  # USER:GROUP, or empty: as the live path
    mtime: Mtime
    strip_components: int | None  # None: unwrap a single top-level directory
    must_contain: tuple[str, ...]
    shared: tuple[str, ...]
    verify: Verify
    pause: Pause
    route: Route
    reuse: Reuse = Reuse.AUTO  # of the table [extract]
    group: str = DROP_GROUP  # whose members may drop tarballs
    paths: tuple[LivePath, ...] = ()
    queue: Queue = Queue.ALL
    drift: Drift = Drift.REFUSE
    part: str = ""  # of a part that `parts` returned: which directory of the release it is; the main part is the rest
    is_one_of_several: bool = False  # of such a part: whether there are others

    @property
    def parts(self) -> tuple[Site, ...]:
        """The site once for each of its live paths, as if it had no other: the one of ``live`` first."""
        if not self.paths:
            return (self,)
        main = replace(self, paths=(), is_one_of_several=True)
        others = (
            replace(main, live=path.live, releases=path.releases, part=path.part, shared=()) for path in self.paths
        )
        return (main, *others)

    @property
    def shared_directory(self) -> Path:
        """What outlives releases, beside the live path."""
        return self.live.with_name(f"{self.live.name}.shared")

    def document(self) -> dict[str, Any]:
        """The configuration as a document that ``parse_site`` reads back to the same value."""
        return {
            "live": str(self.live),
            "strategy": self.strategy.value,
            "incoming": str(self.incoming),
            "releases": str(self.releases),
            "keep": self.keep,
            "owner": self.owner,
            "group": self.group,
            "queue": self.queue.value,
            "drift": self.drift.value,
            "mtime": self.mtime.value,
            "strip_components": "auto" if self.strip_components is None else self.strip_components,
            "must_contain": list(self.must_contain),
            "shared": list(self.shared),
            "verify": {
                "require": self.verify.require.value,
                "allowed_signers": str(self.verify.allowed_signers),
                "settle": exact_duration(self.verify.settle),
                "max_tarball": exact_size(self.verify.max_tarball),
                "max_extracted": exact_size(self.verify.max_extracted),
                "max_entries": self.verify.max_entries,
                "newer_only": self.verify.newer_only,
                "allow_links_to": [str(path) for path in self.verify.allow_links_to],
            },
            "extract": {"reuse": self.reuse.value},
            "pause": {
                "mode": self.pause.mode.value,
                "processes": list(self.pause.processes),
                "max": exact_duration(self.pause.max),
                "user": self.pause.user,
                "unit": self.pause.unit,
                "exe": self.pause.exe,
            },
            "path": [
                {"live": str(path.live), "part": path.part, "releases": str(path.releases)} for path in self.paths
            ],
        }

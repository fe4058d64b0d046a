"""What swapd writes down: a deployment, a site's state, a marker, a pause. Values, and their TOML documents.

A document that lacks a key, has a wrong type, or was written by a newer version raises ``Failed`` with the
problem ``bad-record``: a record is never guessed at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from enum import Enum, EnumType
from functools import cache
from types import NoneType
from typing import Any, Self, get_args, get_type_hints

from swapd.model.errors import Failed
from swapd.model.release import (
    DeploymentId,
    Digest,
    Fingerprint,
    Outcome,
    PauseCost,
    ReleaseId,
    Sidecar,
    SiteName,
    Stage,
)
from swapd.model.room import RoomNeeded

VERSION = 1
SUPERSEDED = "superseded"  # the problem of an upload that was passed over
UNRECORDED = "cannot-record"  # that of one whose deployment could not be written down


def now() -> datetime:
    """The present instant, to the microsecond that TOML keeps."""
    return datetime.now(UTC)


def _write(value: Any) -> Any:
    """A value as TOML has it: enums by value, nothing for None."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _write(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_write(item) for item in value]
    return value


def _read(kind: Any, value: Any, where: str) -> Any:
    """The value as ``kind``, or ``Failed``."""
    options = [option for option in get_args(kind) if option is not NoneType]
    if options and NoneType in get_args(kind):
        return _read(options[0], value, where)
    if getattr(kind, "__origin__", None) is tuple and isinstance(value, list):
        return tuple(_read(get_args(kind)[0], item, where) for item in value)
    kind = getattr(kind, "__supertype__", kind)  # a NewType is checked as what it is made of
    if (
        isinstance(kind, EnumType)
        and isinstance(value, str)
        and value in {str(member.value) for member in list[Enum](kind)}
    ):
        return kind(value)
    if hasattr(kind, "__dataclass_fields__") and isinstance(value, dict):
        return _from_document(kind, value, where)
    if kind is datetime and isinstance(value, datetime) and value.tzinfo is None:
        kind = NoneType  # an instant that nobody can compare with another
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise Failed(
        "bad-record",
        f"{where}: {value!r:.60} is not what swapd writes there",
        "Move the file away: swapd then goes by what it finds on the disk.",
    )


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """The types of the class's fields: to work them out takes longer than to read the record."""
    return get_type_hints(kind)


def _from_document(kind: Any, document: Mapping[str, Any], where: str) -> Any:
    hints = _hints(kind)
    values: dict[str, Any] = {}
    for item in fields(kind):
        if item.name in document:
            values[item.name] = _read(hints[item.name], document[item.name], f"{where}: {item.name}")
        elif NoneType in get_args(hints[item.name]):
            values[item.name] = None  # which TOML cannot write
    try:
        return kind(**values)
    except TypeError:
        raise Failed(
            "bad-record",
            f"{where}: a key is missing",
            "Move the file away: swapd then goes by what it finds on the disk.",
        ) from None


class Recorded:
    """A dataclass that has a TOML document."""

    def document(self) -> dict[str, Any]:
        """What is written to the file."""
        return {"version": VERSION, **_write(asdict(self))}  # type: ignore[call-overload]

    @classmethod
    def from_document(cls, document: Mapping[str, Any], where: str) -> Self:
        """The value that ``document`` was made of; ``Failed`` (``bad-record``) names ``where``."""
        version = document.get("version")
        if isinstance(version, int) and version > VERSION:
            raise Failed(
                "newer-record",
                f"{where} has version {version!r:.20}; this swapd writes {VERSION}",
                "Install the version of swapd that wrote it, or move the file away.",
            )
        if version != VERSION:
            raise Failed(
                "bad-record",
                f"{where} is not a whole record of swapd's: it has no version",
                "Move the file away: swapd then goes by what it finds on the disk.",
            )
        result: Self = _from_document(cls, document, where)
        return result


@dataclass(frozen=True, slots=True)
class TreeIdentity:
    """A directory by device, inode and birth, which every rename keeps."""

    device: int
    inode: int
    birth_ns: int = 0  # 0: not known


class How(Enum):
    """The system calls that swap one live path."""

    RENAME = "rename"  # one: over a link, or to where nothing is
    EXCHANGE = "exchange"  # one: what was live then stands under the other's name
    TWICE = "twice"  # two: what is live is renamed away, and the new one to its place


@dataclass(frozen=True, slots=True)
class RouteSwap:
    """The swap of a route: the map at ``new`` takes the place of ``map``, which has a second name ``old`` meanwhile."""

    map: str
    new: str
    old: str
    base: str  # the directory that the trees in maps are relative to
    tree: str  # that the new map names


@dataclass(frozen=True, slots=True)
class PathSwap:
    """The swap of one live path: ``path``, which is the staged tree or a link to it, takes the place of ``live``.

    Where there is a route, it comes first: with it, the release is live for visitors.
    """

    how: How
    path: str
    live: str
    staged: TreeIdentity
    outgoing: str = ""  # where what was live goes; only for TWICE
    route: RouteSwap | None = None


@dataclass(frozen=True, slots=True)
class SwapIntent(Recorded):
    """What the swap of one live path is about to do, written before its first rename.

    Recovery compares these inodes with the disk.
    """

    swap: PathSwap
    staged_path: str  # of the tree itself, also where the swap renames a link to it
    outgoing: ReleaseId | None = None  # the release that leaves the live path
    outgoing_tree: TreeIdentity | None = None
    outgoing_target: str = ""  # where the live link pointed
    kept: str = ""  # the path of a kept tree that goes live again, which it gets back if it does not


class Kind(Enum):
    """How a deployment makes its release live."""

    DEPLOYMENT = "deployment"  # from a tarball
    ROLLBACK = "rollback"  # by a tree that is kept


@dataclass(frozen=True, slots=True)
class StageTime:
    """How long a deployment was in a stage, over all its times there."""

    stage: Stage
    usec: int


@dataclass(frozen=True, slots=True)
class Deployment(Recorded):
    """One attempt to make a release live. ``problem`` is empty unless it was rejected or failed."""

    id: DeploymentId
    site: SiteName
    outcome: Outcome
    started: datetime
    kind: Kind = Kind.DEPLOYMENT
    file_name: str = ""
    is_dropped: bool = False
    release: ReleaseId | None = None
    digest: Digest | None = None
    uploader: str = ""  # who owns the file
    signer: str = ""
    operator: str = ""  # who ran the command
    signed: Digest | None = None  # what was signed to ask for a rollback, which is good for one
    fingerprint: Fingerprint | None = None
    sidecars: tuple[Sidecar, ...] = ()  # that were seen beside the tarball
    attempt: int = 1  # how often this same upload was taken up: a crash must not repeat for ever
    stage: str = ""
    strategy: str = ""  # by which it was, or would have been, swapped
    strategy_reason: str = ""  # and why by that one
    stages: tuple[StageTime, ...] = ()  # those that have ended, in the order in which they began
    ended: datetime | None = None
    problem: str = ""
    reason: str = ""
    hint: str = ""
    previous: ReleaseId | None = None  # what was live before
    is_previous_bad: bool = False  # a rollback: whether that is skipped by those that follow
    must_refresh: bool = False  # a rollback: whether the files' times are still to be made new
    newest: int | None = None  # seconds since the epoch, of its newest file, where the archive tells
    pause: PauseCost | None = None
    needed: RoomNeeded | None = None  # what must be free before the daemon tries again by itself
    swaps: tuple[SwapIntent, ...] = ()  # of each live path, the main one first
    starts: int = 0  # whether the start is in the journal: 0 or 1
    is_told: bool = False  # whether the outcome is
    is_closed: bool = False  # and in the marker, and nothing is left to do

    @property
    def duration_usec(self) -> int:
        """How long the deployment took; 0 while it is under way."""
        return round((self.ended - self.started).total_seconds() * 1e6) if self.ended else 0

    @property
    def is_superseded(self) -> bool:
        """Whether another upload, which came later, is live in its stead; it stays where it is."""
        return self.problem == SUPERSEDED

    @property
    def who(self) -> str:
        """Whose doing it is, by the best that is known: the signer, who ran the command, who owns the file."""
        return self.signer or self.operator or self.uploader


@dataclass(frozen=True, slots=True)
class LiveTree:
    """Which tree a live path is."""

    live: str
    tree: TreeIdentity


@dataclass(frozen=True, slots=True)
class LiveRelease(Recorded):
    """Which release the live path is, and since when."""

    release: ReleaseId
    digest: Digest | None
    deployment: DeploymentId
    since: datetime
    tree: TreeIdentity
    pause: PauseCost | None = None
    newest: int | None = None  # as in its deployment's record
    others: tuple[LiveTree, ...] = ()  # what the site's further live paths are
    live: str = ""  # the main live path that this is said of; empty in records of older versions: whichever it is

    def tree_at(self, live: str) -> TreeIdentity:
        """Which tree is to be expected at one of the site's live paths; at one that is new, none that is there."""
        return next((other.tree for other in self.others if other.live == live), self.tree)


@dataclass(frozen=True, slots=True)
class SiteState(Recorded):
    """What a site knows of itself: what is live, and what was before it, newest first."""

    live: LiveRelease | None = None
    previous: tuple[ReleaseId, ...] = ()
    doomed: tuple[ReleaseId, ...] = ()  # past `keep`, and perhaps not whole any more: to be removed
    bad: tuple[ReleaseId, ...] = ()  # of the previous ones: rolled back from, and skipped by the next rollback
    pinned: tuple[ReleaseId, ...] = ()  # kept whatever `keep` says


@dataclass(frozen=True, slots=True)
class Marker(Recorded):
    """The text beside a tarball that tells its uploader how it stands."""

    outcome: Outcome
    reason: str
    site: SiteName
    at: datetime
    hint: str = ""
    problem: str = ""
    release: ReleaseId | None = None
    deployment: DeploymentId | None = None
    digest: Digest | None = None
    signer: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    pause_usec: int | None = None
    pause: PauseCost | None = None


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process that cannot be mistaken for a later one with the same number.

    ``start_time`` is field 22 of ``/proc/PID/stat``: clock ticks since boot.
    """

    pid: int
    start_time: int


@dataclass(frozen=True, slots=True)
class PauseRecord(Recorded):
    """What is about to be stopped: written before the first SIGSTOP, removed after the last SIGCONT."""

    boot_id: str
    pauser: ProcessIdentity
    begun: datetime
    masters: tuple[ProcessIdentity, ...]
    children: tuple[ProcessIdentity, ...] = ()
    already_stopped: tuple[ProcessIdentity, ...] = ()
    names: tuple[str, ...] = ()
    max: float = 1.0  # seconds after which the pause is overdue, whoever holds it
    undo: tuple[PathSwap, ...] = ()  # what a crash may leave half done, and whoever resumes undoes

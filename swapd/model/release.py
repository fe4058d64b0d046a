"""The values that a tarball becomes on its way: each stage takes what the one before it gives.

``Upload → Tarball → VerifiedTarball → StagedRelease → Release``. Only a ``StagedRelease`` can be
swapped, and only verified bytes can become one, so a mistake in the order does not type-check; or a
``KeptRelease``, which was one before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NewType

from swapd.model.errors import Rejected
from swapd.model.patterns import RELEASE_ID, RELEASE_NAME
from swapd.model.patterns import SITE_NAME as SITE_NAME
from swapd.model.text import printable as printable  # for whoever names what is defined here

SiteName = NewType("SiteName", str)
Digest = NewType("Digest", str)  # 64 lower-case hex digits: SHA-256 of the tarball's bytes
ReleaseId = NewType("ReleaseId", str)  # NAME@ + the digest's first 12 hex digits
DeploymentId = NewType("DeploymentId", str)  # a UUID in its canonical form

DIGEST = re.compile(r"[0-9a-f]{64}")
ADOPTED = "adopted"  # the name of a tree that was live before swapd came

SIDECAR_SUFFIXES = (".sha256", ".sig")
SUMS = "SHA256SUMS"  # one digest file for several tarballs


class Outcome(Enum):
    """How a deployment stands or ended."""

    PENDING = "pending"
    LIVE = "live"
    UNCHANGED = "unchanged"
    REJECTED = "rejected"
    FAILED = "failed"
    ROLLED_BACK = "rolled-back"


MARKER_SUFFIXES = tuple(f".{outcome.value}" for outcome in Outcome)
OWN = ".swapd-"  # what swapd's temporary files in a drop directory begin with: hidden from every look at it
NEWS = f"{OWN}news"  # made and removed by a command that has deployed


class Compression(Enum):
    """How a tarball is compressed: its first bytes say so, and they must agree with its name."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    XZ = "xz"
    BZIP2 = "bzip2"


TARBALL_SUFFIXES: dict[str, Compression] = {
    ".tar": Compression.NONE,
    ".tar.gz": Compression.GZIP,
    ".tgz": Compression.GZIP,
    ".tar.zst": Compression.ZSTD,
    ".tar.xz": Compression.XZ,
    ".tar.bz2": Compression.BZIP2,
}
TARBALL_NAMES = ", ".join(f"NAME{suffix}" for suffix in TARBALL_SUFFIXES)


class Stage(Enum):
    """The steps of a deployment, in their order."""

    CLAIM = "claim"
    VERIFY = "verify"
    EXTRACT = "extract"
    PREPARE = "prepare"
    PAUSE = "pause"
    SWAP = "swap"
    REFRESH = "refresh"  # of a rollback: the files' times, once the release is live
    PRUNE = "prune"


def is_tarball(file_name: str) -> bool:
    """Whether the name ends as a tarball's does."""
    return file_name.endswith(tuple(TARBALL_SUFFIXES))


def parse_tarball_name(file_name: str) -> tuple[str, Compression]:
    """The release's name and the compression that a tarball's file name stands for; ``Rejected`` where it has none."""
    for suffix, compression in TARBALL_SUFFIXES.items():
        if not file_name.endswith(suffix):
            continue
        name = file_name.removesuffix(suffix)
        if not RELEASE_NAME.fullmatch(name):
            raise Rejected.because(
                "bad-release-name",
                f"{printable(file_name)} cannot name a release",
                "Rename it: letters, digits and . _ + ~ - only, starting with a letter or digit, at most 200 of them.",
            )
        if name == ADOPTED:
            raise Rejected.because(
                "reserved-release-name",
                f"{printable(file_name)}: the name {ADOPTED} is kept for the tree that was there before swapd",
                "Give the tarball another name.",
            )
        return name, compression
    raise Rejected.because(
        "not-a-tarball", f"{printable(file_name)} is not named like a tarball", f"swapd takes {TARBALL_NAMES}."
    )


def release_id(name: str, digest: Digest) -> ReleaseId:
    """The id of the release that a tarball of this name and digest holds."""
    return ReleaseId(f"{name}@{digest[:12]}")


def is_release_id(text: str) -> bool:
    """Whether the text is a release's id."""
    return RELEASE_ID.fullmatch(text) is not None


def recorded_name(file_name: str) -> str:
    """A file's name as records have it: printable, and long enough that two names are never one."""
    return printable(file_name, 4096)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells one state of a file from another, without reading it (times in nanoseconds)."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class SidecarKind(Enum):
    """The files that speak for a tarball, by what they are called beside TARBALL."""

    DIGEST = "TARBALL.sha256"
    SIGNATURE = "TARBALL.sig"
    DIGEST_SIGNATURE = "TARBALL.sha256.sig"
    SUMS = SUMS
    SUMS_SIGNATURE = f"{SUMS}.sig"

    def file_name(self, tarball: str) -> str:
        """What it is called beside this tarball."""
        return self.value.replace("TARBALL", tarball)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A sidecar as it was seen beside a tarball."""

    kind: SidecarKind
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature file's content, and what it is said to sign: a digest file's content, or (None) the tarball."""

    file_name: str
    content: bytes
    signed: bytes | None


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that somebody put into a drop directory or named on the command line; nothing about it is trusted."""

    directory: Path
    file_name: str
    is_dropped: bool  # in the drop directory: gets a marker, and is removed once its release is live
    is_settled: bool = True  # quiet for as long as `settle` asks: a wrong digest is then final
    fingerprint: Fingerprint | None = None  # as it was seen in the drop directory
    sidecars: tuple[Sidecar, ...] = ()  # that were seen beside it

    @property
    def path(self) -> Path:
        return self.directory / self.file_name


@dataclass(frozen=True, slots=True)
class Tarball:
    """A private copy of an upload that nobody else can write, with the digest of exactly these bytes.

    ``descriptor`` is open for reading and is what every later stage reads; its owner is whoever called ``claim``.
    """

    upload: Upload
    name: str
    compression: Compression
    digest: Digest
    size: int
    descriptor: int
    fingerprint: Fingerprint  # of the upload, when it was copied
    expected: Digest | None  # what its digest sidecar promises
    uploader: str
    signatures: tuple[Signature, ...] = ()  # as they lay beside it, in the order in which they are tried

    @property
    def release(self) -> ReleaseId:
        return release_id(self.name, self.digest)


@dataclass(frozen=True, slots=True)
class VerifiedTarball:
    """A tarball whose bytes are what the site's ``require`` asks for."""

    tarball: Tarball
    signer: str = ""


@dataclass(frozen=True, slots=True)
class Tree:
    """A directory under the path that it has now."""

    path: Path


@dataclass(frozen=True, slots=True)
class ExtractedTree:
    """A staging tree that holds every member of a verified archive, read to its end."""

    verified: VerifiedTarball
    tree: Tree
    files: int
    bytes: int
    newest: int | None = None  # seconds since the epoch: the latest time that the archive gives one of its files


@dataclass(frozen=True, slots=True)
class StagedRelease:
    """Complete trees with their owner, times and shared links, written through to the disk: fit to be live.

    One for each part of the site, the main one first.
    """

    release: ReleaseId
    trees: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class KeptRelease:
    """Complete trees that were live once, each under its release's name: fit to be live again as they are.

    One for each part of the site, the main one first.
    """

    release: ReleaseId
    trees: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class ListenerQueue:
    """A listening socket of httpd: how many connections wait to be accepted, and how many can (its backlog)."""

    listener: str  # ADDRESS:PORT
    queued: int
    limit: int


@dataclass(frozen=True, slots=True)
class PauseCost:
    """What a pause cost: how long and how many processes were stopped, and what that meant for who came meanwhile.

    ``queues`` is as it was right before the resume. ``overflowed`` and ``dropped`` are what httpd's network namespace
    counted from the pause's beginning to its end (ListenOverflows, and ListenDrops, which includes them).
    """

    duration_usec: int
    processes: int
    queues: tuple[ListenerQueue, ...] = ()
    overflowed: int = 0
    dropped: int = 0

    @property
    def queued(self) -> int:
        """Connections that waited, on all listeners."""
        return sum(queue.queued for queue in self.queues)


@dataclass(frozen=True, slots=True)
class Release:
    """A release that is live, and the releases that it took the place of: the main live path's first."""

    release: ReleaseId
    outgoing: tuple[ReleaseId, ...]

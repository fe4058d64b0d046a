"""Arrive: which files of a drop directory are complete uploads that wait for an answer.

Facts that this stage rests on:

- Events are hints: scp and sftp report a cut-off upload as a finished one, sftp's rename reports a new file only, a
  memory-mapped writer and remote NFS nothing, and the queue can overflow. The truth is a look at the directory.
- Complete means: its sidecar is there (and ``verify`` finds that it matches), or it has been quiet for ``settle``.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from swapd.host.files import fingerprint, opened, opened_directory
from swapd.host.linux import has_writer
from swapd.host.sidecars import read_sums
from swapd.model.config import Require, Site
from swapd.model.control import is_control
from swapd.model.errors import Rejected
from swapd.model.release import (
    MARKER_SUFFIXES,
    SIDECAR_SUFFIXES,
    SUMS,
    Fingerprint,
    Sidecar,
    SidecarKind,
    Upload,
    printable,
    recorded_name,
)
from swapd.model.sidecars import has_digest, has_signature, kinds_beside

# Names under which clients keep what they have not finished: rsync, WinSCP, curl and browsers, editors.
UNFINISHED = (".part", ".filepart", ".tmp", "~")
# How often a file that somebody has open, or that waits for something, is looked at again without an event, seconds.
PATIENCE = 5.0

TURN, QUIET = "waits for its turn", "waits until it has been quiet"
PASSING = (TURN, QUIET, "")  # reasons that pass by themselves

# Of a file that cannot be looked at. The nanoseconds must be said: they would be None.
UNKNOWN = os.stat_result((stat.S_IFREG, *[0] * 9), {"st_mtime_ns": 0, "st_ctime_ns": 0})

Answer = tuple[Fingerprint | None, tuple[Sidecar, ...]]  # of an upload and of its sidecars


@dataclass(frozen=True, slots=True)
class Seen:
    """A name in the drop directory that asks for an answer."""

    name: str
    is_regular: bool
    fingerprint: Fingerprint
    sidecars: tuple[Sidecar, ...] = ()

    @property
    def answer(self) -> Answer:
        return self.fingerprint, self.sidecars

    @property
    def changed_ns(self) -> int:
        """When it, or a sidecar of it, changed last, as far as an uploader cannot set it."""
        return max(state.ctime_ns for state in (self.fingerprint, *(sidecar.fingerprint for sidecar in self.sidecars)))

    def find_lack(self, require: Require) -> str:
        """Which sidecar is still to come for what the site requires; empty where none is."""
        kinds = frozenset(sidecar.kind for sidecar in self.sidecars)
        name = printable(self.name)
        if is_control(self.name):
            is_signed = require is not Require.SIGNATURE or has_signature(kinds)
            return "" if is_signed else f"waits for its signature {name}.sig"
        if require is Require.SIGNATURE and not has_signature(kinds):
            if SidecarKind.DIGEST_SIGNATURE in kinds:
                return f"waits for its sidecar {name}.sha256, which {name}.sha256.sig signs"
            return f"waits for its signature {name}.sig"
        if require is Require.DIGEST and not has_digest(kinds):
            return f"waits for its sidecar {name}.sha256"
        return ""

    def is_vouched(self, require: Require) -> bool:
        """Whether a sidecar tells a whole upload from a part, so that there is nothing to wait for."""
        kinds = frozenset(sidecar.kind for sidecar in self.sidecars)
        return has_digest(kinds) or (require is Require.SIGNATURE and has_signature(kinds))


def scan(incoming: Path) -> list[Seen]:
    """What lies in the drop directory now, oldest first. Raises ``OSError`` when it cannot be read."""
    statuses: dict[str, os.stat_result] = {}
    with os.scandir(incoming) as listing:
        for entry in listing:
            try:
                statuses[entry.name] = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError:
                statuses[entry.name] = UNKNOWN  # whoever takes it up says what is wrong: it holds up no other
    listed = read_sums(incoming) if SUMS in statuses else {}
    seen = []
    for name, status in statuses.items():
        if name == SUMS or name.startswith(".") or name.endswith((*UNFINISHED, *MARKER_SUFFIXES, *SIDECAR_SUFFIXES)):
            continue
        sidecars = tuple(
            Sidecar(kind, fingerprint(statuses[kind.file_name(name)])) for kind in kinds_beside(name, statuses, listed)
        )
        seen.append(Seen(name, stat.S_ISREG(status.st_mode), fingerprint(status), sidecars))
    # By the time of the last change to the inode, which an uploader cannot set as it can the time of modification.
    return sorted(seen, key=lambda item: (item.fingerprint.ctime_ns, item.name))


@dataclass(slots=True)
class _Waiting:
    seen: Seen
    since: float  # of time.monotonic(): when it was first seen like this
    retry_at: float = 0.0  # not before; for one that was found incomplete
    is_tried: bool = False  # as it is, unsettled
    reason: str = ""


class Arrivals:
    """Remembers what was seen in one drop directory, and decides what is ready. Values only: no disk, no clock."""

    def __init__(self, answered: Mapping[str, Answer]) -> None:
        """``answered``: uploads, by recorded name, that were rejected or failed as they are."""
        self._answered = dict(answered)
        self._waiting: dict[str, _Waiting] = {}
        self._held: set[str] = set()  # all that wait for something of their own are among these
        self._next_look: float | None = None

    def update(self, seen: Iterable[Seen], site: Site, now: float, wall: float) -> list[Upload]:
        """What may be taken up now, oldest first. ``now`` is time.monotonic(), ``wall`` time.time()."""
        present = {item.name: item for item in seen}
        self._waiting = {name: waiting for name, waiting in self._waiting.items() if name in present}
        self._next_look = None
        ready = []
        for name, item in present.items():
            if self._answered.get(recorded_name(name)) == item.answer:
                self._waiting.pop(name, None)
                continue
            waiting = self._waiting.get(name)
            if waiting is None or waiting.seen.answer != item.answer:
                waiting = self._waiting[name] = _Waiting(item, now)
            settles = site.verify.settle - self._quiet(waiting, now, wall)
            if self._is_ready(waiting, site, settles <= 0, now):
                waiting.reason = TURN
                ready.append(Upload(site.incoming, name, True, settles <= 0, item.fingerprint, item.sidecars))
            elif settles > 0 or now < waiting.retry_at:
                again = settles if settles > 0 else waiting.retry_at - now
                self._next_look = again if self._next_look is None else min(self._next_look, again)
        self._held = {name for name, waiting in self._waiting.items() if waiting.reason not in PASSING}
        return ready

    @staticmethod
    def _quiet(waiting: _Waiting, now: float, wall: float) -> float:
        """Seconds for which upload and sidecars have not changed: the inode's own change time cannot be set."""
        return max(now - waiting.since, wall - waiting.seen.changed_ns / 1e9)

    @staticmethod
    def _is_ready(waiting: _Waiting, site: Site, is_settled: bool, now: float) -> bool:
        item = waiting.seen
        if now < waiting.retry_at and not (is_settled and waiting.is_tried):
            return False
        if not item.is_regular:
            return True
        if lack := item.find_lack(site.verify.require):
            waiting.reason = lack
            return False
        if item.is_vouched(site.verify.require) and not waiting.is_tried:
            return True
        if not is_settled:
            waiting.reason = QUIET
        return is_settled

    def put_back(self, upload: Upload, reason: str, now: float) -> None:
        """It was found incomplete: not again before it changes, settles, or ``PATIENCE`` is over."""
        waiting = self._waiting.get(upload.file_name)
        if waiting is not None:
            # One that settles meanwhile is taken up then; one that had settled is open, or waits for its sidecar.
            waiting.is_tried = not upload.is_settled
            waiting.retry_at = now + PATIENCE
            waiting.reason = reason
            self._held.add(upload.file_name)

    def hold(self, upload: Upload, reason: str) -> None:
        """It is ready but for what cannot be seen from values: to be looked at again, with ``PATIENCE`` or an event."""
        waiting = self._waiting.get(upload.file_name)
        if waiting is not None:
            waiting.reason = reason
            self._held.add(upload.file_name)
            self._next_look = PATIENCE if self._next_look is None else min(self._next_look, PATIENCE)

    def answer(self, upload: Upload) -> None:
        """It was rejected or failed as it is: not again before it, or a sidecar of it, changes."""
        self._answered[recorded_name(upload.file_name)] = (upload.fingerprint, upload.sidecars)
        self._waiting.pop(upload.file_name, None)

    def retry(self, name: str) -> None:
        """Forgets the answer to the upload of this recorded name: it is taken up again as it is."""
        self._answered.pop(name, None)

    def forget_absent(self, present: Iterable[str]) -> list[str]:
        """Forgets answers to uploads that are gone; returns their recorded names."""
        names = {recorded_name(name) for name in present}
        gone = [name for name in self._answered if name not in names]
        for name in gone:
            del self._answered[name]
        return gone

    def waiting(self) -> dict[str, str]:
        """Why each upload waits, by name; also those that are ready."""
        return {name: waiting.reason for name, waiting in self._waiting.items()}

    def find_longest(self, but: str | None = None) -> tuple[str, str, int] | None:
        """The upload that waits for something of its own for the longest time: its name, for what, and since when.

        That is when it, or a sidecar of it, changed last, in nanoseconds since the epoch. Not the one that is called
        ``but``, nor those that wait for their turn, or until they have been quiet: that passes by itself.
        """
        # Asked at each turn of the daemon's loop: not a look at each of a crowd that waits for its turn.
        held = (
            (item.seen.changed_ns, name, item.reason)
            for name in self._held
            if name != but and (item := self._waiting.get(name)) is not None and item.reason not in PASSING
        )
        since, name, reason = min(held, default=(0, "", ""))
        return (name, reason, since) if name else None

    def reason(self, name: str) -> str | None:
        """Why the upload of this name waits; None where none does."""
        waiting = self._waiting.get(name)
        return None if waiting is None else waiting.reason

    def has(self, name: str) -> bool:
        """Whether an upload of this name waits or was answered, as far as the last look could tell."""
        return name in self._waiting or recorded_name(name) in self._answered

    def find_oldest(self, but: str | None) -> float | None:
        """Since when the oldest of those that wait lies there as it is, but for the one of this name; None for none.

        In seconds since the epoch, by the clock of the machine whose filesystem it is.
        """
        changed = (item.seen.fingerprint.ctime_ns for name, item in self._waiting.items() if name != but)
        return min((time_ns / 1e9 for time_ns in changed if time_ns), default=None)

    @property
    def count(self) -> int:
        """How many wait, also of those that are ready."""
        return len(self._waiting)

    @property
    def next_look(self) -> float | None:
        """Seconds after which something may become ready without an event, from the last ``update``; None for never."""
        return self._next_look


def look(
    arrivals: Arrivals, site: Site, known: Collection[str] = (), *, is_remote: bool = False
) -> tuple[list[Upload], float | None, list[str]]:
    """Looks at the site's drop directory. ``known``: names of uploads that were found ready before.

    One that ``is_remote`` has its times from another machine's clock.

    Returns what is ready, after how many seconds to look again at the latest, and which answered uploads are gone.
    """
    seen = scan(site.incoming)
    # A clock that is slow would have each upload quiet for long: there quiet is counted from the first look.
    now, wall = time.monotonic(), 0.0 if is_remote else time.time()
    ready = []
    for upload in arrivals.update(seen, site, now, wall):
        name = None if upload.file_name in known else _find_open(upload)
        if name is None:
            ready.append(upload)
        else:
            arrivals.hold(upload, f"{printable(name)} is still open for writing")
    return ready, arrivals.next_look, arrivals.forget_absent(item.name for item in seen)


def _find_open(upload: Upload) -> str | None:
    """Which of the upload's files somebody still writes to, tarball first, as far as we may know; or None.

    So that nobody begins with an upload whose sidecar came first, as long as that upload takes.
    """
    names = (upload.file_name, *(sidecar.kind.file_name(upload.file_name) for sidecar in upload.sidecars))
    try:
        with opened_directory(upload.directory) as directory:
            return next((name for name in names if _is_open(directory, name)), None)
    except OSError:
        return None


def _is_open(directory: int, name: str) -> bool:
    try:
        with opened(directory, name) as (descriptor, _):
            return bool(has_writer(descriptor))
    except BlockingIOError:  # its owner holds a write lease on it
        return True
    except (OSError, Rejected):
        return False  # whoever takes it up says what is wrong

"""Turns: which of a site's complete uploads is deployed next, and which are passed over for it. Values only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from swapd.model.config import Queue
from swapd.model.release import Fingerprint, ReleaseId, Upload, is_tarball


@dataclass(frozen=True, slots=True)
class Turn:
    """Who is next, and which uploads are superseded by it should its release go live."""

    upload: Upload
    passed: tuple[Upload, ...] = ()


def choose_turn(queue: Sequence[Upload], policy: Queue) -> Turn:
    """The next one of those that wait, in the order in which they came.

    With ``latest`` the tarball that came last, before those that it passes over: should it be rejected or fail, they
    have lost nothing. Tarballs on two sides of a control file are not weighed against each other.
    """
    if policy is Queue.ALL or not is_tarball(queue[0].file_name):
        return Turn(queue[0])
    run = list(takewhile(lambda upload: is_tarball(upload.file_name), queue))
    newest = max(run, key=arrival)
    return Turn(newest, tuple(upload for upload in run if upload is not newest))


def find_passed(queue: Iterable[Upload], live: Upload) -> tuple[Upload, ...]:
    """After a start: what had come before the upload that is live by now, and was not deployed before it."""
    return tuple(upload for upload in queue if is_tarball(upload.file_name) and arrival(upload) < arrival(live))


def arrival(upload: Upload) -> tuple[int, str]:
    """When it came: the time of its inode's last change, which an uploader cannot set."""
    return (upload.fingerprint.ctime_ns if upload.fingerprint else 0, upload.file_name)


@dataclass(slots=True)
class Superseded:
    """The uploads that were passed over for a release that is live by now."""

    release: ReleaseId | None = None
    uploads: tuple[Upload, ...] = ()
    _known: frozenset[tuple[str, Fingerprint | None]] = field(init=False)

    def __post_init__(self) -> None:
        self._known = frozenset((upload.file_name, upload.fingerprint) for upload in self.uploads)

    def find(self, queue: Iterable[Upload]) -> Upload | None:
        """One of those that wait and are superseded, as they are still."""
        if not self._known:  # which is asked before every turn, of a queue that may be long
            return None
        return next((upload for upload in queue if (upload.file_name, upload.fingerprint) in self._known), None)

"""Mark: the marker beside a tarball, which is all that somebody with nothing but scp or sftp sees.

The drop directory is hostile: a marker is written under a temporary name that did not exist and renamed, relative
to the directory's descriptor; whatever stands under the marker's name is replaced, not followed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import tomli_w

from swapd.host.files import fingerprint, has_entry, opened, opened_directory
from swapd.host.sidecars import read_sums_text
from swapd.model.control import ROLLBACK
from swapd.model.errors import Rejected
from swapd.model.record import Deployment, Marker, now
from swapd.model.release import (
    MARKER_SUFFIXES,
    NEWS,
    OWN,
    TARBALL_SUFFIXES,
    Digest,
    Fingerprint,
    Outcome,
    ReleaseId,
    Sidecar,
    SidecarKind,
    is_tarball,
)
from swapd.model.sidecars import parse_sums

NAME_MAX = 255  # bytes of a file name, limits.h
ASIDE = "~aside~"
SWEPT_AGE = 60.0  # seconds after which nobody writes to a temporary file any more
# A signature that came so long after its tarball is the next tarball's: an uploader sends both in a row.
SIDECAR_LAG_NS = 2_000_000_000


def marker_base(file_name: str) -> str:
    """What a tarball's markers are called before their suffix: its own name, unless there is no room for a suffix."""
    encoded = os.fsencode(file_name)
    if len(encoded) + max(map(len, MARKER_SUFFIXES)) <= NAME_MAX:
        return file_name
    return f"{os.fsdecode(encoded[:180])}~{hashlib.sha256(encoded).hexdigest()[:12]}"


def is_marker(name: str) -> bool:
    """Whether a file of the drop directory is a marker, by its name."""
    return name.endswith(MARKER_SUFFIXES)


def describe(deployment: Deployment) -> Marker:
    """What the marker says of a deployment."""
    return Marker(
        outcome=deployment.outcome,
        reason=deployment.reason,
        site=deployment.site,
        at=now(),
        hint=deployment.hint,
        problem=deployment.problem,
        release=deployment.release,
        deployment=deployment.id,
        digest=deployment.digest,
        signer=deployment.signer,
        started=deployment.started,
        ended=deployment.ended,
        pause_usec=deployment.pause.duration_usec if deployment.pause else None,
        pause=deployment.pause,
    )


def write_marker(incoming: Path, file_name: str, marker: Marker) -> None:
    """After this, the tarball has this one marker. Raises ``OSError``, which names the marker."""
    base = marker_base(file_name)
    try:
        _write_marker(incoming, base, marker)
    except OSError as error:
        path = incoming / f"{base}.{marker.outcome.value}"
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error


def _write_marker(incoming: Path, base: str, marker: Marker) -> None:
    with opened_directory(incoming) as directory:
        temporary = f"{OWN}{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o644, dir_fd=directory)
        try:
            with open(descriptor, "wb") as file:
                file.write(tomli_w.dumps(marker.document()).encode())
            os.rename(temporary, base + f".{marker.outcome.value}", src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            with contextlib.suppress(OSError):
                _remove(directory, temporary)
            raise
        for outcome in Outcome:
            if outcome is not marker.outcome:
                _remove(directory, f"{base}.{outcome.value}")


def find_reason(incoming: Path, file_name: str) -> str | None:
    """Why the upload waits, as its pending marker says; None where there is none that root or we have written."""
    with contextlib.suppress(OSError), opened_directory(incoming) as directory:
        marker = f"{marker_base(file_name)}.{Outcome.PENDING.value}"
        if os.stat(marker, dir_fd=directory, follow_symlinks=False).st_uid in (0, os.geteuid()):
            return _read_text(directory, marker, "reason")
    return None


def remove_pending_marker(incoming: Path, file_name: str) -> None:
    """Removes the marker of a tarball that went away before it was taken up."""
    with opened_directory(incoming) as directory:
        _remove(directory, f"{marker_base(file_name)}.{Outcome.PENDING.value}")


def remove_stale_marker(incoming: Path, file_name: str) -> None:
    """Removes the marker of a tarball that was not deployed, and that its owner has removed since."""
    with opened_directory(incoming) as directory:
        for outcome in (Outcome.REJECTED, Outcome.FAILED):
            _remove(directory, f"{marker_base(file_name)}.{outcome.value}")
        # What was live already has gone by itself, and its marker stays; what was passed over has a problem.
        unchanged = f"{marker_base(file_name)}.{Outcome.UNCHANGED.value}"
        if _read_text(directory, unchanged, "problem"):
            _remove(directory, unchanged)


def remove_upload(incoming: Path, file_name: str, claimed: Fingerprint, sidecars: Collection[Sidecar]) -> None:
    """Removes a tarball that is live, with its sidecars; what was uploaded under these names since then stays.

    No power cut brings it back after this: it would be deployed, or a rollback done, a second time. Raises ``OSError``.
    """
    with opened_directory(incoming) as directory:
        _remove_same(directory, file_name, claimed)
        for sidecar in sidecars:
            if sidecar.kind not in (SidecarKind.SUMS, SidecarKind.SUMS_SIGNATURE):  # which are others', too
                _remove_same(directory, sidecar.kind.file_name(file_name), sidecar.fingerprint)
        seen = {sidecar.kind for sidecar in sidecars}
        for kind in {SidecarKind.SIGNATURE, SidecarKind.DIGEST_SIGNATURE} - seen:
            _remove_older(directory, kind.file_name(file_name), claimed)
        try:
            os.fsync(directory)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a filesystem that cannot sync a directory
                raise


def remove_sums(incoming: Path, are_answered: Callable[[set[Digest]], bool]) -> None:
    """Removes SHA256SUMS and its signature once no tarball that it lists is left, and each of them was there.

    It comes before them, and they come one after the other: that none is there may mean that the next is on its way.
    ``are_answered`` tells whether tarballs of all these digests have had an outcome. Raises ``OSError``.
    """
    with opened_directory(incoming) as directory:
        states = {}
        for kind in (SidecarKind.SUMS, SidecarKind.SUMS_SIGNATURE):
            with contextlib.suppress(FileNotFoundError):
                states[kind.value] = fingerprint(os.stat(kind.value, dir_fd=directory, follow_symlinks=False))
        text = read_sums_text(directory)
        listed = {name: digest for name, digest in parse_sums(text or b"").items() if is_tarball(name)}
        # From the last one on, which is the last to go: of a long list, one look is enough for each of its tarballs.
        is_left = any(_is_there(directory, name) for name in reversed(listed))
        if listed and not is_left and are_answered(set(listed.values())):
            for name, state in states.items():
                _remove_same(directory, name, state)


def _is_there(directory: int, name: str) -> bool:
    """Whether the file is there; not where no file can be called so, for the name is an uploader's."""
    try:
        return has_entry(directory, name)
    except ValueError:
        return False
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def _remove_same(directory: int, name: str, state: Fingerprint) -> None:
    """Removes the file if it is still the one of this state, whoever replaces it at the same moment."""
    # With its name, so that a sweep can put back what a crash left aside.
    aside = f"{OWN}{secrets.token_hex(8)}{ASIDE}{name}"
    try:
        if not _is_same(os.stat(name, dir_fd=directory, follow_symlinks=False), state):
            return
        os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
    except FileNotFoundError:
        return
    if not _is_same(os.stat(aside, dir_fd=directory, follow_symlinks=False), state):
        _put_back(directory, aside, name)
    _remove(directory, aside)


def _put_back(directory: int, aside: str, name: str) -> None:
    """The file has its name again, unless a newer one has it."""
    with contextlib.suppress(FileExistsError):
        os.link(aside, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)


def _is_same(status: os.stat_result, state: Fingerprint) -> bool:
    # A rename changes the time of the inode's change on some filesystems; nothing else of it.
    found = fingerprint(status)
    return (found.inode, found.size, found.mtime_ns) == (state.inode, state.size, state.mtime_ns)


def _remove_older(directory: int, name: str, tarball: Fingerprint) -> None:
    """Removes a signature that was there when the tarball was, or soon after."""
    with contextlib.suppress(FileNotFoundError):
        if os.stat(name, dir_fd=directory, follow_symlinks=False).st_ctime_ns <= tarball.ctime_ns + SIDECAR_LAG_NS:
            os.unlink(name, dir_fd=directory)


def announce(incoming: Path) -> None:
    """Lets a daemon that runs see at once that something else may be live. Raises ``OSError``."""
    with opened_directory(incoming) as directory:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        os.close(os.open(NEWS, flags, 0o600, dir_fd=directory))
        _remove(directory, NEWS)


def sweep_markers(incoming: Path) -> None:
    """Removes the temporary files that a crash left in the drop directory, and gives an upload its name back.

    Not directories, which we never make: an uploader may have given one such a name, and it can be linked nowhere.
    """
    with opened_directory(incoming) as directory:
        for name in os.listdir(directory):
            if name.startswith(OWN):
                with contextlib.suppress(OSError):  # of this one; the others are no worse for it
                    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    if not stat.S_ISDIR(status.st_mode) and time.time() - status.st_ctime > SWEPT_AGE:
                        _, aside, original = name.partition(ASIDE)
                        if aside:
                            _put_back(directory, name, original)
                        _remove(directory, name)


def remove_markers(incoming: Path, releases: Iterable[ReleaseId]) -> None:
    """Removes what is said of these releases, which are not kept any more, without a look at the whole directory.

    But for that of a rollback by a part of the name, which ``remove_old_markers`` finds.
    """
    with opened_directory(incoming) as directory:
        for release in releases:
            name = release.partition("@")[0]
            files = (*(f"{name}{suffix}" for suffix in TARBALL_SUFFIXES), ROLLBACK, f"{ROLLBACK}@{release}")
            for file, outcome in itertools.product(files, (Outcome.LIVE, Outcome.UNCHANGED)):
                marker = f"{marker_base(file)}.{outcome.value}"
                if _read_text(directory, marker, "release") == release:
                    _remove(directory, marker)


def remove_old_markers(incoming: Path, kept: Collection[str]) -> None:
    """Removes the markers of releases that went live once and are not kept any more."""
    with opened_directory(incoming) as directory:
        for name in os.listdir(directory):
            if name.endswith((f".{Outcome.LIVE.value}", f".{Outcome.UNCHANGED.value}")):
                release = _read_text(directory, name, "release")
                if release is not None and release not in kept:
                    _remove(directory, name)


def _read_text(directory: int, name: str, key: str) -> str | None:
    """A plain text in a marker of ours.

    An uploader may have written the file: a reader of TOML takes half a minute for the worst that fits in there, or
    runs out of stack.
    """
    try:
        with opened(directory, name) as (descriptor, _):
            text = os.read(descriptor, 1 << 16).decode(errors="replace")
    except (OSError, Rejected):
        return None
    found = re.search(rf'^{key} = "([^"\\\n]*)"$', text, re.MULTILINE)
    return found[1] if found else None


def _remove(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        os.unlink(name, dir_fd=directory)

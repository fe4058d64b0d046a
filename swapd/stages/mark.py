"""Mark: the marker beside a tarball, which is all that somebody with nothing but scp or sftp sees.

The drop directory is hostile: a marker is written under a temporary name that did not exist and renamed, relative
to the directory's descriptor; whatever stands under the marker's name is replaced, not followed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path

import tomli_w

from swapd.host.files import closing_descriptor, fingerprint
from swapd.model.record import Deployment, Marker, now
from swapd.model.release import MARKER_SUFFIXES, SIDECAR_SUFFIXES, Fingerprint, Outcome

NAME_MAX = 255  # bytes of a file name, limits.h


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
        pause_usec=deployment.pause_usec,
    )


def write_marker(incoming: Path, file_name: str, marker: Marker) -> None:
    """After this, the tarball has this one marker. Raises ``OSError``."""
    base = marker_base(file_name)
    with _directory(incoming) as directory:
        temporary = f".swapd-{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o644, dir_fd=directory), "wb") as file:
            file.write(tomli_w.dumps(marker.document()).encode())
            os.fchmod(file.fileno(), 0o644)
        try:
            os.rename(temporary, base + f".{marker.outcome.value}", src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            os.unlink(temporary, dir_fd=directory)
            raise
        for outcome in Outcome:
            if outcome is not marker.outcome:
                _remove(directory, f"{base}.{outcome.value}")


def remove_pending_marker(incoming: Path, file_name: str) -> None:
    """Removes the marker of a tarball that went away before it was taken up."""
    with _directory(incoming) as directory:
        _remove(directory, f"{marker_base(file_name)}.{Outcome.PENDING.value}")


def remove_upload(incoming: Path, file_name: str, claimed: Fingerprint) -> bool:
    """Removes a tarball that is live, with its sidecars; False, and nothing removed, when it was replaced meanwhile."""
    with _directory(incoming) as directory:
        try:
            if fingerprint(os.stat(file_name, dir_fd=directory, follow_symlinks=False)) != claimed:
                return False
        except FileNotFoundError:
            pass
        for name in (file_name, *(file_name + suffix for suffix in SIDECAR_SUFFIXES)):
            _remove(directory, name)
    return True


def remove_old_markers(incoming: Path, kept: Collection[str]) -> None:
    """Removes the markers of releases that went live once and are not kept any more."""
    with _directory(incoming) as directory:
        for name in os.listdir(directory):
            if name.endswith((f".{Outcome.LIVE.value}", f".{Outcome.UNCHANGED.value}")):
                release = _read_release(directory, name)
                if release is not None and release not in kept:
                    _remove(directory, name)


def _read_release(directory: int, name: str) -> str | None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        with open(descriptor, "rb") as file:
            release = tomllib.loads(file.read(1 << 16).decode()).get("release")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
    return release if isinstance(release, str) else None


def _remove(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        os.unlink(name, dir_fd=directory)


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    with closing_descriptor(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
        yield directory

"""Prepare: from an extracted tree to a staged release, with its owner, times and shared links, on the disk.

Facts that this stage rests on:

- httpd answers 304 for a changed file whose time is not later than the one that the visitor has, and PHP serves the
  old code of a file with the same time. So every file gets a time later than all that the live release has.
- Only what is written through to the disk before the swap is there after a power cut: 200 of 200 files were empty
  on ext4 and XFS where only the directory was synced.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

from swapd.host.linux import syncfs
from swapd.host.refusals import explain
from swapd.model.config import Mtime, Site
from swapd.model.errors import Failed, Rejected
from swapd.model.release import ExtractedTree, StagedRelease, printable


def prepare(extracted: ExtractedTree, site: Site, keep_going: Callable[[], None]) -> StagedRelease:
    """The tree, fit to be live and written through to the disk, still under its staging name.

    ``keep_going`` is called now and then, and may raise. ``Rejected`` (``missing-content``) when the release lacks
    what ``must_contain`` names; ``Failed`` when this host cannot do it.
    """
    root = extracted.tree.path
    _check_content(root, site)
    try:
        uid, gid = _find_owner(site)
        for path in site.shared:
            _link_shared(root, site, path, (uid, gid))
        _apply(root, (uid, gid), _release_time(site) if site.mtime is Mtime.RELEASE else None, keep_going)
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(descriptor)
        finally:
            os.close(descriptor)
    except PermissionError as error:
        raise Failed(
            "cannot-give-owner",
            f"{error.filename or root}: {error.strerror}",
            "Only root, or the owner itself, may extract for this owner: run swapd as root, or set owner in the site's "
            "configuration. The live release and the upload are untouched.",
        ) from error
    except OSError as error:
        raise explain(error, site.releases) from error
    return StagedRelease(extracted.verified.tarball.release, extracted.tree)


def _check_content(root: Path, site: Site) -> None:
    missing = [path for path in site.must_contain if not os.path.lexists(root / path)]
    if missing:
        raise Rejected.because(
            "missing-content",
            f"the release lacks {', '.join(missing)}, which must_contain asks for",
            "Pack the right directory; a single top-level directory is unwrapped, two are not.",
        )


def _find_owner(site: Site) -> tuple[int, int]:
    """The uid and gid of the site's ``owner``; by default those of the live path, or of the directory it will be in."""
    if not site.owner:
        place = site.live if site.live.exists() else site.live.parent
        status = place.stat()
        return status.st_uid, status.st_gid
    user, group = site.owner.split(":")
    try:
        uid = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
        gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise Failed(
            "unknown-owner",
            f"owner = {site.owner}: {error.args[0]}",
            "Make that user and group on this host, or name others in the site's configuration.",
        ) from error
    return uid, gid


def _release_time(site: Site) -> int:
    """Nanoseconds since the epoch: now, and later than what is live even when the clock was set back."""
    try:
        live = site.live.stat().st_mtime_ns
    except FileNotFoundError:
        live = 0
    return max(time.time_ns(), live + 1_000_000_000)


def _apply(root: Path, owner: tuple[int, int], release_time: int | None, keep_going: Callable[[], None]) -> None:
    """Gives the whole tree its owner and times, links themselves included and followed nowhere."""
    for _, directories, files, descriptor in os.fwalk(root, follow_symlinks=False):
        keep_going()
        for name in (*files, *directories):
            _give(name, descriptor, owner, release_time)
        os.fchmod(descriptor, 0o755)
    parent = os.open(root.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _give(root.name, parent, owner, release_time)
    finally:
        os.close(parent)


def _give(name: str, directory: int, owner: tuple[int, int], release_time: int | None) -> None:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if (status.st_uid, status.st_gid) != owner:
        os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
    if release_time is not None:
        os.utime(name, ns=(release_time, release_time), dir_fd=directory, follow_symlinks=False)


def _link_shared(root: Path, site: Site, inner: str, owner: tuple[int, int]) -> None:
    """Makes ``inner`` of the release a link to what outlives releases, which is made at the first deployment.

    It begins as a copy of what the live tree has there, so that nothing that visitors uploaded is lost; else as what
    the release brings; else as an empty directory. The live tree is only read.
    """
    outlives, place, live = site.shared_directory / inner, root / inner, site.live / inner
    # Before anything is removed or copied there: were one of the directories a link, it would be elsewhere.
    _make_owned_directories(place.parent, root.parent, owner)
    _make_owned_directories(outlives.parent, site.shared_directory.parent, owner)
    if not os.path.lexists(outlives):
        beginning = outlives.with_name(f"{outlives.name}.beginning")
        _remove(beginning)
        if os.path.lexists(live) and not _leads_into(live, site.shared_directory):
            _copy(live, beginning)
        elif os.path.lexists(place):
            _copy(place, beginning)
            _apply_owner(beginning, owner)
        else:
            beginning.mkdir(mode=0o755)
            os.chown(beginning, *owner)
        os.rename(beginning, outlives)
    _remove(place)
    os.symlink(outlives, place)


def _leads_into(path: Path, directory: Path) -> bool:
    return path.is_symlink() and directory in Path(os.path.realpath(path)).parents


def _copy(source: Path, destination: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, destination, symlinks=True, copy_function=_copy_file)
        for directory, _, _, descriptor in os.fwalk(source, follow_symlinks=False):
            status = os.fstat(descriptor)
            os.chown(destination / os.path.relpath(directory, source), status.st_uid, status.st_gid)
    else:
        _copy_file(str(source), str(destination))


def _copy_file(source: str, destination: str) -> str:
    status = os.lstat(source)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        return destination  # a socket or a FIFO is made by the program that uses it
    shutil.copy2(source, destination, follow_symlinks=False)
    os.chown(destination, status.st_uid, status.st_gid, follow_symlinks=False)
    return destination


def _apply_owner(path: Path, owner: tuple[int, int]) -> None:
    os.chown(path, *owner, follow_symlinks=False)
    if path.is_dir() and not path.is_symlink():
        for _, directories, files, descriptor in os.fwalk(path, follow_symlinks=False):
            for name in (*directories, *files):
                os.chown(name, *owner, dir_fd=descriptor, follow_symlinks=False)


def _make_owned_directories(path: Path, below: Path, owner: tuple[int, int]) -> None:
    for directory in [path, *path.parents][::-1]:
        if below in directory.parents and not os.path.lexists(directory):
            directory.mkdir(mode=0o755)
            os.chown(directory, *owner)
        if below in directory.parents and not stat.S_ISDIR(os.lstat(directory).st_mode):
            raise Rejected.because(
                "shared-path-blocked",
                f"{printable(str(directory))} stands where the release needs a directory for a shared path",
                "Take it out of the tarball, or out of shared in the site's configuration.",
            )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()

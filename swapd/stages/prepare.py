"""Prepare: from an extracted tree to a staged release, with its owner, times and shared links, on the disk.

Facts that this stage rests on:

- httpd answers 304 for a changed file whose time is not later than the one that the visitor has, and PHP serves the
  old code of a file with the same time. So every file gets a time later than all that the live release has.
- Only what is written through to the disk before the swap is there after a power cut: 200 of 200 files were empty
  on ext4 and XFS where only the directory was synced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from swapd.host.beside import find_live, walk_beside
from swapd.host.copying import copy_within_room
from swapd.host.disks import Disks
from swapd.host.files import closing_descriptor, has_entry, opened_directory, remove_tree
from swapd.host.labels import has_labels, label
from swapd.host.owners import read_owner
from swapd.host.refusals import explain
from swapd.host.reuse import reuse
from swapd.model.config import Mtime, Reuse, Site
from swapd.model.errors import Failed, Rejected
from swapd.model.release import ExtractedTree, ReleaseId, StagedRelease, Tree, printable

_SECOND = 1_000_000_000  # HTTP's times have whole seconds: "later" must be so for a visitor's If-Modified-Since, too
_AS_WANTED = {stat.S_IFREG | 0o644, stat.S_IFREG | 0o755, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def places(site: Site) -> list[Path]:
    """A directory on each filesystem that a release is written to, for ``Disks.hold`` before the extraction."""
    shared = site.shared_directory if site.shared_directory.is_dir() else site.live.parent
    return [*(part.releases for part in site.parts), *([shared] if site.shared else [])]


def prepare(extracted: ExtractedTree, site: Site, disks: Disks, keep_going: Callable[[], None]) -> StagedRelease:
    """The trees, fit to be live and written through to the disk, still under their staging name.

    ``disks`` holds the site's ``places`` since before the extraction. ``keep_going`` is called now and then, and may
    raise. ``Rejected`` (``missing-content``) when the release lacks what ``must_contain`` or a ``[[path]]`` names;
    ``Failed`` when this host cannot do it, among it ``NoRoom`` where something is copied.
    """
    root, release = extracted.tree.path, extracted.verified.tarball.release
    _check_content(root, site)
    try:
        for path in site.shared:
            _link_shared(root, site, path, find_owner(site), keep_going)
        trees = []
        # The main part last: until then, the others are in it.
        for part in reversed(site.parts):
            tree = _take_out(root, part, release, keep_going) if part.part else root
            # While nobody but us can change the tree.
            if site.reuse is Reuse.AUTO:
                reuse(tree, part.live, keep_going)
            if has_labels():
                label(tree, part.live, keep_going)
            _apply(tree, part, keep_going)
            trees.append(Tree(tree))
        disks.write_through()
    except PermissionError as error:
        raise Failed(
            "cannot-give-owner",
            f"{error.filename or root}: {error.strerror}",
            "Only root, or the owner itself, may extract for this owner: run swapd as root, or set owner in the site's "
            "configuration. The live release and the upload are untouched.",
        ) from error
    except OSError as error:
        raise explain(error, site.releases) from error
    return StagedRelease(release, tuple(reversed(trees)))


def _check_content(root: Path, site: Site) -> None:
    missing = [path for path in site.must_contain if not os.path.lexists(root / path)]
    if missing:
        raise Rejected.because(
            "missing-content",
            f"the release lacks {', '.join(missing)}, which must_contain asks for",
            "Pack the right directory; a single top-level directory is unwrapped, two are not.",
        )
    missing = [path.part for path in site.paths if not _is_directory(root, path.part)]
    if missing:
        raise Rejected.because(
            "missing-content",
            f"the release has no directory {', '.join(missing)}, which a [[path]] of the site is made of",
            "Pack the right directory; a single top-level directory is unwrapped, two are not.",
        )


def _is_directory(root: Path, inner: str) -> bool:
    """Whether the tree has this directory, reached through no link."""
    path = root
    for name in Path(inner).parts:
        path = path / name
        if path.is_symlink() or not path.is_dir():
            return False
    return True


def _take_out(root: Path, part: Site, release: ReleaseId, keep_going: Callable[[], None]) -> Path:
    """Moves a part of the release to where its live path's releases are, under the staging name; where it is then.

    On another filesystem it is copied. Nobody but us can change either directory yet.
    """
    source, staging = root / part.part, part.releases / root.name
    try:
        os.rename(source, staging)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with opened_directory(source.parent) as old, opened_directory(part.releases) as new:
            try:
                what = f"{part.part} of release {release}"
                copy_within_room(old, source.name, new, staging.name, part.releases, what, keep_going)
            except OSError as failure:
                raise explain(failure, part.releases) from failure  # that disk is full, not the main part's
            remove_tree(old, source.name)
    return staging


def find_owner(site: Site) -> tuple[int, int]:
    """The uid and gid of the site's ``owner``; by default those of the live path, or of the directory it will be in."""
    if not site.owner:
        place = site.live if site.live.exists() else site.live.parent
        status = place.stat()
        return status.st_uid, status.st_gid
    return read_owner(site.owner)


def _apply(root: Path, site: Site, keep_going: Callable[[], None]) -> None:
    """Gives the whole tree its owner, modes and times, links themselves included and followed nowhere.

    The time is now, or later where the live tree has a file of the same path that is newer: the clock was set back, or
    that file came with a time from a machine whose clock is ahead. Only then there is a second walk.
    """
    owner = find_owner(site)
    times = time.time_ns() if site.mtime is Mtime.RELEASE else None
    newest = _walk(root, site.live, owner, times, keep_going)
    if times is not None and newest + _SECOND > times:
        _walk(root, site.live, owner, newest + _SECOND, keep_going)


def _walk(root: Path, live: Path, owner: tuple[int, int], times: int | None, keep_going: Callable[[], None]) -> int:
    """The time of the newest file that the live tree has at a path of the tree's, in nanoseconds since the epoch.

    Everything in the tree gets its owner and mode, and ``times`` where that is not None.
    """
    newest = 0
    with contextlib.ExitStack() as stack:
        tree = stack.enter_context(opened_directory(root))
        old = find_live(live)
        if old is not None:
            stack.callback(os.close, old)
            newest = os.fstat(old).st_mtime_ns
        for directory, beside, entries in walk_beside(tree, old):
            keep_going()
            for entry in entries:
                if beside is not None and times is not None:
                    newest = max(newest, _read_file_time(entry.name, beside))
                _give(entry.name, directory, owner, times)
    with opened_directory(root.parent) as parent:
        _give(root.name, parent, owner, times)
    return newest


def _read_file_time(name: str, directory: int) -> int:
    """When the file was modified, in nanoseconds since the epoch; 0 where there is none, and for a directory."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return 0
    return 0 if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns


def _give(name: str, directory: int, owner: tuple[int, int], times: int | None) -> None:
    """The owner, the mode (0644; 0755 for a directory, or where the owner may execute it) and the time.

    What made it is not trusted, for it has read what came from outside: anything but a file, a directory or a link is a
    failure.
    """
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    mode = status.st_mode
    if mode in _AS_WANTED:
        pass
    elif stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        os.chmod(name, 0o755 if stat.S_ISDIR(mode) or mode & stat.S_IXUSR else 0o644, dir_fd=directory)
    elif not stat.S_ISLNK(mode):
        raise Failed(
            "strange-file",
            f"the extraction made {printable(name)}, which is no file, directory or link",
            "This should never happen: keep the tarball, and report it. The live release and the upload are untouched.",
        )
    if (status.st_uid, status.st_gid) != owner:
        os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
    if times is not None:
        os.utime(name, ns=(times, times), dir_fd=directory, follow_symlinks=False)


def _link_shared(root: Path, site: Site, inner: str, owner: tuple[int, int], keep_going: Callable[[], None]) -> None:
    """Makes ``inner`` of the release a link to what outlives releases, which is made at the first deployment.

    It begins as a copy of what the live tree has there, so that nothing that visitors uploaded is lost; else as what
    the release brings; else as an empty directory. The live tree is only read.
    """
    outlives, place = site.shared_directory / inner, root / inner
    # Before anything is removed or copied there: were one of the directories a link, it would be elsewhere.
    with _opened_parent(root, inner, owner) as in_release:
        # What holds the shared paths stays ours: its owner could turn a path in it elsewhere while we write there.
        site.shared_directory.mkdir(mode=0o755, exist_ok=True)
        with _opened_parent(site.shared_directory, inner, None) as in_shared:
            if not has_entry(in_shared, outlives.name):
                _begin_shared(site, inner, in_release, in_shared, owner, keep_going)
        remove_tree(in_release, place.name)
        os.symlink(outlives, place.name, dir_fd=in_release)


def _begin_shared(
    site: Site, inner: str, in_release: int, in_shared: int, owner: tuple[int, int], keep_going: Callable[[], None]
) -> None:
    name = Path(inner).name
    beginning = f".beginning-{name}"[:255]
    remove_tree(in_shared, beginning)
    live = _find_live_parent(site, inner)
    try:
        if live is not None:
            what = f"the copy of what {site.live} has in {inner}"
            with closing_descriptor(live):
                copy_within_room(live, name, in_shared, beginning, site.shared_directory, what, keep_going)
        elif has_entry(in_release, name):
            what = f"the copy of what the release has in {inner}"
            copy_within_room(in_release, name, in_shared, beginning, site.shared_directory, what, keep_going)
            _give_all(in_shared, beginning, owner)
    except BaseException:
        remove_tree(in_shared, beginning)  # it may be large, and is of no use
        raise
    if not has_entry(in_shared, beginning):
        os.mkdir(beginning, 0o755, dir_fd=in_shared)
        _give(beginning, in_shared, owner, None)
    os.rename(beginning, name, src_dir_fd=in_shared, dst_dir_fd=in_shared)


def _find_live_parent(site: Site, inner: str) -> int | None:
    """The open directory in which the live tree has ``inner``, reached through no link; None where it does not."""
    try:
        descriptor = os.open(site.live, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        for part in Path(inner).parts[:-1]:
            below = os.open(part, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        status = os.stat(Path(inner).name, dir_fd=descriptor, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        os.close(descriptor)
        if isinstance(error, PermissionError):
            raise
        return None
    if stat.S_ISLNK(status.st_mode) and site.shared_directory in (site.live / inner).resolve().parents:
        os.close(descriptor)  # swapd's own link to what is missing now
        return None
    return descriptor


@contextlib.contextmanager
def _opened_parent(top: Path, inner: str, owner: tuple[int, int] | None) -> Iterator[int]:
    """The directory below ``top`` that holds ``inner``; it and those above it are made where they are missing."""
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in Path(inner).parts[:-1]:
            if not has_entry(descriptor, part):
                os.mkdir(part, 0o755, dir_fd=descriptor)
                if owner is not None:
                    _give(part, descriptor, owner, None)
            try:
                below = os.open(part, _DIRECTORY, dir_fd=descriptor)
            except NotADirectoryError:
                raise Rejected.because(
                    "shared-path-blocked",
                    f"{part} stands where the release needs a directory for the shared path {inner}",
                    "Take it out of the tarball, or out of shared in the site's configuration.",
                ) from None
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def _give_all(directory: int, name: str, owner: tuple[int, int]) -> None:
    """The owner for an entry and all below it."""
    if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        for _, directories, files, descriptor in os.fwalk(name, dir_fd=directory, follow_symlinks=False):
            for item in (*directories, *files):
                _give(item, descriptor, owner, None)
    _give(name, directory, owner, None)

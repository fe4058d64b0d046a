"""A tree written below one directory's descriptor, never through a path that could lead elsewhere.

Every directory is opened one component at a time, relative to its parent's descriptor and without following a link;
every file is created with O_EXCL. No symlink exists before the end, so even a mistake elsewhere could not write
through one. Modes do not depend on the umask: while the tree is written, this process has none.

The tree is no deeper than ``Limits.max_depth``, and as many directories are open at once at most.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterable
from types import TracebackType

from swapd.archive.budget import Budget
from swapd.archive.names import LinkResolver, NormalForms, Parts
from swapd.host.files import has_entry
from swapd.model.errors import Failed, Rejected
from swapd.model.release import printable

FILE_MODE = 0o644
PROGRAM_MODE = 0o755
DIRECTORY_MODE = 0o755
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RENAMED_AT_ONCE = 1024
_PACK_AFRESH = "Pack into a fresh tarball; tar -r and tar -u leave the older file in it."


class Tree:
    """What is being written below ``into``, the descriptor of an empty directory that stays the caller's.

    Its methods raise ``Rejected`` where the archive asks for what cannot be, and ``OSError`` where the host cannot.
    Close it, whatever happens.
    """

    def __init__(self, into: int, budget: Budget) -> None:
        with os.scandir(into) as entries:
            if next(entries, None):
                raise Failed(
                    "staging-not-empty", "the staging directory is not empty", "Another program writes there: stop it."
                )
        self.directories = 0  # how many there are below ``into``
        self._into = into
        self._budget = budget
        self._names = NormalForms()
        self._open: list[tuple[str, int]] = []  # the directory that was last used, from the top down
        self._open_parts: Parts = ()
        self._links: dict[str, str] = {}
        self._umask = os.umask(0)

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the directories that are still open, and gives the umask back."""
        self._close_below(0)
        os.umask(self._umask)

    def add_directory(self, parts: Parts) -> None:
        """Makes the directory, and those above it, where they are not there yet."""
        self._enter(parts, parts)

    def add_file(self, parts: Parts, content: Iterable[memoryview], *, is_executable: bool, mtime: int | None) -> None:
        """Makes the file with this content, and the directories above it."""
        self._enter(parts[:-1], parts)
        self._refuse_link(parts)
        mode = PROGRAM_MODE if is_executable else FILE_MODE
        try:
            descriptor = os.open(parts[-1], _NEW_FILE, mode, dir_fd=self._descriptor)
        except FileExistsError:
            raise _duplicate(parts) from None
        try:
            self._note(parts)
            for piece in content:
                written = os.write(descriptor, piece)
                while written < len(piece):
                    written += os.write(descriptor, piece[written:])
            if mtime is not None:
                os.utime(descriptor, (mtime, mtime))
        finally:
            os.close(descriptor)

    def add_hard_link(self, parts: Parts, target: Parts) -> None:
        """Makes another name for a regular file that is there already."""
        self._enter(parts[:-1], parts)
        self._refuse_link(parts)
        directory = self._find_parent(parts, target)
        try:
            self._check_link_target(parts, target, directory)
            os.link(target[-1], parts[-1], src_dir_fd=directory, dst_dir_fd=self._descriptor, follow_symlinks=False)
        except FileExistsError:
            raise _duplicate(parts) from None
        finally:
            os.close(directory)
        self._note(parts)

    def add_symlink(self, parts: Parts, target: str) -> None:
        """Notes a symlink, which ``make_symlinks`` makes, and makes the directories above it."""
        self._enter(parts[:-1], parts)
        self._refuse_link(parts)
        try:
            os.stat(parts[-1], dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            raise _duplicate(parts)
        path = "/".join(parts)
        self._budget.charge_link(path, target)
        self._links[path] = target
        self._note(parts)

    def unwrap(self, progress: Callable[[], None]) -> None:
        """Where the only entry at the top is a directory, its children take its place."""
        with os.scandir(self._into) as entries:
            top = [entry.name for entry in itertools.islice(entries, 2)]
        if len(top) != 1 or any("/" not in path for path in self._links):
            return
        if not stat.S_ISDIR(os.stat(top[0], dir_fd=self._into, follow_symlinks=False).st_mode):
            return
        self._close_below(0)
        wrapper = os.open(top[0], _DIRECTORY, dir_fd=self._into)
        try:
            # It may have a child of its own name (shop/shop), so it steps aside first, to a name that no child has.
            aside = next(name for name in map("wrapper-{}".format, itertools.count()) if not has_entry(wrapper, name))
            os.rename(top[0], aside, src_dir_fd=self._into, dst_dir_fd=self._into)
            # A directory that is changed while it is read may leave names out: read again until none is left.
            while names := _first_names(wrapper):
                progress()
                for name in names:
                    os.rename(name, name, src_dir_fd=wrapper, dst_dir_fd=self._into)
        finally:
            os.close(wrapper)
        os.rmdir(aside, dir_fd=self._into)
        self.directories -= 1
        self._links = {path.partition("/")[2]: target for path, target in self._links.items()}

    def make_symlinks(self, progress: Callable[[], None]) -> None:
        """Makes the symlinks, once every one of them is known to end inside the tree."""
        LinkResolver(self._links, self._budget.limits.max_depth).check_all(progress)
        for count, (path, target) in enumerate(self._links.items()):
            if count % 256 == 0:
                progress()
            parts = tuple(path.split("/"))
            self._enter(parts[:-1], parts)
            try:
                os.symlink(target, parts[-1], dir_fd=self._descriptor)
            except FileExistsError:
                raise _duplicate(parts) from None

    @property
    def _descriptor(self) -> int:
        return self._open[-1][1] if self._open else self._into

    def _enter(self, directory: Parts, member: Parts) -> None:
        """Makes ``directory`` the open one; it and those above it come to be where they are missing."""
        if directory == self._open_parts:
            return
        common = 0
        for (name, _), part in zip(self._open, directory, strict=False):
            if name != part:
                break
            common += 1
        self._close_below(common)
        for depth in range(common, len(directory)):
            self._descend(directory[: depth + 1], member)

    def _descend(self, directory: Parts, member: Parts) -> None:
        parent, name = self._descriptor, directory[-1]
        is_new = False
        try:
            descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        except NotADirectoryError:
            raise _duplicate(member) if directory == member else _through(directory, member, "a file") from None
        except FileNotFoundError:
            if "/".join(directory) in self._links:
                raise _duplicate(member) if directory == member else _through(directory, member, "a symlink") from None
            os.mkdir(name, DIRECTORY_MODE, dir_fd=parent)
            os.chmod(name, DIRECTORY_MODE, dir_fd=parent)  # without the group bit that it has of its parent
            is_new = True
            descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        self._open.append((name, descriptor))
        self._open_parts = directory
        if is_new:
            self.directories += 1
            self._note(directory)

    def _close_below(self, depth: int) -> None:
        while len(self._open) > depth:
            os.close(self._open.pop()[1])
        self._open_parts = tuple(name for name, _ in self._open)

    def _find_parent(self, parts: Parts, target: Parts) -> int:
        """A new descriptor of the directory that ``target`` is in, which is there already or it is ``Rejected``."""
        if target[:-1] == self._open_parts:
            return os.dup(self._descriptor)
        descriptor = os.dup(self._into)
        for depth, name in enumerate(target[:-1], start=1):
            try:
                below = os.open(name, _DIRECTORY, dir_fd=descriptor)
            except (FileNotFoundError, NotADirectoryError):
                if "/".join(target[:depth]) in self._links:
                    raise _through(target[:depth], target, "a symlink") from None
                raise _missing_target(parts, target) from None
            finally:
                os.close(descriptor)
            descriptor = below
        return descriptor

    def _check_link_target(self, parts: Parts, target: Parts, directory: int) -> None:
        if "/".join(target) in self._links:
            raise Rejected.because(
                "hard-link-to-symlink",
                f"{_shown(parts)} is a hard link to {_shown(target)}, which is a symlink",
                "Pack with --hard-dereference, or make it a symlink.",
            )
        try:
            mode = os.stat(target[-1], dir_fd=directory, follow_symlinks=False).st_mode
        except FileNotFoundError:
            raise _missing_target(parts, target) from None
        if not stat.S_ISREG(mode):
            raise Rejected.because(
                "hard-link-to-directory",
                f"{_shown(parts)} is a hard link to {_shown(target)}, which is a directory",
                "Pack the tarball again.",
            )

    def _refuse_link(self, parts: Parts) -> None:
        if self._links and "/".join(parts) in self._links:
            raise _duplicate(parts)

    def _note(self, parts: Parts) -> None:
        """Counts what has just come to be."""
        self._budget.charge_node(parts)
        self._names.add(parts[:-1], parts[-1])


def _first_names(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in itertools.islice(entries, _RENAMED_AT_ONCE)]


def _shown(parts: Parts) -> str:
    return printable("/".join(parts))


def _duplicate(parts: Parts) -> Rejected:
    return Rejected.because(
        "duplicate-name",
        f"{_shown(parts)} is there twice, or differs from another only in a way that this filesystem does not see",
        _PACK_AFRESH,
    )


def _through(directory: Parts, member: Parts, what: str) -> Rejected:
    kind = "path-through-symlink" if what == "a symlink" else "path-through-file"
    return Rejected.because(
        kind, f"the path of {_shown(member)} leads through {_shown(directory)}, which is {what}", _PACK_AFRESH
    )


def _missing_target(parts: Parts, target: Parts) -> Rejected:
    return Rejected.because(
        "hard-link-to-missing",
        f"{_shown(parts)} is a hard link to {_shown(target)}, which no member before it is",
        "Pack the whole tree into one tarball.",
    )

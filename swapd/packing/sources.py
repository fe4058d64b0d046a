"""What a tarball is made of: a directory, or a commit as ``git archive`` gives it.

Both become the same values, and whatever the receiver would refuse is refused here, all of it at once.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from swapd.archive.limits import Limits
from swapd.archive.names import LinkResolver, NormalForms, parse_name, parse_target
from swapd.model.errors import Failed, Issue, Rejected, UsageError
from swapd.model.release import printable
from swapd.packing.ignored import NAME as IGNORE_FILE
from swapd.packing.ignored import LeftOut, Patterns, patterns_of, topmost

NAMED_AT_MOST = 10  # issues that one message names
LONGEST_NAME_PART = 150  # of RELEASE_NAME's 200 characters, for a directory's or a repository's name
DEEPEST = Limits(max_extracted=0, max_entries=0).max_depth - 1  # the tarball's top-level directory is one more
TYPES = {stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE}
SUBMODULE = "160000 "  # the mode that git ls-tree shows
REGULAR = ("100644 ", "100755 ")
# What version control keeps in a working copy, at its root or in every directory. It would publish the site's source.
VERSION_CONTROL = frozenset({".git", ".hg", ".svn"})

Content = Callable[[], AbstractContextManager[IO[bytes]]]


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a release, by its path below the release's root."""

    path: str
    type: bytes  # tarfile's REGTYPE, DIRTYPE or SYMTYPE
    is_executable: bool = False
    size: int = 0
    target: str = ""  # a symlink's
    open: Content | None = None  # a file's


@dataclass(frozen=True, slots=True)
class Source:
    """What is packed: its members, parents before children; the one time that they all get; a name for the release."""

    members: tuple[Member, ...]
    mtime: int
    name: str
    left_out: tuple[LeftOut, ...] = ()


def directory_source(directory: Path) -> Source:
    """The tree below ``directory``, without version control's own and what ``.swapdignore`` in it says.

    Its time is ``SOURCE_DATE_EPOCH`` or the newest file's, its name the directory's with that time. Raises
    ``UsageError`` where there is no directory, ``Rejected`` for what a release cannot hold and for patterns that are
    none, ``Failed`` where reading fails.
    """
    root = Path(os.path.realpath(directory))
    if not root.is_dir():
        raise UsageError("no-such-directory", f"{printable(str(directory))} is not a directory")
    try:
        with patterns_of(_read_ignore_file(root), printable(str(root / IGNORE_FILE))) as patterns:
            found, left_out = _walk(root, patterns)
        members = [_file_member(root, path, status) for path, status in found.items() if _type(status)]
    except OSError as error:
        raise Failed("unreadable-tree", f"cannot read {printable(str(error.filename))}: {error.strerror}") from error
    newest = max((int(status.st_mtime) for status in found.values() if not stat.S_ISDIR(status.st_mode)), default=0)
    mtime = source_date_epoch(newest)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(mtime))
    special = sorted(path for path, status in found.items() if not _type(status))
    return Source(_checked(members, special), mtime, f"{_name_part(root.name)}-{stamp}", left_out)


@contextmanager
def commit_source(ref: str, directory: Path) -> Iterator[Source]:
    """The tree of a commit of the repository in ``directory``, without what export-ignore or its ``.swapdignore`` says.

    Its time is ``SOURCE_DATE_EPOCH`` or the commit's, its name the repository's with the commit's short id.
    Raises as ``directory_source`` does. The members can be read until the context ends.
    """
    _git(directory, "rev-parse", "--git-dir")  # says what is wrong where this is no repository
    try:
        commit = _git(directory, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    except Failed:
        raise UsageError("no-such-commit", f"git finds no commit {printable(ref)} in {directory}") from None
    tree = _git(directory, "ls-tree", "-r", "-z", commit).split("\0")
    if submodules := [line.partition("\t")[2] for line in tree if line.startswith(SUBMODULE)]:
        raise Rejected.because(
            "has-submodules",
            f"git archive leaves submodules empty: {printable(', '.join(submodules))}",
            "Check the commit out with its submodules, and pack that directory.",
        )
    mtime = source_date_epoch(int(_git(directory, "log", "-1", "--format=%ct", commit)))
    git_directory = Path(_git(directory, "rev-parse", "--path-format=absolute", "--git-common-dir"))
    repository = git_directory.parent.name if git_directory.name == ".git" else git_directory.stem
    name = f"{_name_part(repository)}-{_git(directory, 'rev-parse', '--short', commit)}"
    files = {path: mode for mode, _, path in (line.partition("\t") for line in tree) if path}
    with tempfile.TemporaryFile() as file:
        _run_git(directory, ["archive", "--format=tar", commit], file)
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            members = {member.path: member for member in (_archive_member(archive, info) for info in archive)}
            exported = topmost(files.keys() - members.keys() - {IGNORE_FILE}, members)
            ignored = _drop_ignored(members, _committed_ignore_file(directory, commit, files), commit)
            left_out = (LeftOut(exported, "export-ignore"), LeftOut(ignored, IGNORE_FILE))
            yield Source(_checked(members.values(), []), mtime, name, tuple(kept for kept in left_out if kept.paths))


def source_date_epoch(otherwise: int) -> int:
    """The time that reproducible builds agree on through the environment, else the one given."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return otherwise
    if not re.fullmatch(r"[0-9]{1,11}", text):
        raise UsageError("bad-source-date-epoch", f"SOURCE_DATE_EPOCH={printable(text)} is not a number of seconds")
    return int(text)


def _read_ignore_file(root: Path) -> bytes | None:
    try:
        with open(root / IGNORE_FILE, "rb") as file:
            return file.read()
    except FileNotFoundError:
        if (root / IGNORE_FILE).is_symlink():  # one that leads nowhere would publish what it was to keep away
            raise
        return None


def _committed_ignore_file(directory: Path, commit: str, files: Mapping[str, str]) -> bytes | None:
    """The one at the commit's root, be it exported or not."""
    mode = files.get(IGNORE_FILE)
    if mode is None and not any(path.startswith(f"{IGNORE_FILE}/") for path in files):
        return None
    if mode is None or not mode.startswith(REGULAR):
        raise Rejected.because("bad-ignore-file", f"{IGNORE_FILE} is not a file in {commit[:12]}", "Commit it as one.")
    with tempfile.TemporaryFile() as file:
        _run_git(directory, ["cat-file", "blob", f"{commit}:{IGNORE_FILE}"], file)
        file.seek(0)
        return file.read()


def _drop_ignored(members: dict[str, Member], content: bytes | None, commit: str) -> tuple[str, ...]:
    """Removes from the members what the patterns match, and the file that holds them; says what."""
    members.pop(IGNORE_FILE, None)
    with patterns_of(content, f"{commit[:12]}:{IGNORE_FILE}") as patterns:
        matched = patterns.matched({path: member.type == tarfile.DIRTYPE for path, member in members.items()})
    dropped = {path: members.pop(path).type == tarfile.DIRTYPE for path in matched}
    top = (path for path in dropped if os.path.dirname(path) not in dropped)
    return tuple(sorted(path + "/" * dropped[path] for path in top))


def _walk(root: Path, patterns: Patterns) -> tuple[dict[str, os.stat_result], tuple[LeftOut, ...]]:
    """What is to be packed of the tree, and what is not; a directory that is not is not looked into."""
    found: dict[str, os.stat_result] = {}
    own: list[str] = []
    ignored: list[str] = []
    level = [""]
    while level:  # level by level, because patterns are asked about many paths at once
        entries: dict[str, os.stat_result] = {}
        for parent in level:
            with os.scandir(root / parent) as listing:
                entries |= {parent + entry.name: entry.stat(follow_symlinks=False) for entry in listing}
        entries.pop(IGNORE_FILE, None)
        slashes = {path: "/" if stat.S_ISDIR(status.st_mode) else "" for path, status in entries.items()}
        metadata = {path for path in entries if os.path.basename(path) in VERSION_CONTROL}
        matched = patterns.matched({path: bool(slashes[path]) for path in entries if path not in metadata})
        gone = metadata | matched
        own += [path + slashes[path] for path in metadata]
        ignored += [path + slashes[path] for path in matched]
        kept = {path: status for path, status in entries.items() if path not in gone}
        found.update(kept)
        level = [f"{path}/" for path in kept if slashes[path]]
    left_out = (LeftOut(tuple(sorted(own))), LeftOut(tuple(sorted(ignored)), IGNORE_FILE))
    return found, tuple(kept for kept in left_out if kept.paths)


def _type(status: os.stat_result) -> bytes | None:
    return TYPES.get(stat.S_IFMT(status.st_mode))


def _file_member(root: Path, path: str, status: os.stat_result) -> Member:
    kind = _type(status)
    if kind == tarfile.SYMTYPE:
        return Member(path, kind, target=os.readlink(root / path))
    if kind == tarfile.DIRTYPE:
        return Member(path, kind)
    is_executable = bool(status.st_mode & 0o111)
    return Member(path, tarfile.REGTYPE, is_executable, status.st_size, open=lambda: _unchanged(root / path, status))


@contextmanager
def _unchanged(path: Path, before: os.stat_result) -> Iterator[IO[bytes]]:
    """The file's content; ``Failed`` when it cannot be read, or what was read is not the file that was listed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Failed("unreadable-tree", f"cannot read {printable(str(path))}: {error.strerror}") from error
    with open(descriptor, "rb") as file:
        try:
            yield file
        finally:  # when it became shorter, tarfile's own complaint is on its way and says less
            if _version(os.fstat(file.fileno())) != _version(before):
                what = f"{printable(str(path))} changed while it was packed"
                raise Failed("changed-while-packing", what, "Pack again when nobody writes to it.")


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _archive_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    path = info.name.rstrip("/")
    if info.issym():
        return Member(path, tarfile.SYMTYPE, target=info.linkname)
    if info.isdir():
        return Member(path, tarfile.DIRTYPE)
    return Member(path, tarfile.REGTYPE, bool(info.mode & 0o111), info.size, open=lambda: _content(archive, info))


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(info)
    if content is None:  # only for what is no file, and git archive makes nothing but files, directories and symlinks
        raise Failed("git-failed", f"git archive gave no content for {printable(info.name)}")
    return content


def _checked(members: Iterable[Member], special: Sequence[str]) -> tuple[Member, ...]:
    """The members in their order. ``Rejected`` names everything that the receiver would refuse, by its own rules."""
    ordered = tuple(sorted(members, key=lambda member: os.fsencode(member.path).split(b"/")))
    issues = [
        Issue("special-file", f"{printable(path)} is neither a file, a directory nor a symlink", "Move it elsewhere.")
        for path in special
    ]
    issues += _name_issues(ordered)
    issues += _link_issues({member.path: member.target for member in ordered if member.type == tarfile.SYMTYPE})
    if not ordered and not issues:
        issues.append(Issue("nothing-to-pack", "there is nothing to pack", "Name a directory or a commit with files."))
    if len(issues) > NAMED_AT_MOST:
        more = f"and {len(issues) - NAMED_AT_MOST} more like these"
        issues[NAMED_AT_MOST:] = [Issue("more", more)]
    if issues:
        raise Rejected(issues)
    return ordered


def _name_issues(members: Iterable[Member]) -> Iterator[Issue]:
    normal_forms = NormalForms()
    for member in members:
        try:
            name = parse_name(os.fsencode(member.path), DEEPEST)
            normal_forms.add(name.parts[:-1], name.parts[-1])
        except Rejected as refusal:
            yield from refusal.issues


def _link_issues(links: dict[str, str]) -> Iterator[Issue]:
    for path, target in links.items():
        try:
            parse_target(os.fsencode(target), os.fsencode(path), DEEPEST)
            LinkResolver(links, DEEPEST).resolve(path)
        except Rejected as refusal:
            yield from refusal.issues


def _name_part(name: str) -> str:
    """The name as a part of a release's."""
    return re.sub(r"[^A-Za-z0-9._+~-]+", "-", name).lstrip("._+~-")[:LONGEST_NAME_PART] or "release"


def _git(directory: Path, *arguments: str) -> str:
    with tempfile.TemporaryFile() as output:
        _run_git(directory, arguments, output)
        output.seek(0)
        return os.fsdecode(output.read()).strip("\n")


def _run_git(directory: Path, arguments: Iterable[str], output: IO[bytes]) -> None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            check=False,
        )
    except FileNotFoundError:
        raise Failed("no-git", "git is not installed", "Install git, or pack a directory.") from None
    if done.returncode:
        lines = os.fsdecode(done.stderr).strip().splitlines() or [f"exit status {done.returncode}"]
        raise Failed("git-failed", f"git: {printable(lines[0].removeprefix('fatal: '))}")

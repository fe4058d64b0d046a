"""An archive becomes a tree: streams, members, names and the tree put together.

Nothing is trusted and nothing is kept that grows with the archive, but the texts of symlinks and a number for each
name that is not ASCII, and both have their limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from swapd.archive.blocks import BlockReader
from swapd.archive.budget import Budget
from swapd.archive.limits import Limits
from swapd.archive.members import Kind, Member, MemberReader
from swapd.archive.names import Parts, parse_name, parse_target, shown
from swapd.archive.streams import Stream
from swapd.archive.tree import Tree
from swapd.model.errors import Rejected
from swapd.model.release import Compression

MEMBERS_PER_REPORT = 256


@dataclass(frozen=True, slots=True)
class Extracted:
    """What came of an archive: how many of each (links of both kinds), and the bytes of all files.

    ``newest`` is the latest time, in seconds since the epoch, that the archive gives a file; None where it gives none.
    A time that was still to come when the extraction began is left out: it is a mistake, or a lie.
    """

    files: int
    directories: int
    links: int
    bytes: int
    newest: int | None = None


def extract_archive(
    descriptor: int,
    compression: Compression,
    into: int,
    limits: Limits,
    *,
    strip_components: int | None,
    progress: Callable[[int], None],
    keep_times: bool = True,
) -> Extracted:
    """Extracts the tarball that ``descriptor`` is open for into the empty directory that ``into`` is open for.

    After it returned, every member is there, and the tarball was read to its verified end. Files have mode 0644 or
    0755 and the archive's times, directories 0755 and the present; owners are the caller's. Nothing is synced.

    ``strip_components`` takes that many components from each name, as GNU tar does; None unwraps an archive whose
    only entry at the top is a directory. Without ``keep_times``, files have the present, too. ``progress`` gets the
    bytes of the tarball that were read, at least for each MiB and each 256 members; what it raises ends the extraction.

    ``Rejected`` when anything is wrong with the archive, ``Failed`` when zstd is needed and missing, ``OSError`` when
    the host cannot (ENOSPC, EIO …). The tree is then incomplete and to be thrown away; no thread, child or
    descriptor is left. The offset of ``descriptor`` may have moved.
    """
    with Stream(descriptor, compression, progress) as stream:
        return extract_stream(stream, into, limits, strip_components, keep_times=keep_times)


def extract_stream(
    stream: Stream, into: int, limits: Limits, strip_components: int | None, *, keep_times: bool
) -> Extracted:
    """The same from a stream that is open already."""
    try:
        budget = Budget(limits, stream.size)
        with Tree(into, budget) as tree:
            reader = MemberReader(BlockReader(stream), budget)
            extraction = _Extraction(reader, tree, limits, strip_components, keep_times=keep_times)
            extraction.read_members(stream.report)
            if strip_components is None:
                tree.unwrap(stream.report)
            tree.make_symlinks(stream.report)
            return extraction.result()
    except MemoryError as error:
        # What the reader may have fits every site that we know of; a host that is short of memory kills instead.
        raise Rejected.because(
            "needs-too-much-memory",
            "reading the archive takes more memory than an extraction may have",
            "Only very many symlinks, or names that are not ASCII, take so much: pack fewer of them.",
        ) from error


class _Extraction:
    """One run over the members."""

    def __init__(
        self, reader: MemberReader, tree: Tree, limits: Limits, strip_components: int | None, *, keep_times: bool
    ) -> None:
        self._reader = reader
        self._tree = tree
        self._max_depth = limits.max_depth
        self._allow_links_to = limits.allow_links_to
        self._strip = strip_components or 0
        self._keep_times = keep_times
        self._files = 0
        self._links = 0
        self._bytes = 0
        self._began = int(time.time())
        self._newest: int | None = None

    def read_members(self, report: Callable[[], None]) -> None:
        """Takes in all members, up to the archive's end."""
        count = 0
        while member := self._reader.next_member():
            count += 1
            if count % MEMBERS_PER_REPORT == 0:
                report()
            name = parse_name(member.name, self._max_depth)
            if not name.parts and member.kind is not Kind.DIRECTORY:
                raise Rejected.because(
                    "not-a-plain-name", f"{shown(member.name)} is a {member.kind.value}", "Pack the tarball again."
                )
            parts = name.stripped(self._strip)
            # A member whose name is stripped away is checked all the same, and vanishes; `.` is there already.
            if member.kind is Kind.SYMLINK:
                self._add_symlink(member, parts)
            elif member.kind is Kind.HARD_LINK:
                self._add_hard_link(member, parts)
            elif parts and member.kind is Kind.DIRECTORY:
                self._tree.add_directory(parts)
            elif parts:
                self._add_file(member, parts)
        if not self._files:
            self._refuse_empty(count)

    def result(self) -> Extracted:
        """What was counted."""
        return Extracted(self._files, self._tree.directories, self._links, self._bytes, self._newest)

    def _add_file(self, member: Member, parts: Parts) -> None:
        mtime = member.mtime if self._keep_times else None
        self._tree.add_file(parts, self._reader.body(), is_executable=member.is_executable, mtime=mtime)
        self._files += 1
        self._bytes += member.size
        if member.mtime is not None and member.mtime <= self._began:
            self._newest = max(member.mtime, self._newest or 0)

    def _add_symlink(self, member: Member, parts: Parts | None) -> None:
        target = parse_target(member.target, member.name, self._max_depth, self._allow_links_to)
        if parts:
            self._tree.add_symlink(parts, target)
            self._links += 1

    def _add_hard_link(self, member: Member, parts: Parts | None) -> None:
        target = parse_name(member.target, self._max_depth)
        if target.is_slashed or not target.parts:
            raise Rejected.because(
                "hard-link-to-directory",
                f"{shown(member.name)} is a hard link to {shown(member.target)}, a directory by its name",
                "Pack the tarball again.",
            )
        target_parts = target.stripped(self._strip)
        if parts and not target_parts:
            raise Rejected.because(
                "hard-link-to-missing",
                f"{shown(member.name)} is a hard link to {shown(member.target)}, which strip_components leaves out",
                "Let strip_components take away less.",
            )
        if parts and target_parts:
            self._tree.add_hard_link(parts, target_parts)
            self._links += 1

    def _refuse_empty(self, members: int) -> None:
        if members and self._strip:
            what, hint = "no file is left of it", f"Is strip_components = {self._strip} right for it?"
        else:
            what, hint = "it holds no file", "Pack the site's files, not an empty directory."
        raise Rejected.because("empty-archive", f"{what}, in {members} members", hint)

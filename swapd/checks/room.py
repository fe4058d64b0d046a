"""Whether there is room for the releases that ``keep`` asks for, by the size of the one that is live."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from swapd.host import records
from swapd.host.drift import is_there
from swapd.host.files import opened_directory
from swapd.host.linux import fstatfs_type
from swapd.host.room import read_room, stores_as_it_is
from swapd.model.config import Reuse, Site
from swapd.model.errors import Failed
from swapd.model.findings import Finding, Severity
from swapd.model.layout import Layout
from swapd.model.record import SiteState
from swapd.model.room import Room
from swapd.model.units import format_size
from swapd.stages.prune import releases_to_prune
from swapd.strategies.exchanging import find_place

XFS_SUPER_MAGIC = 0x58465342


@dataclass(frozen=True, slots=True)
class Size:
    """What a tree takes on its disk."""

    bytes: int
    inodes: int


def measure(tree: Path) -> Size:
    """As du(1) counts: what has several names in there, once. Follows no link below the tree itself."""
    seen = set[int]()
    size, inodes, directories = 0, 0, [os.path.realpath(tree)]
    while directories:
        with os.scandir(directories.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
                elif status.st_nlink > 1:
                    if status.st_ino in seen:
                        continue
                    seen.add(status.st_ino)
                size += status.st_blocks * 512
                inodes += 1
    return Size(size, inodes + 1)


def find_room(site: Site, layout: Layout) -> Iterator[Finding]:
    """For each live path, whether the next release has room where releases are kept, and those that follow it."""
    try:
        state = records.read_state(layout, site.name)
    except Failed:
        state = SiteState()  # which has been said
    for part in site.parts:
        try:
            with opened_directory(find_place(part)) as directory:
                room = read_room(directory)
                has_sizes = stores_as_it_is(directory)
                shares = part.reuse is Reuse.AUTO and fstatfs_type(directory) == XFS_SUPER_MAGIC
            size = measure(part.live) if part.live.is_dir() else Size(0, 1)
        except FileNotFoundError:
            continue  # what is missing there has been said
        # A deployment adds one, and only then lets one go.
        more = max(1, site.keep + 1 - _count_kept(site, state))
        # Where unchanged files share their blocks, a further release takes less; how much less nobody knows yet.
        needed = Size(size.bytes if has_sizes else 0, size.inodes)
        yield from _find_lack(part, state, room, needed, Size(1 if shares else more, more))


def _count_kept(site: Site, state: SiteState) -> int:
    return 1 + sum(is_there(site, release) for release in state.previous)


def _find_lack(site: Site, state: SiteState, room: Room, one: Size, more: Size) -> Iterator[Finding]:
    """``one`` release takes so much, and so many ``more`` of them are to come."""
    left = room.free_bytes - room.reserved_bytes
    if left < one.bytes or left < more.bytes * one.bytes:
        figures = (
            f"{format_size(room.free_bytes)} are free, of which {format_size(room.reserved_bytes)} stay in reserve"
        )
        why = f"{site.releases}: {figures}, and the live one takes {format_size(one.bytes)}"
        yield _lack(site, state, ("no-space", "little-space"), max(0, left) // max(one.bytes, 1), more.bytes, why)
    if room.free_inodes is not None:
        left = room.free_inodes - room.reserved_inodes
        if left < one.inodes or left < more.inodes * one.inodes:
            figures = f"{room.free_inodes} inodes are free, of which {room.reserved_inodes} stay in reserve"
            why = f"{site.releases}: {figures}, and the live one takes {one.inodes}"
            yield _lack(site, state, ("no-inodes", "little-inodes"), max(0, left) // one.inodes, more.inodes, why)


def _lack(site: Site, state: SiteState, problems: tuple[str, str], fitting: int, more: int, why: str) -> Finding:
    past = [release for release in releases_to_prune(state, site.keep) if is_there(site, release)]
    remedy = "Remove what is past keep:" if past else f"Make room there, or lower keep = {site.keep}."
    commands = (f"swapd prune {site.name}",) if past else ()
    if fitting < 1:
        problem, severity, what = problems[0], Severity.ERROR, "a release as large as the live one has no room"
    else:
        problem, severity = problems[1], Severity.WARNING
        what = f"there is room for {fitting} more release{'' if fitting == 1 else 's'} like the live one, and until "
        what += f"keep = {site.keep} holds, {more} are to come"
    return Finding(site.name, severity, problem, what, why, remedy, {"live": str(site.live)}, commands)


def find_room_for_uploads(sites: Sequence[Site], layout: Layout) -> Iterator[Finding]:
    """Whether a tarball can be dropped and claimed at all, where that is not on a site's own disk."""
    devices = {find_place(part).stat().st_dev for site in sites for part in site.parts if find_place(part).exists()}
    for path in (layout.state, layout.spool, layout.run):
        with suppress(FileNotFoundError):
            room, device = read_room(path), path.stat().st_dev
            is_full = room.free_bytes < room.reserved_bytes
            if device in devices or not (is_full or (room.free_inodes or 1 << 62) < room.reserved_inodes):
                continue
            devices.add(device)
            figures = f"{format_size(room.free_bytes)} are free" if is_full else f"{room.free_inodes} inodes are free"
            yield Finding(
                None,
                Severity.ERROR,
                "no-space" if is_full else "no-inodes",
                "deployments fail: no upload can be taken over, and none be written down",
                f"{path}: {figures}, and swapd leaves more than that to others",
                "Make room there.",
                {"path": str(path)},
            )

"""Rebuild: records that are lost or damaged are made anew from what is on the disk; what cannot be known is adopted.

Facts that this rests on:

- The live path's tree is known by a link's target, or by device, inode and birth from the records of the deployments
  that are left: each says which trees it was to swap.
- Whatever stands among the releases under a release's name is whole: nothing is removed under that name.
- Pins are in the lost record alone. So every kept release is pinned then: nothing goes that nobody meant to let go.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from swapd.adopt import find_live
from swapd.context import Context
from swapd.host import records
from swapd.host.drift import linked_release
from swapd.host.files import fsync_directory, is_tree
from swapd.model import events
from swapd.model.config import Site
from swapd.model.errors import Failed
from swapd.model.layout import Layout
from swapd.model.record import Deployment, Kind, LiveRelease, SiteState
from swapd.model.release import ADOPTED, DeploymentId, Outcome, ReleaseId, is_release_id

BETWEEN = (".staged-", ".outgoing-", ".link-")  # names of a swap that is under way, before its deployment's id


def mend_records(site: Site, context: Context) -> None:
    """Every record of the site can be read after this; under its lock, before anything relies on them.

    A damaged one is renamed, never removed, and the state is rebuilt; this is said. Raises ``Failed``: ``newer-record``
    for one that a newer version wrote, ``cannot-read`` for one that cannot be read at all, and ``OSError``.
    """
    for path in records.find_damaged(context.layout, site.name):
        aside = records.set_record_aside(path)
        message = f"the record {path} is damaged and lies beside as {aside.name}; how its deployment ended is not known"
        context.emit(events.rebuilt(site.name, message))
    damaged = ""
    try:
        if records.find_state(context.layout, site.name) is not None:
            return
    except Failed as error:
        if error.problem != "bad-record":
            raise
        aside = records.set_record_aside(context.layout.site_record(site.name))
        damaged = f"{error.message}; it lies beside as {aside.name}"
    deployments = records.read_deployments(context.layout, site.name)
    if damaged or has_traces(site, context.layout):
        _rebuild(site, context, deployments, damaged or f"there is no {context.layout.site_record(site.name)}")


def has_traces(site: Site, layout: Layout) -> bool:
    """Whether a release must have been live before: then there was a record of it."""
    return (
        any(item.outcome is Outcome.LIVE for item in records.read_deployments(layout, site.name, '"live"'))
        or bool(_kept_releases(site, ()))
        or linked_release(site) is not None
    )


def _rebuild(site: Site, context: Context, deployments: Sequence[Deployment], why: str) -> None:
    live = find_live(site, context, DeploymentId(str(uuid.uuid4())))
    if live is not None:
        recognised = _recognised(site, live, deployments)
        # A link's target says more than an inode, which a backup does not bring back.
        if recognised.release == live.release or live.release.startswith(f"{ADOPTED}@"):
            live = recognised
    kept = tuple(item for item in _kept_releases(site, deployments) if live is None or item != live.release)
    bad = tuple(item for item in kept if item in _bad_releases(deployments))
    state = SiteState(live, kept, bad=bad, pinned=kept)
    records.write_state(context.layout, site.name, state)
    is_known = "is live, as far as is known" if live and live.release.startswith(f"{ADOPTED}@") else "is live"
    found = f"{live.release} {is_known}" if live else f"nothing is live at {site.live}"
    listed = f"; kept, and pinned as nobody knows which of them were: {', '.join(kept)}" if kept else ""
    context.emit(events.rebuilt(site.name, f"{why}. By what is on the disk, {found}{listed}"))


def _recognised(site: Site, live: LiveRelease, deployments: Iterable[Deployment]) -> LiveRelease:
    """The live release by the records of the deployments, newest first, that say which tree they swapped there."""
    for item in deployments:
        for intent in item.swaps:
            if intent.swap.live != str(site.live):
                continue
            if item.release and is_tree(site.live, intent.swap.staged):
                was_live = item.outcome is Outcome.LIVE
                return replace(
                    live,
                    release=item.release,
                    digest=item.digest,
                    deployment=item.id,
                    since=item.ended if was_live and item.ended else live.since,
                    pause=item.pause,
                    newest=item.newest,
                )
            if intent.outgoing and intent.outgoing_tree and is_tree(site.live, intent.outgoing_tree):
                known = next((other for other in deployments if other.release == intent.outgoing), None)
                return replace(live, release=intent.outgoing, digest=known.digest if known else None)
    return live


def _kept_releases(site: Site, deployments: Iterable[Deployment]) -> list[ReleaseId]:
    """What stands among the releases under a release's name, the one that was live last first."""
    try:
        there = [ReleaseId(name) for name in os.listdir(site.releases) if is_release_id(name)]
    except (FileNotFoundError, NotADirectoryError):  # and not because of a disk that fails
        return []
    was_live: dict[str, float] = {}
    for item in deployments:
        if item.outcome is Outcome.LIVE and item.release and item.ended:
            was_live.setdefault(item.release, item.ended.timestamp())

    def age(release: ReleaseId) -> float:
        # Where no record knows: when its name was last changed, which is when it was put among the releases.
        return was_live.get(release) or os.lstat(site.releases / release).st_ctime

    return sorted(there, key=age, reverse=True)


def _bad_releases(deployments: Sequence[Deployment]) -> set[ReleaseId]:
    """Which releases were rolled back from and have not been made live again since."""
    bad: set[ReleaseId] = set()
    for item in reversed(deployments):
        if item.outcome is Outcome.LIVE and item.release:
            bad.discard(item.release)
            if item.kind is Kind.ROLLBACK and item.is_previous_bad and item.previous:
                bad.add(item.previous)
    return bad


def name_orphans(site: Site, context: Context) -> None:
    """What a swap left under a name for a while is a release again; once every deployment has its outcome.

    Such a tree was live, or was about to be. By the record of its deployment it gets its release's name; where there is
    no record any more nobody knows, and it is kept as ``adopted@…``, and pinned. Where nothing is live, and one of
    them was, it is that again. Raises ``OSError``.
    """
    for part in site.parts:
        for path in _orphans(part):
            if path.is_symlink():
                path.unlink()
            elif path.name.startswith(".outgoing-") and not os.path.lexists(part.live):
                os.rename(path, part.live)
                fsync_directory(part.live.parent)
                context.emit(events.rebuilt(site.name, f"{part.live} was missing, and is what it was before a crash"))
            else:
                _name(site, context, part, path)


def _orphans(part: Site) -> list[Path]:
    try:
        names = os.listdir(part.releases)
    except OSError:
        return []
    return [part.releases / name for name in sorted(names) if name.startswith(BETWEEN)]


def _name(site: Site, context: Context, part: Site, path: Path) -> None:
    release = _name_by_record(site, context, part, path) or ReleaseId(f"{ADOPTED}@{uuid.uuid4().hex[:12]}")
    if part.live == site.live:
        state = records.read_state(context.layout, site.name)
        pinned = (*state.pinned, release) if release.startswith(f"{ADOPTED}@") else state.pinned
        kept = tuple(dict.fromkeys((*state.previous, release)))
        records.write_state(context.layout, site.name, replace(state, previous=kept, pinned=pinned))
    os.rename(path, part.releases / release)
    context.emit(events.rebuilt(site.name, f"{path}, which a swap had left, is kept as {release}"))


def _name_by_record(site: Site, context: Context, part: Site, path: Path) -> ReleaseId | None:
    """Which release the tree is by the records of the deployments, unless another tree has its name."""
    for item in records.read_deployments(context.layout, site.name):
        for intent in item.swaps:
            if intent.swap.live != str(part.live):
                continue
            for release, tree in ((item.release, intent.swap.staged), (intent.outgoing, intent.outgoing_tree)):
                if release and tree and is_tree(path, tree) and not os.path.lexists(part.releases / release):
                    return release
    return None

"""Retention: releases past their time go, unless something still uses them; gently, and after everything else."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import psutil

from swapd.context import Context
from swapd.host import linux, records
from swapd.host.child import WORDS, Child
from swapd.host.drift import find_drift, is_there
from swapd.host.files import locked
from swapd.host.routes import read_route
from swapd.host.usage import Usage, find_usage
from swapd.model import events
from swapd.model.config import Site
from swapd.model.errors import Busy
from swapd.model.record import SiteState
from swapd.model.release import ReleaseId, printable
from swapd.model.route import route_to
from swapd.model.usage import describe_users
from swapd.stages.mark import remove_markers, remove_old_markers
from swapd.stages.prune import (
    find_leftovers,
    find_users,
    put_back,
    releases_to_prune,
    remove_aside,
    set_abandoned_aside,
    set_aside,
)

LOWEST = 19  # niceness
LOOK = 100  # milliseconds after which a removal sees that it is to be broken off


@dataclass(slots=True)
class Pruned:
    """What a prune did: the state after it, what went, and why what is past its time did not."""

    state: SiteState
    removed: list[ReleaseId] = field(default_factory=list)
    held: dict[ReleaseId, str] = field(default_factory=dict)


def correct_state(site: Site, context: Context, state: SiteState) -> SiteState:
    """The state without the kept releases that people removed or renamed, which is said once.

    Not where the live path has drifted: then perhaps nothing is where it belongs, as before a filesystem is mounted.
    """
    gone = [release for release in state.previous if not is_there(site, release)]
    if not gone or not site.releases.is_dir() or find_drift(site, state):
        return state
    state = replace(
        state,
        previous=tuple(release for release in state.previous if release not in gone),
        bad=tuple(release for release in state.bad if release not in gone),
        pinned=tuple(release for release in state.pinned if release not in gone),
    )
    records.write_state(context.layout, site.name, state)
    context.emit(events.kept_gone(site.name, gone, str(site.releases)))
    return state


def prune_releases(site: Site, context: Context) -> Pruned:
    """Renames aside what is past ``keep`` and what crashes left, for ``sweep`` to remove.

    Under the site's lock, and not before an extraction. What cannot be renamed, or is in use, is said, and stays.
    """
    pruned = Pruned(records.read_state(context.layout, site.name))
    with _degrading(context, site):
        pruned.state = correct_state(site, context, pruned.state)
    for part in site.parts:
        with _degrading(context, site):
            set_abandoned_aside(part)
    past = tuple(dict.fromkeys((*pruned.state.doomed, *releases_to_prune(pruned.state, site.keep))))
    if past:
        with _degrading(context, site):
            _prune(site, context, pruned, past)
    with _degrading(context, site):
        _remove_markers(site, context, pruned)
    return pruned


def _remove_markers(site: Site, context: Context, pruned: Pruned) -> None:
    """Those of the releases that went now, by their names. Now and then all, among which a crowd of others may lie."""
    if not context.tidying.is_over:
        remove_markers(site.incoming, pruned.removed)
        return
    with context.tidying.earned():
        live = (pruned.state.live.release,) if pruned.state.live else ()
        remove_old_markers(site.incoming, {*live, *pruned.state.previous})


def _prune(site: Site, context: Context, pruned: Pruned, past: Sequence[ReleaseId]) -> None:
    usage = find_usage(context.layout, context.is_cancelled)
    if context.is_cancelled():
        return  # whoever starts next does all of it
    # Of what a crash interrupted, what is aside already is not whole: it is never kept again, whoever uses the rest.
    torn = {item for item in pruned.state.doomed if not _is_whole(site, item)}
    for release in past:
        if not is_there(site, release):
            continue
        if why := _is_served(site, release) or _in_use([(part, release) for part in site.parts], usage):
            pruned.held[release] = why
    doomed = tuple(release for release in past if release not in pruned.held)
    # Not listed as kept when it is there no longer; and not forgotten before it is aside.
    listed = (*pruned.state.previous, *(item for item in pruned.state.doomed if item not in pruned.state.previous))
    order = tuple(item for item in listed if item not in torn)
    _write(site, context, pruned, order, tuple(item for item in past if item in doomed or item in torn))
    aside: dict[ReleaseId, list[tuple[Site, str]]] = {}
    for release in doomed:
        try:
            aside[release] = _set_aside(site, release)
        except OSError as error:
            pruned.held[release] = f"it cannot be renamed: {error.strerror}"
            context.emit(events.degraded(f"pruning: {release}: {error.strerror}", site.name))
    _look_again(context, pruned, aside, usage)
    pruned.removed = list(aside)
    _write(site, context, pruned, order, tuple(item for item in pruned.held if item in torn))
    for release, why in pruned.held.items():
        context.emit(events.release_held(site.name, release, why))
    if aside:
        context.emit(events.pruned(site.name, list(aside)))


def _write(
    site: Site, context: Context, pruned: Pruned, order: Sequence[ReleaseId], doomed: tuple[ReleaseId, ...]
) -> None:
    """The state, with what is kept in this order: all but the doomed, and what has gone."""
    gone = {*doomed, *pruned.removed}
    kept = tuple(release for release in order if release not in gone)
    bad = tuple(release for release in pruned.state.bad if release in (*kept, *doomed))
    state = replace(pruned.state, previous=kept, doomed=doomed, bad=bad)
    if state != pruned.state:
        pruned.state = state
        records.write_state(context.layout, site.name, state)


def _set_aside(site: Site, release: ReleaseId) -> list[tuple[Site, str]]:
    """Of all live paths, or of none: what was renamed before one fails gets its name back."""
    done: list[tuple[Site, str]] = []
    try:
        for part in site.parts:
            name = set_aside(part, release)
            if name is not None:
                done.append((part, name))
    except OSError:
        for part, name in done:
            put_back(part, name, release)
        raise
    return done


def _look_again(
    context: Context, pruned: Pruned, aside: dict[ReleaseId, list[tuple[Site, str]]], before: Usage
) -> None:
    """Gives back its name to what somebody has gone into since the look before."""
    usage = find_usage(context.layout, context.is_cancelled)
    # What was used before is not in any of these trees.
    late = {inode: users for inode, users in usage.users.items() if inode not in before.users}
    if not late and not usage.unseen:
        return
    for release, places in list(aside.items()):
        if why := _in_use(places, Usage(late, usage.unseen)):
            for part, name in places:
                put_back(part, name, release)
            del aside[release]
            pruned.held[release] = why


def _is_whole(site: Site, release: ReleaseId) -> bool:
    """Whether each of the live paths has the release kept."""
    return all(os.path.lexists(part.releases / release) for part in site.parts)


def _is_served(site: Site, release: ReleaseId) -> str:
    """Whether a live path leads to it, whatever is recorded: a link may have been changed by hand."""
    for part in site.parts:
        with contextlib.suppress(OSError):
            if os.path.samefile(part.live, part.releases / release):
                return f"{part.live} leads to it"
    with contextlib.suppress(OSError):
        if (routed := read_route(site.route.map)) and routed == route_to(site, site.releases / release):
            return f"{site.route.map} leads to it"
    return ""


def _in_use(places: Sequence[tuple[Site, str]], usage: Usage) -> str:
    """Why nobody may remove the trees: who uses them, or that this cannot be known; empty where nobody does."""
    if usage.unseen:
        return f"whether a process uses it cannot be seen: {usage.unseen}"
    try:
        users = [user for part, name in places for user in find_users(part, name, usage)]
    except OSError as error:
        return f"whether a process uses it cannot be seen: {error.filename}: {error.strerror}"
    return describe_users(users)


@contextlib.contextmanager
def _degrading(context: Context, site: Site) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        context.emit(events.degraded(f"pruning: {error.filename}: {error.strerror}", site.name))


def sweep(site: Site, context: Context, wanted: int | None = None) -> bool:
    """Removes what is aside, by a child that takes the disk and the processor only when nobody else wants them.

    Without the site's lock: a deployment need not wait. The child is killed, and False returned, when the descriptor
    ``wanted`` can be read, or the work is cancelled; what is left may be removed at any time. What cannot be removed
    is said, and stays.
    """
    if not find_leftovers(site):
        return True
    try:
        with locked(context.layout.sweep_lock(site.name), f"a removal of old releases of {site.name}") as lock:
            return _sweep(site, context, wanted, lock)
    except Busy:
        return True  # somebody else is at it
    except OSError as error:
        context.emit(events.degraded(f"removing old releases: {error.strerror}", site.name))
        return True


def _sweep(site: Site, context: Context, wanted: int | None, lock: int) -> bool:
    parent = os.getpid()
    # It holds the lock as long as it lives, and dies with us.
    child = Child("(sweep)", lambda: _remove_gently(site, parent), keep=(lock,))
    try:
        watched = os.pidfd_open(child.pid)
        try:
            poll = select.poll()
            poll.register(watched, select.POLLIN)
            if wanted is not None:
                poll.register(wanted, select.POLLIN | select.POLLHUP)
            while not context.is_cancelled():
                ready = [descriptor for descriptor, _ in poll.poll(LOOK)]
                if watched in ready:
                    if child.wait() != 0:
                        context.emit(events.degraded(f"removing old releases: {child.words()}", site.name))
                    return True
                if ready:
                    break
            return False
        finally:
            os.close(watched)
    finally:
        child.close()


def _remove_gently(site: Site, parent: int) -> None:
    """In the child."""
    linux.prctl_set_pdeathsig(signal.SIGKILL)
    if os.getppid() != parent:
        return
    os.setpriority(os.PRIO_PROCESS, 0, LOWEST)
    with contextlib.suppress(OSError, psutil.Error):
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    errors = remove_aside(site.parts)
    if errors:
        said = "; ".join(f"{error.filename}: {error.strerror}" for error in errors[:3])
        os.write(2, printable(f"{said}{f' and {len(errors) - 3} more' if len(errors) > 3 else ''}", WORDS).encode())
        raise SystemExit(1)

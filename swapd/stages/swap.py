"""Swap: the rename that makes a staged release live, and what is done right before and after it.

Facts that this stage rests on:

- rename(2) over a symbolic link and renameat2(2) with RENAME_EXCHANGE have no instant without a live path: no ENOENT
  in 2.7 million looks. Two renames have one, and need the pause.
- Only fsync of both parent directories makes the renames survive a power cut; it takes up to 100 ms, so it follows
  the resume.
"""

from __future__ import annotations

import errno
import os
import secrets
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from swapd.host.files import REMOVING, closing_descriptor, fsync_directory, identify, is_tree, remove_tree
from swapd.host.linux import RENAME_EXCHANGE, renameat2
from swapd.host.refusals import explain
from swapd.model.config import Site, Strategy
from swapd.model.errors import Failed
from swapd.model.record import Rename, SiteState, SwapIntent, TreeIdentity
from swapd.model.release import (
    ADOPTED,
    DeploymentId,
    Release,
    ReleaseId,
    StagedRelease,
    Tree,
    is_release_id,
)

SAFE = "The live release and the upload are untouched."


class Move(Enum):
    """The renames that a swap consists of."""

    LINK = "link"  # a new link is renamed over the live link, or to where nothing is
    LINK_FOR_TREE = "link-for-tree"  # a new link and the live directory are exchanged
    TREE = "tree"  # the staged tree and the live directory (or link) are exchanged
    TREE_TWICE = "tree-twice"  # the live directory is renamed away, the staged tree to its place
    TREE_FIRST = "tree-first"  # the staged tree is renamed to where nothing is


@dataclass(frozen=True, slots=True)
class Plan:
    """A swap, as it will be done."""

    move: Move
    site: Site
    staged: StagedRelease
    intent: SwapIntent
    path: Path  # of the staged tree, right before the swap
    link: Path  # under which the new link waits; only for the LINK moves
    outgoing: Path  # under which the old tree waits for its name; only for TREE_TWICE


def plan(site: Site, staged: StagedRelease, strategy: Strategy, state: SiteState, deployment: DeploymentId) -> Plan:
    """What is to be renamed; nothing has been yet. Write ``intent`` down, then ``make_ready``, then ``commit``.

    ``Failed`` when the live path is not what ``strategy`` was chosen for any more.
    """
    is_link, is_missing = site.live.is_symlink(), not os.path.lexists(site.live)
    if strategy is Strategy.SYMLINK:
        move = Move.LINK if is_link or is_missing else Move.LINK_FOR_TREE
    elif is_missing:
        move = Move.TREE_FIRST
    elif strategy is Strategy.RENAME:
        move = Move.TREE_TWICE
    else:
        move = Move.TREE
    # Not under a staging name any more: after an exchange, the tree that was live stands there.
    name = staged.release if move in (Move.LINK, Move.LINK_FOR_TREE) else f".staged-{deployment}"
    path = site.releases / name
    try:
        intent = _intend(site, staged, move, path, state, deployment)
    except OSError as error:
        raise explain(error, site.releases) from error
    names = site.releases / f".link-{deployment}", site.releases / f".outgoing-{deployment}"
    return Plan(move, site, staged, intent, path, *names)


def make_ready(plan: Plan) -> None:
    """Only the swap's own renames are left after this. ``Failed`` when this host cannot."""
    site = plan.site
    try:
        if plan.move in (Move.LINK, Move.LINK_FOR_TREE):
            _name_release(plan.staged.tree.path, plan.path)
            fsync_directory(site.releases)
            _make_link(plan)
        else:
            os.rename(plan.staged.tree.path, plan.path)
            fsync_directory(site.releases)
    except OSError as error:
        raise explain(error, site.releases) from error


def _name_release(staging: Path, path: Path) -> None:
    """Gives a staged tree its release's name; a kept tree of the same release then stands under the staging name.

    By exchange: should the live link lead to that kept tree, there is a whole one under its name at every instant.
    """
    if os.path.lexists(path):
        renameat2(str(staging), str(path), RENAME_EXCHANGE)
    else:
        os.rename(staging, path)


def _make_link(plan: Plan) -> None:
    """The new live link under a name of its own, proven to lead to the staged tree from where it will stand."""
    live, path = plan.site.live, plan.path
    # Through real paths: the kernel resolves ".." in the directory that the link is really in.
    target = os.path.relpath(os.path.realpath(path), os.path.realpath(live.parent))
    if not is_tree(live.parent / target, plan.intent.staged):
        raise Failed(
            "link-would-dangle", f"a link from {live} to {path} would lead elsewhere", f"{SAFE} Correct releases."
        )
    os.symlink(target, plan.link)
    # SymLinksIfOwnerMatch: httpd follows a link only when its owner is the tree's.
    owner = path.stat()
    os.chown(plan.link, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _intend(
    site: Site, staged: StagedRelease, move: Move, path: Path, state: SiteState, deployment: DeploymentId
) -> SwapIntent:
    outgoing: ReleaseId | None = None
    identity: TreeIdentity | None = None
    if site.live.exists():
        identity = identify(site.live)
        outgoing = _name_outgoing(site, state) or ReleaseId(f"{ADOPTED}@{deployment.replace('-', '')[:12]}")
    target = os.path.realpath(site.live) if site.live.is_symlink() else ""
    return SwapIntent(move.value, identify(staged.tree.path), str(path), outgoing, identity, target)


def _name_outgoing(site: Site, state: SiteState) -> ReleaseId | None:
    """Which release the live path is: as recorded when it is still that tree, else by its name among the releases."""
    if state.live is not None and is_tree(site.live, state.live.tree):
        return state.live.release
    if site.live.is_symlink():
        target = Path(os.path.realpath(site.live))
        if target.parent == site.releases.resolve() and is_release_id(target.name):
            return ReleaseId(target.name)
    return None


def commit(plan: Plan) -> None:
    """The swap: one rename system call, or two. Whole or not at all: what fails half-way is undone.

    In the window: nothing but renames. Raises ``OSError``.
    """
    live, path = str(plan.site.live), str(plan.path)
    match plan.move:
        case Move.LINK:
            os.rename(plan.link, live)
        case Move.LINK_FOR_TREE:
            renameat2(str(plan.link), live, RENAME_EXCHANGE)
        case Move.TREE:
            renameat2(path, live, RENAME_EXCHANGE)
        case Move.TREE_FIRST:
            os.rename(path, live)
        case Move.TREE_TWICE:
            os.rename(live, plan.outgoing)
            try:
                # Without flags: this is for filesystems that refuse every flag. What a directory can replace is an
                # empty directory.
                os.rename(path, live)
            except OSError:
                os.rename(plan.outgoing, live)
                raise


def undo(plan: Plan) -> tuple[Rename, ...]:
    """What brings the live path back when a crash lets only the first of two renames happen."""
    return (Rename(str(plan.outgoing), str(plan.site.live)),) if plan.move is Move.TREE_TWICE else ()


def explain_commit(plan: Plan, error: OSError) -> Failed:
    """Why the rename was refused; the live path is as it was."""
    hint = f"{SAFE} "
    if error.errno == errno.EXDEV:
        hint += (
            f"{plan.site.live} may be in a lower layer of an overlay, or on another mount than {plan.site.releases}: "
            "make it anew in place (cp -a, then mv), or let both be on one mount."
        )
    elif error.errno == errno.EBUSY:
        hint += f"Something is mounted on {plan.site.live}."
    return Failed("cannot-swap", f"{plan.site.live}: {error.strerror}", hint)


def is_live(site: Site, intent: SwapIntent) -> bool:
    """Whether the live path is the staged tree of ``intent`` by now."""
    return is_tree(site.live, intent.staged)


def is_half_done(site: Site, intent: SwapIntent) -> bool:
    """Whether a crash let only the first of two renames happen: nothing is live, and both trees are there."""
    return (
        intent.strategy == Move.TREE_TWICE.value
        and not os.path.lexists(site.live)
        and Path(intent.staged_path).is_dir()
    )


def finish(site: Site, release: ReleaseId, intent: SwapIntent) -> Release:
    """After the renames: they are made durable, and the old tree gets its release's name. Can be done again.

    Also completes two renames of which a crash let only the first happen.
    """
    if is_half_done(site, intent):
        os.rename(intent.staged_path, site.live)
    fsync_directory(site.live.parent)
    for path in list(site.releases.iterdir()):
        if path.name.startswith((".staged-", ".outgoing-", ".link-")):
            _put_away(site, path, intent)
    outgoing = intent.outgoing
    if outgoing and intent.outgoing_target and not os.path.lexists(site.releases / outgoing):
        # The live link led to a tree elsewhere: it stays there, and is kept under its name by a link.
        os.symlink(intent.outgoing_target, site.releases / outgoing)
    fsync_directory(site.releases)
    return Release(release, Tree(site.live), outgoing, None)


def _put_away(site: Site, path: Path, intent: SwapIntent) -> None:
    """What the swap left under a name of its own: the old tree gets its release's name, an old link goes."""
    if path.is_symlink():
        path.unlink()
    elif (
        path.is_dir() and intent.outgoing and intent.outgoing_tree and path.stat().st_ino == intent.outgoing_tree.inode
    ):
        kept = site.releases / intent.outgoing
        if os.path.lexists(kept):  # an older tree of the same release: the one that was live last is kept
            os.rename(kept, site.releases / f"{REMOVING}{secrets.token_hex(8)}")
        os.rename(path, kept)


def abandon(site: Site, deployment: DeploymentId, intent: SwapIntent | None) -> None:
    """Removes what a deployment that did not go live left among the releases; never a tree that was live.

    Raises ``OSError``.
    """
    if intent is not None and is_live(site, intent):
        return
    staging = site.releases / f".staging-{deployment}"
    names = [staging.name, f".link-{deployment}", f".staged-{deployment}"]
    if intent is not None:
        named = Path(intent.staged_path)
        if named.parent == site.releases and is_tree(named, intent.staged):
            if staging.exists():
                renameat2(str(staging), str(named), RENAME_EXCHANGE)  # a kept tree of this release gets its name back
            else:
                names.append(named.name)
    try:
        releases = os.open(site.releases, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with closing_descriptor(releases):
        for name in names:
            # A tree that was live may stand under the names of an exchange: `finish` gives it its own.
            if (
                intent is None
                or intent.outgoing_tree is None
                or not is_tree(site.releases / name, intent.outgoing_tree)
            ):
                remove_tree(releases, name)

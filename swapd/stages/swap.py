"""Swap: the rename that makes a staged release live, and what is done right before and after it.

Facts that this stage rests on:

- rename(2) over a symbolic link and renameat2(2) with RENAME_EXCHANGE have no instant without a live path: no ENOENT
  in 2.7 million looks. Two renames have one, and need the pause; so do several live paths, between one and the next.
- Only fsync of both parent directories makes the renames survive a power cut; it takes up to 100 ms, so it follows
  the resume.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from swapd.host.files import REMOVING, closing_descriptor, fsync_directory, identify, is_tree, remove_tree
from swapd.host.linux import RENAME_EXCHANGE, renameat2
from swapd.host.refusals import explain
from swapd.host.renames import complete, is_half_swapped, is_swapped, swap_paths
from swapd.host.routes import forget_staged_route, lead, read_route, stage_route
from swapd.model.config import PauseMode, Site, Strategy
from swapd.model.errors import Failed
from swapd.model.record import How, PathSwap, SiteState, SwapIntent, TreeIdentity
from swapd.model.release import ADOPTED, DeploymentId, KeptRelease, ReleaseId, StagedRelease, is_release_id
from swapd.strategies import WAYS
from swapd.strategies.way import Place

SAFE = "The live release and the upload are untouched."


@dataclass(frozen=True, slots=True)
class Plan:
    """The swap of one live path, as it will be done. ``site`` is the part of the site that has it."""

    site: Site
    staging: Path  # of the staged tree, as the stage before left it
    strategy: Strategy
    intent: SwapIntent

    @property
    def path(self) -> Path:
        """Of the staged tree, right before the swap."""
        return Path(self.intent.staged_path)

    @property
    def link(self) -> Path | None:
        """The new live link under a name of its own, where the live path will be a link to the tree."""
        return None if self.intent.swap.path == self.intent.staged_path else Path(self.intent.swap.path)


def plan(
    site: Site,
    staged: StagedRelease | KeptRelease,
    strategies: Sequence[Strategy],
    state: SiteState,
    deployment: DeploymentId,
) -> tuple[Plan, ...]:
    """What is to be renamed, for each part of the site; nothing has been yet. It takes the same time for any tree.

    Write the intents down, then ``make_ready``, then ``commit``. ``Failed`` when a live path is not what its strategy
    was chosen for any more.
    """
    plans = []
    for part, tree, strategy in zip(site.parts, staged.trees, strategies, strict=True):
        try:
            intent = _intend(part, staged, tree.path, strategy, state, deployment)
        except OSError as error:
            raise explain(error, part.releases) from error
        plans.append(Plan(part, tree.path, strategy, intent))
    return tuple(plans)


def _intend(
    site: Site,
    staged: StagedRelease | KeptRelease,
    staging: Path,
    strategy: Strategy,
    state: SiteState,
    deployment: DeploymentId,
) -> SwapIntent:
    renames = WAYS[strategy].plan(Place(site, staging, staged.release, deployment))
    outgoing: ReleaseId | None = None
    identity: TreeIdentity | None = None
    if site.live.exists():
        identity = identify(site.live)
        outgoing = _name_outgoing(site, state) or ReleaseId(f"{ADOPTED}@{deployment.replace('-', '')[:12]}")
    target = os.path.realpath(site.live) if site.live.is_symlink() else ""
    kept = str(staging) if isinstance(staged, KeptRelease) else ""
    return SwapIntent(renames.swap, renames.staged_path, outgoing, identity, target, kept)


def _name_outgoing(site: Site, state: SiteState) -> ReleaseId | None:
    """Which release the live path is: as recorded when it is still that tree, else by its name among the releases."""
    if state.live is not None and is_tree(site.live, state.live.tree_at(str(site.live))):
        return state.live.release
    if site.live.is_symlink():
        target = Path(os.path.realpath(site.live))
        if target.parent == site.releases.resolve() and is_release_id(target.name):
            return ReleaseId(target.name)
    return None


def make_ready(plans: Sequence[Plan]) -> None:
    """Only the swap's own renames are left after this. ``Failed`` when this host cannot."""
    for plan in plans:
        releases = plan.site.releases
        try:
            if plan.intent.swap.route is None:
                _leave_route(plan.site)
            if plan.link is not None:
                _name_release(plan.staging, plan.path)
                fsync_directory(releases)
                _make_link(plan, plan.link)
                if plan.intent.swap.route is not None:
                    stage_route(plan.intent.swap.route, plan.site.name)
            else:
                os.rename(plan.staging, plan.path)
            fsync_directory(releases)
        except OSError as error:
            raise explain(error, releases) from error


def _leave_route(site: Site) -> None:
    """A route that an earlier strategy left must not hold visitors back at its release.

    Without one, the web server serves the live path, which is the same release until the swap.
    """
    if not site.part and read_route(site.route.map):
        lead(site, "")


def _name_release(staging: Path, path: Path) -> None:
    """Gives a staged tree its release's name; a kept tree of the same release then stands under the staging name.

    By exchange: should the live link lead to that kept tree, there is a whole one under its name at every instant.
    """
    if staging == path:
        return  # a kept tree, which goes live again under the name that it has
    if os.path.lexists(path):
        renameat2(str(staging), str(path), RENAME_EXCHANGE)
    else:
        os.rename(staging, path)


def _make_link(plan: Plan, link: Path) -> None:
    """The new live link under a name of its own, proven to lead to the staged tree from where it will stand."""
    live, path = plan.site.live, plan.path
    # Through real paths: the kernel resolves ".." in the directory that the link is really in.
    target = os.path.relpath(os.path.realpath(path), os.path.realpath(live.parent))
    if not is_tree(live.parent / target, plan.intent.swap.staged):
        raise Failed(
            "link-would-dangle", f"a link from {live} to {path} would lead elsewhere", f"{SAFE} Correct releases."
        )
    os.symlink(target, link)
    # SymLinksIfOwnerMatch: httpd follows a link only when its owner is the tree's.
    owner = path.stat()
    os.chown(link, owner.st_uid, owner.st_gid, follow_symlinks=False)


def commit(plans: Sequence[Plan]) -> None:
    """The swap: a rename system call or two for each live path. All of them, or none: what fails amid it is undone.

    In the window: nothing but renames. Raises ``OSError``.
    """
    swap_paths([plan.intent.swap for plan in plans])


def is_paused_for(site: Site, plans: Sequence[Plan]) -> bool:
    """Whether httpd is to be paused for this swap: as the site says, or by itself, as its strategies need it."""
    if site.pause.mode is PauseMode.AUTO:
        return any(WAYS[plan.strategy].IS_PAUSED_FOR for plan in plans)
    return site.pause.mode is PauseMode.ALWAYS


def undo(plans: Sequence[Plan]) -> tuple[PathSwap, ...]:
    """What a crash may leave half done: two renames, or the swaps of several live paths."""
    swaps = tuple(plan.intent.swap for plan in plans)
    return swaps if len(swaps) > 1 or swaps[0].how is How.TWICE else ()


def explain_commit(plans: Sequence[Plan], error: OSError) -> Failed:
    """Why a rename was refused; every live path is as it was."""
    plan = next((plan for plan in plans if str(plan.site.live) in (error.filename, error.filename2)), plans[0])
    hint = f"{SAFE} "
    if error.errno == errno.EXDEV:
        hint += (
            f"{plan.site.live} may be in a lower layer of an overlay, or on another mount than {plan.site.releases}: "
            "make it anew in place (cp -a, then mv), or let both be on one mount."
        )
    elif error.errno in (errno.ENOTEMPTY, errno.EEXIST):
        hint += (
            "Something stands there that was not there before: look at it. If swapd was held up amid the swap, it is "
        )
        hint += "what was live, which came back with httpd's resume; then touch the tarball."
    elif error.errno == errno.EBUSY:
        hint += f"Something is mounted on {plan.site.live}."
    return Failed("cannot-swap", f"{plan.site.live}: {error.strerror}", hint)


def is_live(site: Site, intents: Sequence[SwapIntent]) -> bool:
    """Whether each live path of the site is the staged tree that was meant for it by now."""
    return bool(intents) and all(is_swapped(intent.swap) for _, intent in match(site, intents))


def is_begun(site: Site, intents: Sequence[SwapIntent]) -> bool:
    """Whether a crash let some of the renames happen, so that the others are to follow."""
    return any(
        is_swapped(intent.swap) or (is_half_swapped(intent.swap) and Path(intent.staged_path).is_dir())
        for _, intent in match(site, intents)
    )


def match(site: Site, intents: Sequence[SwapIntent]) -> list[tuple[Site, SwapIntent]]:
    """The site's parts with what was meant for each: the configuration may have changed since it was written down."""
    meant = {intent.swap.live: intent for intent in intents}
    return [(part, meant[str(part.live)]) for part in site.parts if str(part.live) in meant]


def finish(site: Site, intents: Sequence[SwapIntent]) -> tuple[ReleaseId, ...]:
    """After the renames: they are made durable, and the old trees get their releases' names. Can be done again.

    Also completes the renames of which a crash let only the first happen. Returns which releases were live, the main
    live path's first.
    """
    parts = match(site, intents)
    for _, intent in parts:
        if is_half_swapped(intent.swap):
            complete(intent.swap, site.name)
        elif not is_swapped(intent.swap):
            swap_paths([intent.swap])
    for part, intent in parts:
        _finish(part, intent)
    return tuple(dict.fromkeys(intent.outgoing for _, intent in parts if intent.outgoing))


def _finish(site: Site, intent: SwapIntent) -> None:
    if intent.swap.route is not None:
        forget_staged_route(intent.swap.route)
    fsync_directory(site.live.parent)
    for path in list(site.releases.iterdir()):
        if path.name.startswith((".staged-", ".outgoing-", ".link-")):
            _put_away(site, path, intent)
    outgoing = intent.outgoing
    if outgoing and intent.outgoing_target and not os.path.lexists(site.releases / outgoing):
        # The live link led to a tree elsewhere: it stays there, and is kept under its name by a link.
        os.symlink(intent.outgoing_target, site.releases / outgoing)
    fsync_directory(site.releases)


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


def abandon(
    site: Site,
    deployment: DeploymentId,
    intents: Sequence[SwapIntent],
    remove: Callable[[int, str], None] = remove_tree,
) -> None:
    """Has everything removed that a deployment which did not go live left among the releases.

    Never a tree that was live; and a kept tree that was to be live again has its release's name again after this.
    ``remove`` may be ``set_aside``, which takes no time, where an extraction may be next. Raises ``OSError``.
    """
    kept = [intent for intent in intents if intent.kept]
    for intent in kept:
        # By the paths that were written down: the configuration may have others by now.
        _give_back(intent)
    meant = {intent.swap.live: intent for intent in intents}
    for part in site.parts:
        _abandon(part, deployment, meant.get(str(part.live)), remove, has_staged=not kept)


def _give_back(intent: SwapIntent) -> None:
    """A kept tree has the name again that it had before ``make_ready``."""
    if is_swapped(intent.swap) or intent.kept == intent.staged_path:
        return
    if is_tree(intent.staged_path, intent.swap.staged):
        # Whatever somebody has put there meanwhile is not replaced: a directory can only replace an empty one.
        os.rename(intent.staged_path, intent.kept)
        fsync_directory(Path(intent.kept).parent)


def _abandon(
    site: Site,
    deployment: DeploymentId,
    intent: SwapIntent | None,
    remove: Callable[[int, str], None],
    *,
    has_staged: bool,
) -> None:
    if intent is not None and is_swapped(intent.swap):
        return
    if intent is not None and intent.swap.route is not None:
        forget_staged_route(intent.swap.route)
    staging = site.releases / f".staging-{deployment}"
    names = [staging.name, f".link-{deployment}"]
    if has_staged:  # what is under that name was extracted for this deployment
        names.append(f".staged-{deployment}")
    if has_staged and intent is not None:
        named = Path(intent.staged_path)
        if named.parent == site.releases and is_tree(named, intent.swap.staged):
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
                remove(releases, name)

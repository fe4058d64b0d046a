"""One deployment, from an upload to a live release: the order of the stages, and what happens when one fails."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from swapd.host import records
from swapd.host.disks import Disks
from swapd.host.files import is_tree, locked
from swapd.host.refusals import explain
from swapd.ledger import Context, Ledger
from swapd.model import events
from swapd.model.config import Site, Strategy
from swapd.model.errors import Busy, Failed, Interrupted, Rejected
from swapd.model.record import Deployment, SiteState
from swapd.model.release import (
    ADOPTED,
    ExtractedTree,
    Release,
    Stage,
    StagedRelease,
    Tarball,
    Upload,
    VerifiedTarball,
)
from swapd.model.room import NoRoom
from swapd.recover import recover
from swapd.stages import pause, swap
from swapd.stages.admit import admit
from swapd.stages.choose import choose
from swapd.stages.claim import claim, confirm
from swapd.stages.compare import refuse_older
from swapd.stages.extract import extract
from swapd.stages.prepare import places, prepare
from swapd.stages.prune import has_leftovers, prune, releases_to_prune
from swapd.stages.verify import verify

RESTARTS = 4  # how often httpd may be restarted between being found and being stopped; each look takes some 100 ms


def deploy(site: Site, upload: Upload, context: Context, patience: float = 0.0) -> Deployment:
    """Makes the upload's release live, or says why not: the deployment with its outcome, written everywhere.

    The live path is a complete release at every instant. Raises ``NotComplete`` when the upload still goes on (no
    deployment has begun), ``Busy`` when the site's lock is not free within ``patience`` seconds.
    """
    records.make_state_directories(context.layout, site.name)
    lock = context.layout.site_lock(site.name)
    with locked(lock, f"a deployment of {site.name}", patience, context.is_cancelled):
        recover(site, context)
        ledger = Ledger.open(site, context, upload)
        try:
            with Disks() as disks:
                return _deploy(site, upload, disks, ledger)
        except (Rejected, Failed) as error:
            _clean(site, ledger)
            return ledger.fail(error)
        except OSError as error:
            _clean(site, ledger)
            return ledger.fail(explain(error, site.live.parent))


def _deploy(site: Site, upload: Upload, disks: Disks, ledger: Ledger) -> Deployment:
    """Claim, verify, admit, extract, prepare, pause, swap, resume, record, prune."""
    context = ledger.context
    ledger.enter(Stage.CLAIM)
    claims = str(context.layout.claims(site.name))
    report = _reporter(ledger, Stage.CLAIM, _size_of(upload))
    with claim(upload, claims, site.verify.max_tarball, report) as tarball:
        ledger.know(tarball)
        ledger.enter(Stage.VERIFY)
        verified = verify(tarball, site, lambda: _keep_going(ledger))
        ledger.know_signer(verified.signer)
        ledger.begin()
        state = records.read_state(context.layout, site.name)
        if _is_unchanged(site, tarball, state):
            return ledger.end_unchanged()
        strategies = [choose(part).strategy for part in site.parts]
        ledger.enter(Stage.EXTRACT)
        disks.hold(places(site))
        extracted = _extract(verified, site, ledger)
    ledger.know_newest(extracted.newest)
    if site.verify.newer_only:
        refuse_older(extracted.newest, state.live)
    ledger.enter(Stage.PREPARE)
    staged = prepare(extracted, site, disks, lambda: _keep_going(ledger))
    release = _swap(site, staged, strategies, state, ledger)
    deployment = ledger.end_live(release)
    ledger.enter(Stage.PRUNE)
    ledger.remove_old_markers(prune_releases(site, context))
    return deployment


def _is_unchanged(site: Site, tarball: Tarball, state: SiteState) -> bool:
    """Whether these very bytes are what is live, in the trees that were put there."""
    live = state.live
    if live is None or live.digest != tarball.digest or live.release != tarball.release:
        return False
    return all(is_tree(part.live, live.tree_at(str(part.live))) for part in site.parts)


def _extract(verified: VerifiedTarball, site: Site, ledger: Ledger) -> ExtractedTree:
    """The staging tree, made of the bytes that were verified."""
    try:
        extracted = _extract_where_room_is(verified, site, ledger)
    except Rejected:
        confirm(verified.tarball)  # else it is not the tarball's fault
        raise
    confirm(verified.tarball)
    return extracted


def _extract_where_room_is(verified: VerifiedTarball, site: Site, ledger: Ledger) -> ExtractedTree:
    """The staging tree. Where there is no room for it, what crashes left is removed, and it is tried once more.

    Not before: removing a tree right before an extraction makes that several times as slow (see ``prune``).
    """
    report = _reporter(ledger, Stage.EXTRACT, verified.tarball.size)
    try:
        admit(verified, site, lambda: _keep_going(ledger))
        return extract(verified, site, ledger.deployment.id, report)
    except NoRoom:
        _clean(site, ledger)
        if not has_leftovers(site):
            raise
    prune_releases(site, ledger.context)
    admit(verified, site, lambda: _keep_going(ledger))
    return extract(verified, site, ledger.deployment.id, report)


def _swap(
    site: Site, staged: StagedRelease, strategies: Sequence[Strategy], state: SiteState, ledger: Ledger
) -> Release:
    """The staged release is live after this, under the intents that were written down before."""
    _keep_going(ledger)
    plans = swap.plan(site, staged, strategies, state, ledger.deployment.id)
    intents = tuple(plan.intent for plan in plans)
    ledger.enter(Stage.SWAP)
    ledger.intend(intents)
    swap.make_ready(plans)
    try:
        _commit(site, plans, ledger)
    except OSError as error:
        if not swap.is_live(site, intents):
            raise swap.explain_commit(plans, error) from error
        ledger.context.emit(events.degraded(f"ending the pause: {error.strerror}", site.name))
    # From here on the release is live, whatever else fails: what is left can be done again at the next start.
    try:
        outgoing = swap.finish(site, intents)
    except OSError as error:
        ledger.context.emit(events.degraded(f"after the swap: {error.filename}: {error.strerror}", site.name))
        outgoing = tuple(dict.fromkeys(intent.outgoing for intent in intents if intent.outgoing))
    for release in outgoing:
        if release.startswith(f"{ADOPTED}@"):
            ledger.context.emit(events.adopted(site.name, release, str(site.releases)))
    return Release(staged.release, outgoing)


def _commit(site: Site, plans: Sequence[swap.Plan], ledger: Ledger) -> None:
    """The renames, under a pause where the site asks for one; raises ``Failed`` or ``OSError``."""
    if not site.is_paused_for_swap:
        swap.commit(plans)
        return
    for attempt in range(RESTARTS + 1):
        try:
            _commit_paused(site, plans, ledger)
        except pause.Restarted:
            if attempt == RESTARTS:
                raise
        else:
            return


def _commit_paused(site: Site, plans: Sequence[swap.Plan], ledger: Ledger) -> None:
    context = ledger.context
    ledger.enter(Stage.PAUSE)
    with pause.found(site.pause, context.layout) as found:
        ledger.enter(Stage.SWAP)
        if found is None:
            swap.commit(plans)
            context.emit(events.no_httpd(site.name, site.pause))
            ledger.know_unpaused(events.describe_no_httpd(site.pause))
            return
        try:
            with pause.paused(found, site.pause, context.layout, swap.undo(plans), ended=ledger.know_pause):
                swap.commit(plans)
        finally:
            for warning in found.quarry.warnings:
                context.emit(events.degraded(warning, site.name))


def prune_releases(site: Site, context: Context) -> SiteState:
    """Removes what is past ``keep``, and what crashes left among the releases; returns the site's state after that.

    Under the site's lock, and not before an extraction. What cannot be removed is said, and stays.
    """
    state = records.read_state(context.layout, site.name)
    doomed = tuple(dict.fromkeys((*state.doomed, *releases_to_prune(state, site.keep))))
    try:
        if doomed:
            # No longer listed as kept before it is no longer whole; and not forgotten before it is gone.
            kept = tuple(release for release in state.previous if release not in doomed)
            state = replace(state, previous=kept, doomed=doomed)
            records.write_state(context.layout, site.name, state)
        for part in site.parts:
            try:
                prune(part, doomed)
            except* OSError as group:
                for error in group.exceptions:
                    context.emit(events.degraded(f"pruning: {error}", site.name))
        if doomed:
            state = replace(state, doomed=())
            records.write_state(context.layout, site.name, state)
            context.emit(events.pruned(site.name, doomed))
    except OSError as error:
        context.emit(events.degraded(f"pruning: {error.filename}: {error.strerror}", site.name))
    return state


def remove_leftovers(site: Site, context: Context) -> None:
    """Removes what crashes left among the releases; for whoever has nothing more urgent to do, and holds no lock."""
    lock = context.layout.site_lock(site.name)
    if has_leftovers(site):
        with contextlib.suppress(Busy, Failed), locked(lock, "a deployment"):
            prune_releases(site, context)


def _clean(site: Site, ledger: Ledger) -> None:
    try:
        swap.abandon(site, ledger.deployment.id, ledger.deployment.swaps)
    except OSError as error:
        ledger.context.emit(events.degraded(f"cleaning up: {error.filename}: {error.strerror}", site.name))


def _size_of(upload: Upload) -> int:
    """For the progress, and for nothing else: whoever owns the upload may change it."""
    try:
        return os.stat(upload.path, follow_symlinks=False).st_size
    except OSError:
        return 0


def _reporter(ledger: Ledger, stage: Stage, total: int) -> Callable[[int], None]:
    """A stage's progress in bytes, as a fraction for the status; also where a stop interrupts it."""

    def report(done: int) -> None:
        _keep_going(ledger)
        fraction = min(done / total, 1.0) if total else None
        ledger.context.progress(stage, fraction, ledger.deployment.release or "")

    return report


def _keep_going(ledger: Ledger) -> None:
    if ledger.context.is_cancelled():
        raise Interrupted(ledger.deployment.stage)

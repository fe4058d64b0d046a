"""One deployment, from an upload to a live release: the order of the stages, and what happens when one fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from swapd.adopt import settle_drift
from swapd.context import Context
from swapd.host import records
from swapd.host.apache import Force, look_at_route
from swapd.host.disks import Disks
from swapd.host.files import is_tree, locked
from swapd.host.refusals import explain
from swapd.host.routes import is_route_right
from swapd.ledger import Ledger
from swapd.model import events
from swapd.model.config import Site, Strategy
from swapd.model.errors import Failed, Interrupted, Rejected
from swapd.model.record import Deployment, SiteState
from swapd.model.release import (
    ADOPTED,
    ExtractedTree,
    KeptRelease,
    Release,
    ReleaseId,
    Stage,
    StagedRelease,
    Tarball,
    Upload,
    VerifiedTarball,
)
from swapd.model.room import NoRoom
from swapd.recover import recover
from swapd.retention import prune_releases, sweep
from swapd.stages import pause, swap
from swapd.stages.admit import admit
from swapd.stages.choose import choose
from swapd.stages.claim import claim, confirm
from swapd.stages.compare import refuse_older
from swapd.stages.extract import extract
from swapd.stages.prepare import places, prepare
from swapd.stages.prune import find_leftovers
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
            clean(site, ledger)
            return ledger.fail(error)
        except OSError as error:
            clean(site, ledger)
            return ledger.fail(explain(error, site.live.parent))


def supersede(site: Site, upload: Upload, by: ReleaseId, context: Context, patience: float = 0.0) -> Deployment:
    """The outcome of an upload that is not deployed, because one that came later is live. It stays where it is.

    Raises ``Busy`` as ``deploy`` does.
    """
    records.make_state_directories(context.layout, site.name)
    lock = context.layout.site_lock(site.name)
    with locked(lock, f"a deployment of {site.name}", patience, context.is_cancelled):
        recover(site, context)
        return Ledger.open(site, context, upload).end_superseded(by)


def _deploy(site: Site, upload: Upload, disks: Disks, ledger: Ledger) -> Deployment:
    """Claim, verify, admit, extract, prepare, pause, swap, resume, record, prune."""
    context = ledger.context
    ledger.enter(Stage.CLAIM)
    claims = str(context.layout.claims(site.name))
    report = _reporter(ledger, Stage.CLAIM, _size_of(upload))
    with claim(upload, claims, site.verify.max_tarball, report) as tarball:
        ledger.know(tarball)
        ledger.enter(Stage.VERIFY)
        verified = verify(tarball, site, lambda: keep_going(ledger))
        ledger.know_signer(verified.signer)
        ledger.begin()
        state = records.read_state(context.layout, site.name)
        if _is_unchanged(site, tarball, state):
            return ledger.end_unchanged()
        strategies = choose_strategies(site, ledger)
        state = settle_drift(site, context, state)
        ledger.enter(Stage.EXTRACT)
        disks.hold(places(site))
        extracted = _extract(verified, site, ledger)
    ledger.know_newest(extracted.newest)
    if site.verify.newer_only:
        refuse_older(extracted.newest, state.live)
    ledger.enter(Stage.PREPARE)
    staged = prepare(extracted, site, disks, lambda: keep_going(ledger))
    release = make_live(site, staged, strategies, state, ledger)
    deployment = ledger.end_live(release)
    ledger.enter(Stage.PRUNE)
    prune_releases(site, context)
    return deployment


def _admit(verified: VerifiedTarball, site: Site, context: Context) -> None:
    """Raises ``NoRoom`` when there is none, not even once what is on its way out is gone."""
    try:
        admit(verified, site)
    except NoRoom:
        sweep(site, context)
        admit(verified, site)


def choose_strategies(site: Site, ledger: Ledger) -> list[Strategy]:
    """How each live path is swapped; what auto picks goes into the journal, all of it into the record."""
    choices = [choose(part) for part in site.parts]
    names = ", ".join(dict.fromkeys(choice.strategy.value for choice in choices))
    reasons = "; ".join(dict.fromkeys(choice.reason for choice in choices))
    ledger.know_strategy(names, reasons)
    if site.strategy is Strategy.AUTO:
        ledger.context.emit(events.strategy_chosen(site.name, names, reasons))
    for doubt in filter(None, (choice.doubt for choice in choices)):
        ledger.context.emit(events.degraded(doubt, site.name))
    return [choice.strategy for choice in choices]


def _is_unchanged(site: Site, tarball: Tarball, state: SiteState) -> bool:
    """Whether these very bytes are what is live, in the trees that were put there."""
    live = state.live
    if live is None or live.digest != tarball.digest or live.release != tarball.release:
        return False
    return is_route_right(site) and all(is_tree(part.live, live.tree_at(str(part.live))) for part in site.parts)


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
        admit(verified, site, lambda: keep_going(ledger))
        return extract(verified, site, ledger.deployment.id, report)
    except NoRoom:
        clean(site, ledger)
        if not find_leftovers(site):
            raise
    prune_releases(site, ledger.context)
    sweep(site, ledger.context)
    admit(verified, site, lambda: keep_going(ledger))
    return extract(verified, site, ledger.deployment.id, report)


def make_live(
    site: Site, staged: StagedRelease | KeptRelease, strategies: Sequence[Strategy], state: SiteState, ledger: Ledger
) -> Release:
    """The release is live after this, under the intents that were written down before.

    Raises ``Failed`` or ``OSError`` where it is not; then ``clean`` is to be called.
    """
    keep_going(ledger)
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
    if plans[0].strategy is Strategy.PINNED:
        _check_route(site, ledger)
    for release in outgoing:
        if release.startswith(f"{ADOPTED}@"):
            ledger.context.emit(events.adopted(site.name, release, str(site.releases)))
    return Release(staged.release, outgoing)


def _check_route(site: Site, ledger: Ledger) -> None:
    """Asks the web server whether it serves the release now, and says so where it does not."""
    sight = look_at_route(site)
    if sight.issue is not None and sight.force is Force.NOT:
        ledger.context.emit(events.degraded(f"{sight.issue.message}. {sight.issue.hint}", site.name))
        ledger.know_unpaused(f"but {sight.issue.message}")


def _commit(site: Site, plans: Sequence[swap.Plan], ledger: Ledger) -> None:
    """The renames, under a pause where the site asks for one; raises ``Failed`` or ``OSError``."""
    if not swap.is_paused_for(site, plans):
        swap.commit(plans)
        if plans[0].strategy is Strategy.PINNED:
            ledger.know_unpaused("requests that run stay with the release that they began with")
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
                context.emit(events.degraded(f"{warning.message}. {warning.hint}", site.name))


def clean(site: Site, ledger: Ledger) -> None:
    """Removes what a deployment that did not go live left, and gives a kept tree its name back."""
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
        keep_going(ledger)
        fraction = min(done / total, 1.0) if total else None
        ledger.context.progress(stage, fraction, ledger.deployment.release or "")

    return report


def keep_going(ledger: Ledger) -> None:
    """Raises ``Interrupted`` once swapd is told to stop."""
    if ledger.context.is_cancelled():
        raise Interrupted(ledger.deployment.stage)

"""Recover: what a start does with what a crash left. It looks at the inodes, not at hopes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from swapd.answer import MAX_ATTEMPTS
from swapd.context import Context
from swapd.host import records
from swapd.host.files import is_tree, set_aside, sweep_temporaries
from swapd.host.resume import resume_leftover
from swapd.host.routes import find_kept_tree, is_route_lost, lead, sweep_maps
from swapd.ledger import Ledger
from swapd.model import events
from swapd.model.config import PauseMode, Site
from swapd.model.errors import Failed, Interrupted
from swapd.model.record import Deployment, Kind
from swapd.model.release import Outcome, Release, Stage
from swapd.rebuild import mend_records, name_orphans
from swapd.stages import swap
from swapd.stages.claim import sweep_claims
from swapd.stages.mark import sweep_markers
from swapd.stages.refresh import refresh
from swapd.strategies.exchanging import sweep_probes


def resume(context: Context) -> int:
    """Resumes what a crash left stopped, and says so; how many processes. Safe at any time.

    Raises ``Failed`` when the pause record cannot be read.
    """
    count, pauser = resume_leftover(context.layout)
    if count:
        context.emit(events.resumed_leftover(count, pauser))
    return count


def recover(site: Site, context: Context) -> None:
    """Gives every deployment that a crash cut short its outcome; under the site's lock.

    After this the live path is one complete release. One whose swap was done is live, and what was left to do is
    done; any other failed, and what is left of it is the next prune's. Does nothing, quickly, when there is nothing to
    do. Raises ``Failed`` (``cannot-recover``), and is tried again before the next deployment.
    """
    try:
        resume(context)
    except Failed as error:  # only a pause has to fail by that, and it will
        context.emit(events.degraded(f"{error.message}. {error.hint}", site.name))
    _sweep(site, context)
    with _explaining(site, "its records"):
        mend_records(site, context)
    unfinished = records.find_unfinished(context.layout, site.name)
    told = context.find_told([deployment.id for deployment in unfinished])
    for deployment in unfinished:
        ledger = Ledger(site, context, deployment)
        if deployment.id in told:
            ledger.know_told(told[deployment.id])
        with _explaining(site, f"what a crash left of deployment {deployment.id}"):
            ledger.tell_start()
            if deployment.outcome is not Outcome.PENDING:
                ledger.tell(is_latest=_is_latest(context, deployment))
            elif _was_swapped(site, deployment):
                _complete(site, ledger)
            else:
                _undo(site, ledger)
            refresh_live(site, ledger)
    with _explaining(site, "what a crash left"):
        name_orphans(site, context)
    with _explaining(site, "the route"):
        _restore_route(site, context)


@contextmanager
def _explaining(site: Site, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failed(
            "cannot-recover",
            f"{what} cannot be put right: {error.filename}: {error.strerror}",
            f"{site.live} has not been touched. Correct that; swapd tries again before the next deployment.",
        ) from error


def _sweep(site: Site, context: Context) -> None:
    """Removes the temporary files that crashes left: nobody else writes there under the site's lock."""
    layout = context.layout
    sweeps: list[Callable[[], None]] = [
        lambda: sweep_temporaries(layout.deployments(site.name)),
        lambda: sweep_temporaries(layout.site_state(site.name)),
        lambda: sweep_claims(layout.claims(site.name)),
        partial(_sweep_markers, site, context),
        *(partial(sweep_probes, part) for part in site.parts),
        lambda: sweep_maps(site),
    ]
    for sweep in sweeps:
        try:
            sweep()
        except OSError as error:
            context.emit(events.degraded(f"sweeping: {error.filename}: {error.strerror}", site.name))


def _sweep_markers(site: Site, context: Context) -> None:
    """Not before each of a crowd: it lists them all, and what a crash has just left is not old enough anyway."""
    if context.sweeping.is_over:
        with context.sweeping.earned():
            sweep_markers(site.incoming)


def _restore_route(site: Site, context: Context) -> None:
    """A map that is lost would keep httpd's next start from serving by the route: it names what is live again."""
    if is_route_lost(site):
        tree = find_kept_tree(site)
        lead(site, tree)
        message = f"{site.route.map} was lost; it names {tree or 'no release'} again"
        context.emit(events.recovered(site.name, message, None))


def _is_latest(context: Context, deployment: Deployment) -> bool:
    """Whether no upload of the same name has been taken up since."""
    others = records.read_deployments(context.layout, deployment.site)
    return all(
        item.started <= deployment.started
        for item in others
        if item.is_dropped and item.file_name == deployment.file_name
    )


def _was_swapped(site: Site, deployment: Deployment) -> bool:
    return swap.is_begun(site, deployment.swaps)


def _complete(site: Site, ledger: Ledger) -> None:
    deployment = ledger.deployment
    if deployment.release is None:
        raise AssertionError("a swap has a release")
    outgoing = swap.finish(site, deployment.swaps)
    message = f"{deployment.release} was swapped when swapd crashed; the {deployment.kind.value} has been completed"
    ledger.context.emit(events.recovered(site.name, message, deployment.release))
    # By a route alone, nobody is paused unless it is asked for.
    is_routed = all(intent.swap.route is not None for intent in deployment.swaps)
    was_paused = site.pause.mode is PauseMode.ALWAYS or (site.pause.mode is PauseMode.AUTO and not is_routed)
    reason = "" if not was_paused else "how long httpd was paused is lost in the crash"
    ledger.end_live(Release(deployment.release, outgoing), reason)


def _undo(site: Site, ledger: Ledger) -> None:
    deployment = ledger.deployment
    swap.abandon(site, deployment.id, deployment.swaps, set_aside)
    what = deployment.release or deployment.file_name
    is_rollback = deployment.kind is Kind.ROLLBACK
    rest = "it is kept as it was" if is_rollback else "what was staged is set aside, to be removed"
    message = f"{what} was not swapped when swapd crashed; {rest}"
    ledger.context.emit(events.recovered(site.name, message, deployment.release))
    command = "ask for" if is_rollback else "deploy"
    again = deployment.is_dropped and deployment.attempt < MAX_ATTEMPTS
    ledger.fail(
        Failed(
            "crashed",
            f"swapd ended without a word during this {deployment.kind.value} (attempt {deployment.attempt})",
            "The live release is untouched. "
            + (
                "The file is taken up again by itself."
                if again
                else f"See journalctl -u swapd for why; touch the file, or {command} it again, to have another try."
            ),
        )
    )


def refresh_live(site: Site, ledger: Ledger) -> None:
    """What is left of a rollback once its outcome is told: the files of the tree that is live again get new times.

    When swapd is told to stop meanwhile, the next start goes on with it. What cannot be done is said; the release is
    live all the same.
    """
    if not ledger.deployment.must_refresh:
        return
    context = ledger.context

    def keep_going() -> None:
        context.progress(Stage.REFRESH, None, ledger.deployment.release or "")
        if context.is_cancelled():
            raise Interrupted(Stage.REFRESH.value)

    ledger.enter(Stage.REFRESH)
    for part, intent in swap.match(site, ledger.deployment.swaps):
        if not is_tree(part.live, intent.swap.staged):
            continue  # something else is live by now
        try:
            refresh(part.live, part.releases / intent.outgoing if intent.outgoing else None, keep_going)
        except Interrupted:
            return
        except OSError as error:
            what = f"{error.filename or part.live}: {error.strerror}"
            context.emit(events.degraded(f"not every file of {part.live} has a new time: {what}", site.name))
    ledger.close()

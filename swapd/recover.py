"""Recover: what a start does with what a crash left. It looks at the inodes, not at hopes."""

from __future__ import annotations

from swapd.host import records
from swapd.host.files import sweep_temporaries
from swapd.host.resume import resume_leftover
from swapd.host.routes import find_kept_tree, set_route
from swapd.ledger import MAX_ATTEMPTS, Context, Ledger
from swapd.model import events
from swapd.model.config import PauseMode, Site, Strategy
from swapd.model.errors import Failed
from swapd.model.record import Deployment
from swapd.model.release import Outcome, Release
from swapd.stages import swap
from swapd.stages.mark import sweep_markers
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
    done; any other failed, and nothing of it is left. Does nothing, quickly, when there is nothing to do. Raises
    ``Failed`` (``cannot-recover``), and is tried again before the next deployment.
    """
    try:
        resume(context)
    except Failed as error:  # only a pause has to fail by that, and it will
        context.emit(events.degraded(f"{error.message}. {error.hint}", site.name))
    _sweep(site, context)
    for deployment in records.find_unfinished(context.layout, site.name):
        ledger = Ledger(site, context, deployment)
        try:
            ledger.tell_start()
            if deployment.outcome is not Outcome.PENDING:
                ledger.tell()
            elif _was_swapped(site, deployment):
                _complete(site, ledger)
            else:
                _undo(site, ledger)
        except OSError as error:
            raise Failed(
                "cannot-recover",
                f"what a crash left of deployment {deployment.id} cannot be put right: "
                f"{error.filename}: {error.strerror}",
                f"{site.live} has not been touched. Correct that; swapd tries again before the next deployment.",
            ) from error


def _sweep(site: Site, context: Context) -> None:
    """Removes the temporary files that crashes left: nobody else writes there under the site's lock."""
    try:
        sweep_temporaries(context.layout.deployments(site.name))
        sweep_temporaries(context.layout.site_state(site.name))
        sweep_markers(site.incoming)
        for part in site.parts:
            sweep_probes(part)
        _restore_route(site, context)
    except OSError as error:
        context.emit(events.degraded(f"sweeping: {error.filename}: {error.strerror}", site.name))


def _restore_route(site: Site, context: Context) -> None:
    """A map that is lost would keep httpd's next start from serving by the route: it names what is live again."""
    if site.strategy is Strategy.PINNED and site.route.apache.exists() and not site.route.map.exists():
        tree = find_kept_tree(site)
        set_route(site.route.map, site.name, tree)
        message = f"{site.route.map} was lost; it names {tree or 'no release'} again"
        context.emit(events.recovered(site.name, message, None))


def _was_swapped(site: Site, deployment: Deployment) -> bool:
    return swap.is_begun(site, deployment.swaps)


def _complete(site: Site, ledger: Ledger) -> None:
    deployment = ledger.deployment
    if deployment.release is None:
        raise AssertionError("a swap has a release")
    outgoing = swap.finish(site, deployment.swaps)
    message = f"{deployment.release} was swapped when swapd crashed; the deployment has been completed"
    ledger.context.emit(events.recovered(site.name, message, deployment.release))
    reason = "" if site.pause.mode is PauseMode.NEVER else "how long httpd was paused is lost in the crash"
    ledger.end_live(Release(deployment.release, outgoing), reason)


def _undo(site: Site, ledger: Ledger) -> None:
    deployment = ledger.deployment
    swap.abandon(site, deployment.id, deployment.swaps)
    what = deployment.release or deployment.file_name
    message = f"{what} was not swapped when swapd crashed; what was staged has been removed"
    ledger.context.emit(events.recovered(site.name, message, deployment.release))
    again = deployment.is_dropped and deployment.attempt < MAX_ATTEMPTS
    ledger.fail(
        Failed(
            "crashed",
            f"swapd ended without a word during this deployment (attempt {deployment.attempt})",
            "The live release is untouched. "
            + (
                "The tarball is taken up again by itself."
                if again
                else "See journalctl -u swapd for why; touch the tarball, or deploy it again, to have another try."
            ),
        )
    )

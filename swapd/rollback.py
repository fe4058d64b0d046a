"""One rollback: a kept release becomes live again by the same swap as a deployment, without a look into its tree."""

from __future__ import annotations

from collections.abc import Callable

from swapd.adopt import settle_drift
from swapd.context import Context
from swapd.deploy import choose_strategies, clean, keep_going, make_live
from swapd.host import records
from swapd.host.files import is_tree, locked
from swapd.host.refusals import explain
from swapd.host.routes import is_route_right
from swapd.ledger import Ledger
from swapd.model.config import Require, Site
from swapd.model.control import RollbackRequest, describe_binding, refuse_stale
from swapd.model.errors import Failed, Rejected, UsageError
from swapd.model.record import Deployment, Kind, SiteState
from swapd.model.release import Outcome, ReleaseId, Stage, Upload
from swapd.recover import recover, refresh_live
from swapd.stages.heed import heed
from swapd.stages.recall import choose_release, recall


def rollback(
    site: Site,
    asked: RollbackRequest | Upload,
    context: Context,
    patience: float = 0.0,
    told: Callable[[Deployment], object] = lambda _: None,
) -> Deployment:
    """Makes a kept release live again, or says why not: the rollback with its outcome, written everywhere.

    ``asked`` is a command's request, or a control file. The live path is a complete release at every instant, and no
    kept release is lost. ``told`` is called with the outcome; what takes as long as the tree is large comes after it.
    Raises as ``deploy`` does, and ``UsageError`` where a command's request names no kept release.
    """
    request = RollbackRequest(upload=asked) if isinstance(asked, Upload) else asked
    records.make_state_directories(context.layout, site.name)
    lock = context.layout.site_lock(site.name)
    with locked(lock, f"a deployment of {site.name}", patience, context.is_cancelled):
        recover(site, context)
        # A command is recorded under the name of the control file that would ask for the same.
        upload = request.upload or Upload(site.incoming, request.name, is_dropped=False)
        ledger = Ledger.open(site, context, upload, Kind.ROLLBACK)
        try:
            deployment = _roll_back(site, request, ledger)
        except (Rejected, Failed) as error:
            clean(site, ledger)
            deployment = ledger.fail(error)
        except OSError as error:
            clean(site, ledger)
            deployment = ledger.fail(explain(error, site.live.parent))
        told(deployment)
        refresh_live(site, ledger)
        return ledger.deployment


def _roll_back(site: Site, request: RollbackRequest, ledger: Ledger) -> Deployment:
    """Heed, recall, pause, swap, resume, record."""
    context = ledger.context
    ledger.enter(Stage.VERIFY)
    if request.upload is not None:
        request = heed(request.upload, site)
        ledger.know_request(request)
    state = settle_drift(site, context, records.read_state(context.layout, site.name))
    release = _choose(request, site, state)
    ledger.know_target(release, state)
    if request.upload is not None:
        _refuse_stale(site, request, state, release, context)
    ledger.begin()
    if _is_live(site, release, state):
        return ledger.end_unchanged()
    kept = recall(release, site)
    strategies = choose_strategies(site, ledger)
    keep_going(ledger)
    return ledger.end_live(make_live(site, kept, strategies, state, ledger))


def _choose(request: RollbackRequest, site: Site, state: SiteState) -> ReleaseId:
    """Which release is meant; a command that names none is a mistake on the command line, and no rollback."""
    try:
        return choose_release(request, site, state)
    except Rejected as error:
        if request.upload is None:
            raise UsageError(error.problem, error.message, error.hint) from error
        raise


def _refuse_stale(site: Site, request: RollbackRequest, state: SiteState, release: ReleaseId, context: Context) -> None:
    """``Rejected`` where a control file was made for another state of the site, or was obeyed once already."""
    live = state.live.release if state.live else None
    refuse_stale(request, live, release, must_be_bound=site.verify.require is Require.SIGNATURE)
    if request.signed is None:
        return
    for item in records.read_deployments(context.layout, site.name, request.signed):
        if item.signed == request.signed and item.outcome is Outcome.LIVE:
            raise Rejected.because(
                "replayed",
                f"this very request was obeyed at {item.started:%Y-%m-%d %H:%M:%S UTC}, and a signature is good once",
                describe_binding(request, live, release, f"# again, not as on {item.started:%Y-%m-%d}"),
            )


def _is_live(site: Site, release: ReleaseId, state: SiteState) -> bool:
    live = state.live
    if live is None or live.release != release:
        return False
    return is_route_right(site) and all(is_tree(part.live, live.tree_at(str(part.live))) for part in site.parts)

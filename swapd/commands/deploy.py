"""``swapd deploy``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from swapd.commands.documents import describe_deployment, print_document
from swapd.context import Context
from swapd.deploy import deploy
from swapd.host.configuration import read_site
from swapd.host.eventlog import EventLog
from swapd.host.progress import ProgressFile
from swapd.host.users import find_operator
from swapd.model.config import Site
from swapd.model.errors import ExitStatus, Failed, NotComplete
from swapd.model.events import Event
from swapd.model.layout import Layout
from swapd.model.record import Deployment, Kind
from swapd.model.release import Outcome, SiteName, Stage, Upload, printable, recorded_name
from swapd.retention import sweep
from swapd.stages.arrive import scan
from swapd.stages.mark import announce

LONGEST = 10_000  # characters of a reason, which may have a name from outside in it
STATUSES = {
    Outcome.LIVE: ExitStatus.DONE,
    Outcome.UNCHANGED: ExitStatus.DONE,
    Outcome.REJECTED: ExitStatus.REJECTED,
    Outcome.FAILED: ExitStatus.FAILED,
    Outcome.ROLLED_BACK: ExitStatus.ROLLED_BACK,
}


@click.command
@click.argument("site")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--wait", "patience", default=0.0, metavar="SECONDS", help="Wait so long for a deployment under way.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def command(layout: Layout, site: str, file: Path, patience: float, as_json: bool) -> int:
    """Deploy FILE to SITE now, without the daemon.

    FILE stays where it is, unless it lies in the site's drop directory. Ends with 3 when the tarball was rejected, 1
    when this host could not deploy it, 5 when another deployment of the site is under way.
    """
    configured = read_site(layout, site)
    upload = _upload(configured, file)
    log = EventLog(layout)
    try:
        with cancellable() as cancelled:
            name = recorded_name(upload.file_name)
            with showing(not as_json) as show, publishing(layout, configured.name, name, show) as progress:
                # Below --root the log is this very terminal, which gets the outcome anyhow.
                emit = log.emit if layout.is_host else discard
                context = Context(layout, emit, progress, lambda: bool(cancelled), find_operator(), log.find_told)
                deployment = deploy(configured, upload, context, patience)
            with suppress(OSError):
                announce(configured.incoming)
            print_outcome(deployment, as_json)
            sys.stdout.flush()  # the removal of old releases may take a while; who breaks it off has his outcome
            sweep(configured, context)
    except NotComplete as error:
        raise Failed(error.problem, error.message, error.hint) from error
    return STATUSES[deployment.outcome]


def discard(_: Event) -> None:
    """No record."""


def _upload(site: Site, file: Path) -> Upload:
    if not file.exists():
        raise Failed("no-such-file", f"there is no file {printable(str(file))}")
    directory = file.parent.resolve()
    is_dropped = site.incoming.exists() and directory.samefile(site.incoming)
    seen = next((item for item in scan(directory) if item.name == file.name), None) if is_dropped else None
    return Upload(directory, file.name, is_dropped, sidecars=seen.sidecars if seen else ())


@contextmanager
def cancellable() -> Iterator[list[int]]:
    """SIGINT and SIGTERM end the deployment at its next step, and never in the middle of the swap."""
    cancelled: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    old = [signal.signal(number, lambda n, _: cancelled.append(n)) for number in numbers]
    try:
        yield cancelled
    finally:
        for number, handler in zip(numbers, old, strict=True):
            signal.signal(number, handler)


def show_nothing(stage: Stage, fraction: float | None, release: str) -> None:
    """No progress, for a pipe."""


Show = Callable[[Stage, float | None, str], None]


class Bar:
    """A progress bar for a terminal, as wide as that lets it be."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        # No refreshing thread: a guardian is forked during the deployment, and a fork copies locks but no threads.
        columns = (
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[share]:>4}"),
        )
        self.progress = Progress(*columns, TimeElapsedColumn(), auto_refresh=False, transient=True, expand=True)
        self._task = self.progress.add_task("", share="")

    def __call__(self, stage: Stage, fraction: float | None, release: str) -> None:
        """Shows it, and for how long the deployment has gone on."""
        del release
        share = "" if fraction is None else f"{fraction:.0%}"
        completed = (fraction or 0.0) * 100
        self.progress.update(self._task, description=stage.value, completed=completed, share=share)
        self.progress.refresh()


@contextmanager
def showing(is_wanted: bool) -> Iterator[Show]:
    """What shows the progress to people: a bar on a terminal, nothing elsewhere."""
    if not is_wanted or not sys.stdout.isatty():
        yield show_nothing
        return
    bar = Bar()
    with bar.progress:
        yield bar


@contextmanager
def publishing(layout: Layout, site: SiteName, file_name: str, show: Show) -> Iterator[Show]:
    """What shows the progress to whoever follows the site, too."""
    public = ProgressFile(layout, site)

    def show_both(stage: Stage, fraction: float | None, release: str) -> None:
        public.show(file_name, stage, fraction, release)
        show(stage, fraction, release)

    try:
        yield show_both
    finally:
        public.remove()


def print_outcome(deployment: Deployment, as_json: bool) -> None:
    """What became of it, for people or programs."""
    if as_json:
        print_document(describe_deployment(deployment))
        return
    what = deployment.release or deployment.file_name
    reason, hint = printable(deployment.reason, LONGEST), printable(deployment.hint, LONGEST)
    is_rollback = deployment.kind is Kind.ROLLBACK
    if deployment.outcome is Outcome.LIVE:
        click.echo(f"{deployment.site}: {what} is live{' again' if is_rollback else ''}; {reason}")
    elif deployment.is_superseded:
        click.echo(f"{deployment.site}: {what} was not deployed: {reason}. {hint}")
    elif deployment.outcome is Outcome.UNCHANGED:
        click.echo(f"{deployment.site}: {what} is live already; nothing was touched")
    else:
        what = f"the rollback to {deployment.release}" if is_rollback and deployment.release else what
        click.echo(f"{deployment.site}: {what} {deployment.outcome.value}: {reason}", err=True)
        click.echo(hint, err=True)

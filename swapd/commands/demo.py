"""``swapd demo``: everything that swapd does, in a scratch directory, without root."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from swapd.demo.httpd import server_user
from swapd.demo.play import (
    WORKERS,
    WebServer,
    check_served,
    daemon,
    drop,
    own_process_name,
    print_command,
    wait_for_outcome,
    web_server,
)
from swapd.demo.site import BY_HAND, FIRST, SECOND, Edition, write_site
from swapd.model.config import Site
from swapd.model.errors import Failed, SwapdError, UsageError
from swapd.model.layout import Layout
from swapd.packing.sources import directory_source
from swapd.packing.tarball import Packed, pack
from swapd.setup.site import make_site

SITE = "shop"
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Stage:
    """The scratch directory with all that the demo needs in it, before anything runs."""

    layout: Layout
    site: Site
    first: Packed
    second: Packed

    @property
    def directory(self) -> Path:
        return self.layout.root

    @property
    def process_name(self) -> str:
        return self.site.pause.processes[0]


@click.command("demo")
@click.option("--once", is_flag=True, help="Deploy two releases, show status, history and log, and end.")
@click.option(
    "--directory",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where: an empty directory, or none yet. It is kept. [default: a temporary one]",
)
def command(once: bool, directory: Path | None) -> None:
    """A site, a web server whose processes are called httpd, and the daemon, in a scratch directory.

    Needs no root. Deploys a first release and shows the line that deploys the next one; then follows the daemon's log
    until Ctrl-C.
    """
    with ended_by_signals():
        # The umask of the files that are served: as root, the web server is somebody who owns none of them.
        os.umask(0o022)
        scratch = make_directory(directory)
        user = server_user()
        with own_process_name(user) as name:
            stage = build(scratch, name, user)
            if once:
                play_once(stage)
            else:
                play(stage)
        if once and directory is None:
            shutil.rmtree(scratch)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal end the body, once: what it cleans up then is not broken into again.

    A signal that whoever started us has us ignore (nohup, or a shell's background) stays ignored.
    """

    def end(*_: object) -> None:
        for number in ENDINGS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in ENDINGS}
    for number in ENDINGS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    except KeyboardInterrupt:
        raise click.Abort from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_directory(directory: Path | None) -> Path:
    """The demo's directory, empty. ``UsageError`` where somebody else's things are in it."""
    if directory is None:
        made = Path(tempfile.mkdtemp(prefix="swapd-demo-"))
        made.chmod(0o755)  # mkdtemp's 0700 would keep the web server out, which as root is somebody else
        return made
    directory = Path(os.path.abspath(directory))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        is_empty = not os.listdir(directory)
    except OSError as error:
        raise UsageError("bad-directory", f"{directory}: {error.strerror}", "Name an empty directory.") from error
    if not is_empty:
        raise UsageError("directory-not-empty", f"{directory} is not empty", "Name an empty directory, or a new one.")
    return directory


def build(directory: Path, process_name: str, user: str) -> Stage:
    """A site that was filled by hand, its configuration, and two releases of it in tarballs.

    A pause will stop the processes of this name and user, and no others.
    """
    layout = Layout(directory)
    live = directory / "www" / SITE
    write_site(BY_HAND, live)
    pause = {"processes": [process_name], "user": user}
    site, _ = make_site(layout, SITE, {"live": str(live), "pause": pause})
    return Stage(layout, site, _packed(FIRST, directory), _packed(SECOND, directory))


def _packed(edition: Edition, directory: Path) -> Packed:
    write_site(edition, directory / edition.name)
    return pack(directory_source(directory / edition.name), directory / f"{edition.name}.tar.gz")


def play(stage: Stage) -> None:
    """Deploys the first release, says how to deploy the next, and lets the daemon's log be seen until Ctrl-C."""
    try:
        with web_server(stage.site.live, stage.process_name) as server, daemon(stage.layout, None) as running:
            introduce(stage, server)
            drop(stage.first, stage.site.incoming)
            wait_for_outcome(stage.site.incoming, stage.first.tarball.name, running)
            check_served(server, FIRST)
            explain(stage, server)
            running.wait()
            raise Failed("demo-daemon-ended", f"the daemon ended with status {running.returncode}")
    except KeyboardInterrupt:
        click.echo(f"\nEverything has stopped. What it left is in {stage.directory}; remove it when you like.")


def play_once(stage: Stage) -> None:
    """Deploys both releases, sees each of them served, and shows what swapd says. Raises ``Failed``."""
    log = stage.directory / "swapd.log"
    try:
        with (
            open(log, "wb") as file,
            web_server(stage.site.live, stage.process_name) as server,
            daemon(stage.layout, file) as running,
        ):
            introduce(stage, server)
            check_served(server, BY_HAND)
            for edition, packed in ((FIRST, stage.first), (SECOND, stage.second)):
                drop(packed, stage.site.incoming)
                wait_for_outcome(stage.site.incoming, packed.tarball.name, running)
                count = check_served(server, edition)
                click.echo(f"{edition.name} is live: {count} files served, byte for byte")
            for words in (["status"], ["history", SITE]):
                click.secho(f"\n$ swapd {' '.join(words)}", bold=True)
                print_command(stage.layout, *words)
        for name, process in (("web server", server.process), ("daemon", running)):
            if process.returncode != 0:
                raise Failed("demo-bad-end", f"the {name} ended with status {process.returncode}")
    except SwapdError as error:
        click.echo(f"\nThe daemon's log:\n{log.read_text(errors='replace')}", err=True)
        error.hint = f"{error.hint} Everything is still in {stage.directory}.".strip()
        raise
    click.secho("\nThe daemon's log", bold=True)
    click.echo(log.read_text(errors="replace"), nl=False)


def introduce(stage: Stage, server: WebServer) -> None:
    """Says what runs, and where."""
    click.echo(f"the demo's directory:  {stage.directory}")
    click.echo(f"the web server:        {server.url} ({1 + WORKERS} processes called {stage.process_name})")
    click.echo(f"the live path:         {stage.site.live}")
    click.echo(f"the drop directory:    {stage.site.incoming}\n")


def own_command_line() -> list[str]:
    """How this very swapd is called, from wherever another terminal is."""
    program = os.path.abspath(sys.argv[0])
    return [sys.executable, "-m", "swapd"] if program.endswith("__main__.py") else [program]


def explain(stage: Stage, server: WebServer) -> None:
    """Says what to do now."""
    incoming = f"{shlex.quote(str(stage.site.incoming))}/"
    # As this one was called: it may be a checkout's, and not in the PATH.
    swapd = "swapd" if shutil.which("swapd") else shlex.join(own_command_line())
    source = shlex.quote(str(stage.directory / SECOND.name))
    steps = {
        "Open": server.url,
        "drop the next release, and watch the page": f"cp {shlex.quote(str(stage.second.tarball))} {incoming}",
        "change that release, and drop one of your own": f"{swapd} pack {source} --output {incoming}",
        "ask what is live": f"{swapd} --root {shlex.quote(str(stage.directory))} status",
    }
    click.echo()
    for what, line in steps.items():
        click.echo(f"{what}:\n  {click.style(line, bold=True)}\n")
    click.echo("Ctrl-C stops everything. Till then, the daemon's log:\n")

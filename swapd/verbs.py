"""The verbs of the command line: each is a file in ``commands``, imported when it is asked for."""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path

import click

from swapd import __version__
from swapd.host.linux import settle_process
from swapd.model.errors import ExitStatus, SwapdError
from swapd.model.layout import Layout
from swapd.model.text import LONGEST, printable

# In the order in which somebody new meets them; click imports none of them for an overview.
VERBS = {
    "init": "Configure a site and make its directories.",
    "check": "Validate the configuration and this host.",
    "deploy": "Deploy a tarball now.",
    "follow": "Show a deployment as it goes; its outcome is the exit status.",
    "rollback": "Make a kept release live again.",
    "status": "What is live, under way, waiting, and what went wrong last.",
    "history": "The deployments, newest first.",
    "prune": "Remove the releases past keep.",
    "pin": "Keep a release whatever keep says.",
    "unpin": "Let a pinned release go in its time.",
    "pack": "Write a tarball with its digest.",
    "resume": "Resume whatever swapd stopped; safe at any time.",
    "demo": "A site, a web server and the daemon in a scratch directory.",
    "run": "The daemon: what the systemd unit starts.",
}


class _Verbs(click.Group):
    """Imports a command's module only when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"swapd.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.command(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Manual pages: swapd(8), swapd.toml(5), and swapd-release(7) for who drops tarballs.",
)
@click.version_option(__version__, "--version", prog_name="swapd")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    metavar="DIR",
    help="Put every default path (/etc/swapd, /var/lib/swapd, …) below this directory.",
)
@click.pass_context
def swapd(context: click.Context, root: Path) -> None:
    """Deploys sites behind Apache httpd from dropped release tarballs."""
    context.obj = Layout(root.absolute())


def _show(error: click.ClickException) -> None:
    """As click does, for a terminal that is to obey nothing of what was on the command line."""
    text = io.StringIO()
    error.show(text)
    for line in text.getvalue().splitlines():
        click.echo(printable(line, LONGEST), err=True)


def run() -> int:
    """Runs the command that the command line asks for; its exit status."""
    settle_process()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal has no character for ends no command
    status: int | None
    try:
        status = swapd(standalone_mode=False)
    except click.exceptions.Exit as end:
        status = end.exit_code
    except click.Abort:
        status = ExitStatus.FAILED
    except click.ClickException as error:
        _show(error)
        status = ExitStatus.USAGE if isinstance(error, click.UsageError) else ExitStatus.FAILED
    except SwapdError as error:
        print(f"swapd: {error.message}", file=sys.stderr)
        if error.hint:
            print(error.hint, file=sys.stderr)
        status = error.exit_status
    except PermissionError as error:
        print(f"swapd: {printable(str(error.filename))}: {error.strerror}; are you root?", file=sys.stderr)
        status = ExitStatus.FAILED
    return status or ExitStatus.DONE

"""Sites to test with, as values and below a scratch root."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from swapd.context import Context
from swapd.deploy import deploy
from swapd.host import records
from swapd.host.configuration import read_site
from swapd.model.config import Site
from swapd.model.config_parser import parse_document
from swapd.model.layout import Layout
from swapd.model.record import Deployment, SiteState
from swapd.model.release import MARKER_SUFFIXES, Outcome, Upload
from tests.support.daemon import WATCHDOG_SECONDS, Daemon
from tests.support.documents import check_document
from tests.support.httpd import PROJECT, name_of, state_of, unique_name
from tests.support.waiting import PATIENCE, wait_until

HASTY = """
from swapd import cli, lookout
from swapd.host import reach, watcher
from swapd.stages import arrive
lookout.RESCAN, watcher.PATIENCE, reach.PATIENCE, arrive.PATIENCE = 1.0, 1.0, 0.3, 1.0
cli.main()
"""

_numbers = itertools.count(1)


def make_site(root: Path, name: str = "shop", **keys: Any) -> Site:
    """A site as configured, below ``root``; nothing is written. Nothing is paused unless a test names processes."""
    document: dict[str, Any] = {"live": str(root / "www" / name), **keys}
    document.setdefault("pause", {"mode": "never"})
    return parse_document(name, document, Layout(root))


def prepare_route(layout: Layout, name: str = "shop") -> None:
    """What ``swapd init --strategy pinned`` writes, as far as it counts where there is no web server to ask."""
    route = layout.route(name)
    for path in (route.apache, route.map):
        path.parent.mkdir(parents=True, exist_ok=True)
    route.apache.touch()


def make_directories(site: Site, layout: Layout) -> Site:
    """The site's directories, without its live path."""
    records.make_state_directories(layout, site.name)
    for path in (site.live.parent, site.releases, site.incoming):
        path.mkdir(parents=True, exist_ok=True)
    return site


def environment(**more: str) -> dict[str, str]:
    """For child processes that run the code under test; nothing of our own service manager.

    They may keep what Python compiles: it is most of what a start of theirs costs.
    """
    others = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "PYTHONDONTWRITEBYTECODE")
    inherited = {key: value for key, value in os.environ.items() if key not in others}
    path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    return {**inherited, "PYTHONPATH": path, **more}


class Scratch:
    """A whole swapd below a directory of its own: configuration, commands, the daemon and what they leave.

    Where a method takes a site, it is ``site``, by default the one called shop.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.site = "shop"
        self.layout = Layout(root)
        self.www = root / "www"
        self.daemons: list[Daemon] = []
        self.www.mkdir(parents=True)

    def plot(self, **keys: Any) -> Scratch:
        """The same with another site, which the daemon has from now on: for tests that can share one daemon."""
        plot = copy.copy(self)
        plot.site = f"site{next(_numbers)}"
        plot.add_site(plot.site, **keys)
        self.daemon.reload()
        return plot

    @property
    def incoming(self) -> Path:
        return self.layout.spool / self.site

    @property
    def daemon(self) -> Daemon:
        """The one that was started last."""
        return self.daemons[-1]

    def add_site(self, name: str = "", httpd: str = "", settle: str = "100ms", **keys: Any) -> Path:
        """Configures a site and makes its drop directory, which is returned.

        ``httpd`` is the name of the processes to pause. By default it is one that nobody has: no test may stop the
        web servers of the machine that it runs on.
        """
        self.configure(name, httpd, settle, **keys)
        incoming = self.layout.spool / (name or self.site)
        incoming.mkdir(parents=True, exist_ok=True)
        return incoming

    def configure(self, name: str = "", httpd: str = "", settle: str = "100ms", **keys: Any) -> Path:
        """Writes the site's file."""
        name = name or self.site
        document = {"live": str(self.live(name)), **keys}
        document["verify"] = {"settle": settle, **keys.get("verify", {})}
        document["pause"] = {"processes": [httpd or unique_name()], **keys.get("pause", {})}
        path = self.layout.site_file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(tomli_w.dumps(document))
        if keys.get("strategy") == "pinned":
            prepare_route(self.layout, name)
        return path

    def live(self, name: str = "") -> Path:
        return self.www / (name or self.site)

    def releases(self, name: str = "") -> Path:
        return self.www / f"{name or self.site}.releases"

    def run(self, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """A command, to its end."""
        return subprocess.run(
            self.command_line(*arguments),
            capture_output=True,
            text=True,
            env=environment(**more),
            timeout=PATIENCE,
            cwd=self.root,
        )

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """A command, under way."""
        return subprocess.Popen(
            self.command_line(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            cwd=self.root,
        )

    def command_line(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "swapd", "--root", str(self.root), *map(str, arguments)]

    def json(self, *arguments: str | Path, status: int = 0) -> Any:
        """What the command prints with ``--json``, as the schema has it; its exit status is ``status``."""
        done = self.run(*arguments, "--json")
        assert done.returncode == status, done
        return check_document(str(arguments[0]), json.loads(done.stdout))

    def deploy(self, *tarballs: Path) -> None:
        """Makes them live one after the other, in this process: for tests that begin with several releases."""
        site = read_site(self.layout, self.site)
        for tarball in tarballs:
            context = Context(self.layout, lambda _: None, lambda *_: None)
            deployment = deploy(site, Upload(tarball.parent, tarball.name, False), context)
            assert deployment.outcome is Outcome.LIVE, deployment

    def start_daemon(
        self, watchdog: float = WATCHDOG_SECONDS, command_line: Sequence[str | Path] | None = None
    ) -> Daemon:
        """The daemon, ready; perhaps by another command line than usual."""
        command = [*map(str, command_line or self.command_line("run"))]
        daemon = Daemon(command, environment(), self.root / "daemon.log", watchdog)
        self.daemons.append(daemon)
        daemon.wait_ready()
        return daemon

    def start_hasty_daemon(self) -> Daemon:
        """One that rescans each second, and waits less for what does not answer or cannot be done yet."""
        return self.start_daemon(command_line=[sys.executable, "-c", HASTY, *self.command_line("run")[3:]])

    def deployments(self, site: str = "") -> list[Deployment]:
        """The site's records, newest first."""
        return records.read_deployments(self.layout, parse_site_name(site or self.site))

    def state(self, site: str = "") -> SiteState:
        return records.read_state(self.layout, parse_site_name(site or self.site))

    def markers(self, site: str = "") -> dict[str, dict[str, Any]]:
        """Every marker in the drop directory, by its name."""
        return read_markers(self.layout.spool / (site or self.site))

    def wait_marker(self, name: str, site: str = "") -> dict[str, Any]:
        """The marker of this name, once it is there."""
        found: dict[str, Any] = wait_until(
            lambda: self.markers(site).get(name), f"the marker {name}; there: {self.markers(site)}"
        )
        return found

    def wait_live(self, release: str, site: str = "") -> None:
        """Until the release's deployment has ended."""

        def is_live() -> bool:
            live = self.state(site).live
            return live is not None and live.release == release and not self.pending(site)

        wait_until(is_live, f"{release} to be live; there: {[d.release for d in self.deployments(site)]}")

    def hold_worker(self, daemon: Daemon, site: str = "") -> int:
        """Stops the worker of a deployment that is under way, in the middle of the extraction; its pid.

        Whatever the test does then happens for certain before the deployment's end.
        """

        def hold() -> int:
            if not any(self.releases(site).glob(".staging-*/*")):
                return 0
            (worker,) = (pid for pid in daemon.workers() if name_of(pid) == f"swapd {site or self.site}")
            os.kill(worker, signal.SIGSTOP)
            wait_until(lambda: state_of(worker) in "TX", "the worker to stop")
            assert self.live(site).exists() is False or self.pending(site), "it was too quick"
            return worker

        return wait_until(hold, f"the extraction for {site}")

    def files_in_staging(self, site: str = "") -> int:
        """How much of a tarball whose files are in ``data/N/`` is extracted by now."""
        count = 0
        for path in self.releases(site).glob(".staging-*/data/*"):
            with contextlib.suppress(FileNotFoundError):
                count += len(os.listdir(path))
        return count

    def pending(self, site: str = "") -> list[Deployment]:
        return [item for item in self.deployments(site) if item.ended is None]


def parse_site_name(name: str) -> Any:
    """As the typed interfaces want it."""
    return name


def read_markers(incoming: Path) -> dict[str, dict[str, Any]]:
    """Every marker in a drop directory, by its name."""
    markers = {}
    for path in incoming.iterdir():
        if path.name.endswith(MARKER_SUFFIXES) and not path.name.startswith("."):
            try:
                markers[path.name] = tomllib.loads(path.read_text())
            except FileNotFoundError:
                continue
    return markers


def leftovers(directory: Path, prefixes: Sequence[str] = (".",)) -> list[str]:
    """What stands in a directory under a name that only a deployment under way may use."""
    return sorted(name for name in os.listdir(directory) if name.startswith(tuple(prefixes)))

"""A host whose swapd is killed again and again: three sites, one for each strategy, and what must hold after each kill.

The unit is the package's, in its own sandbox, started again without the shipped delay. Its workers ask at which step to
wait (``tests.crash.held``); where nobody tells them to, they are the real ones.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from swapd.host.watcher import NAME
from swapd.model.release import OWN
from swapd.strategies.exchanging import PROBE
from tests.host import journal
from tests.host.conftest import Expected
from tests.host.hook import Hook
from tests.host.looks import unit_pids
from tests.host.machine import booted, wait_until
from tests.host.package import CHECKOUT
from tests.host.releases import MARK, mark_text
from tests.host.stops import Stops, stopped
from tests.host.webhost import Site, WebHost
from tests.support.httpd import name_of, parent_of, state_of
from tests.support.sites import leftovers
from tests.support.tarballs import pack, site_content, touch, write_sidecar
from tests.support.trees import texts, write_tree

STRATEGIES = ("exchange", "symlink", "rename")  # each has a site of its name
MAX = 1.0  # seconds; the longest pause, as it is by default
GUARDED = 0.1  # seconds past it within which everything runs again
# Given up after so many kills in a row; and the guardian was killed before it stood by, so that nothing was stopped.
FORGIVEN = ("crashed", "no-guardian", "extractor-killed")


# What slows nothing but the tests down, and would have systemd give up a unit that is killed every second.
UNIT = """
[Unit]
StartLimitIntervalSec=0
[Service]
RestartSec=50ms
"""
TESTS = "/opt/swapd-tests"  # on the host
SOCKET = "/run/swapd-tests.sock"
HOOKED = f"""
Environment=PYTHONPATH={TESTS}
ExecStart=
ExecStart=/usr/bin/python3 -P -m tests.crash.daemon / tests.crash.held {SOCKET}
"""
DROP_IN = "/etc/systemd/system/swapd.service.d/tests.conf"


def release_content(name: str) -> dict[str, str]:
    """A small site whose every file bears its name."""
    return {**site_content(name), MARK: mark_text(name)}


@dataclass(slots=True)
class Field:
    """The host, and which release each site has."""

    web: WebHost
    stops: Stops
    sites: dict[str, Site]
    hook: Hook
    content: dict[str, dict[str, str]] = field(default_factory=dict)  # of each site's live release
    known: dict[str, dict[str, str]] = field(default_factory=dict)  # of every release there was, by its mark
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def new_release(self, strategy: str) -> tuple[Path, dict[str, str]]:
        """A tarball that is not dropped yet, and what is in it."""
        name = f"{strategy}-{next(self._numbers)}"
        content = self.known[name] = release_content(name)
        tarball = self.web.host.path(f"/root/{name}.tar.gz")
        tarball.write_bytes(pack(content, tarball.name))
        return tarball, content

    def drop(self, strategy: str, tarball: Path) -> Path:
        """Into the site's drop directory, with its digest, so that it is taken up at once."""
        dropped = self.sites[strategy].dropped(tarball.name)
        temporary = dropped.with_name(f".{dropped.name}")
        temporary.write_bytes(tarball.read_bytes())
        write_sidecar(tarball).rename(dropped.with_name(f"{dropped.name}.sha256"))
        temporary.rename(dropped)
        tarball.unlink()
        return dropped

    def deploy(self, strategy: str) -> None:
        """A deployment that nothing befalls."""
        tarball, content = self.new_release(strategy)
        self.wait_live(strategy, self.drop(strategy, tarball), content)
        self.check_tidy(strategy)

    def live_texts(self, strategy: str) -> dict[str, str]:
        """What the live path holds at one instant: a swap meanwhile leaves the opened tree as it is."""
        descriptor = os.open(self.sites[strategy].tree(), os.O_RDONLY | os.O_DIRECTORY)
        try:
            return texts(Path(f"/proc/self/fd/{descriptor}"))
        finally:
            os.close(descriptor)

    def check_whole(self, strategy: str, new: dict[str, str]) -> None:
        """The live path is the old or the new release, byte for byte."""
        try:
            found = self.live_texts(strategy)
        except FileNotFoundError:
            # Between two renames there is none, and for that instant nothing of httpd runs.
            wait_until(lambda: not self.stops.is_anything_stopped(), "httpd runs", deadline=2 * MAX)
            found = self.live_texts(strategy)
        assert found in (self.content[strategy], new), found

    def problem_of(self, dropped: Path) -> str:
        """Why the upload failed; empty when it did not, or not yet."""
        with contextlib.suppress(FileNotFoundError):
            return str(tomllib.loads(dropped.with_name(f"{dropped.name}.failed").read_text())["problem"])
        return ""

    def is_live(self, dropped: Path) -> bool:
        """Whether the upload has made room for its marker."""
        gone = dropped, dropped.with_name(f"{dropped.name}.sha256")
        return dropped.with_name(f"{dropped.name}.live").exists() and not any(path.exists() for path in gone)

    def wait_ended(self, dropped: Path) -> str:
        """Until the upload is live or has failed; the problem."""
        is_it = lambda: self.is_live(dropped) or bool(self.problem_of(dropped))  # noqa: E731
        wait_until(is_it, f"an outcome of {dropped.name}", explain=self.describe)
        return self.problem_of(dropped)

    def wait_live(self, strategy: str, dropped: Path, content: dict[str, str], forgiven: tuple[str, ...] = ()) -> None:
        """Until the upload is live, whole. One that failed by a forgiven problem is touched once, for another try."""
        if problem := self.wait_ended(dropped):
            assert problem in forgiven, f"failed: {problem}"
            touch(dropped)
            wait_until(lambda: self.is_live(dropped), f"{dropped.name} is live after all", explain=self.describe)
        assert self.live_texts(strategy) == content
        self.content[strategy] = content

    def check_tidy(self, strategy: str) -> None:
        """All that is left of the deployment is its release: the daemon is alone, and waits."""
        wait_until(
            lambda: not self._untidy(strategy), "all is tidy", deadline=10, explain=lambda: self._explain(strategy)
        )

    def _explain(self, strategy: str) -> str:
        return f"{self._untidy(strategy)}\n{self.describe()}"

    def _untidy(self, strategy: str) -> list[str]:
        host, site = self.web.host, self.sites[strategy]
        pids = [pid for pid in unit_pids(host, "swapd") if name_of(pid) != f"swapd {NAME}"]
        # What others may be at work on goes once it is old.
        hidden = leftovers(host.path(site.releases)) + leftovers(host.path(site.incoming))
        return [
            *(
                []
                if [self.is_daemon(pid) for pid in pids] == [True]
                else [f"running: {list(map(_command_line, pids))}"]
            ),
            *(name for name in hidden if not name.startswith((OWN, PROBE))),
            *leftovers(host.path("/run/swapd"), ("pause.toml", ".")),
            *os.listdir(host.path(f"/var/lib/swapd/{strategy}/claims")),
            *(f"stopped: {pid}" for pid in stopped(host)),
        ]

    def master(self) -> int:
        """Apache's master: the process of the unit whose parent is none of them. 0 while there is none."""
        pids = unit_pids(self.web.host, "apache2")
        return next((pid for pid in pids if parent_of(pid) not in pids), 0)

    @staticmethod
    def is_daemon(pid: int) -> bool:
        # What it has forked has its command line, and a name of its own.
        return "tests.crash.daemon" in _command_line(pid) and not name_of(pid).startswith("swapd ")

    def continue_all(self) -> None:
        """Continues what a test has stopped of swapd's own, and is still there."""
        for pid in unit_pids(self.web.host, "swapd"):
            if state_of(pid) == "T":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def kill_cgroup(self) -> None:
        """As the kernel does with memory.oom.group: everything of the unit at once."""
        with contextlib.suppress(FileNotFoundError):  # of a unit that just ended by itself
            self.web.host.path("/sys/fs/cgroup/system.slice/swapd.service/cgroup.kill").write_text("1")

    def mend(self) -> bool:
        """After a case that failed: whether the next one can be played."""
        self.continue_all()
        for pid in stopped(self.web.host):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        try:
            for strategy in STRATEGIES:
                self.check_tidy(strategy)
                self.deploy(strategy)
        except (AssertionError, OSError):
            return False
        return True

    def describe(self) -> str:
        shown = [
            f"{pid} {state_of(pid)} {name_of(pid)}: {_command_line(pid)}" for pid in unit_pids(self.web.host, "swapd")
        ]
        return "\n".join([*shown, self.web.describe()])

    def _story(self, deployment: str, found: list[journal.Record]) -> str:
        """What there is about a deployment: the journal's records, and its own."""
        told = [journal.describe(record) for record in journal.of_deployment(found, deployment)]
        paths = self.web.host.path("/var/lib/swapd").glob(f"*/deployments/{deployment}.toml")
        return "\n".join([deployment, *told, *(path.read_text() for path in paths)])

    def check_stops(self, limit: float = MAX + GUARDED) -> tuple[float, float]:
        """No process of httpd's was stopped for longer; how long at most, and by how much the looks were late.

        Where a ``swapd resume`` that has nothing to do takes a third of that, so many want the processor that nothing
        can be said of the one that had.
        """
        longest, late = self.stops.longest, self.stops.late
        if longest > limit + 2 * late:
            began = time.monotonic()
            self.web.run("swapd", "resume")
            limit = max(limit, 3 * (time.monotonic() - began))
        assert longest <= limit + 2 * late, f"stopped for {longest:.3f} s, looked at up to {late:.3f} s late"
        return longest, late

    def check_told(self, mark: int, expected: Expected) -> None:
        """Each deployment since has one start record and one outcome record, and no warning was a surprise."""
        found = journal.records(self.web.host, "SYSLOG_IDENTIFIER=swapd", after=mark)
        for deployment in {item["SWAPD_DEPLOYMENT"] for item in found if "SWAPD_DEPLOYMENT" in item}:
            told = [item["MESSAGE_ID"] for item in journal.of_deployment(found, deployment)]
            assert told.count(journal.DEPLOYMENT_STARTED) == 1, self._story(deployment, found)
            assert len([kind for kind in told if kind in journal.OUTCOMES]) == 1, self._story(deployment, found)
        surprising = journal.warnings(self.web.host, after=mark, known=expected.covers)
        assert not surprising, "\n".join(surprising)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def warnings_of_kills() -> Expected:
    """What systemd and swapd say when something of swapd's is killed."""
    expected = Expected()
    for message in (
        "code=killed, status=9/KILL",
        "Failed with result 'signal'",
        "Failed to start swapd.service",
        "the worker ended by signal 9; its successor recovers",
        "the watching process does not answer",  # killed as it was asked; another one takes its place
    ):
        expected.warning(MESSAGE=message)
    expected.warning(MESSAGE_ID=journal.RECOVERED)
    expected.warning(MESSAGE_ID=journal.WATCH_REBUILT)
    expected.warning(MESSAGE_ID=journal.RESUMED_LEFTOVER)
    for problem in FORGIVEN:
        expected.warning(SWAPD_OUTCOME="failed", SWAPD_PROBLEM=problem)
    return expected


@contextlib.contextmanager
def opened(base: Path, package: Path, mpm: str, more: str = "") -> Iterator[Field]:
    """A field on a host of its own, with Apache running the module ``mpm``; ``more`` is for the unit's [Service]."""
    with booted(base) as host, Stops(host) as stops:
        web = WebHost(host)
        web.use_mpm(mpm)
        web.install(package)
        hook = Hook(host.path(SOCKET))
        try:
            it = Field(web, stops, {name: _make_site(web, name) for name in STRATEGIES}, hook)
            it.content = {name: release_content(f"{name} by hand") for name in STRATEGIES}
            host.write(DROP_IN, UNIT + HOOKED + more)
            for directory in ("crash", "support"):
                shutil.copytree(CHECKOUT / "tests" / directory, host.path(f"{TESTS}/tests/{directory}"))
            web.run("python3", "-m", "compileall", "-q", TESTS)  # no worker may write there
            web.run("systemctl", "daemon-reload")
            web.run("systemctl", "restart", "swapd")
            for name in STRATEGIES:
                it.deploy(name)
            yield it
        finally:
            hook.close()


def _make_site(web: WebHost, strategy: str) -> Site:
    live = f"/var/www/{strategy}"
    write_tree(web.host.path(live), release_content(f"{strategy} by hand"))
    site = web.new_site(strategy)
    configuration = web.host.path(f"/etc/swapd/sites/{strategy}.toml")
    configuration.write_text(f'{configuration.read_text()}strategy = "{strategy}"\n')
    return site

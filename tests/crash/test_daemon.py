"""The daemon, its worker and the guardian are killed in every combination at telling steps of a deployment."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from swapd.answer import MAX_ATTEMPTS
from swapd.lookout import RESCAN
from swapd.model.release import Outcome
from tests.crash.children import in_lanes
from tests.support.daemon import Daemon
from tests.support.httpd import Httpd
from tests.support.sites import Scratch, environment, leftovers
from tests.support.tarballs import drop, release_of, site_content, write_tarball
from tests.support.trees import texts
from tests.support.waiting import wait_until

LANES = 6  # most of the time is spent waiting for processes to start

# Parts of steps' descriptions: where a deployment is when something befalls it.
EXTRACTING = "utime"
STAGED = "syncfs"
STOPPING = "SIGSTOP"
SWAPPING = "renameat2 shop.releases/.staged-"
RESUMING = "SIGCONT"
RECORDING = "site.toml"
REMOVING = "/new.tar.gz →"
SWAPPED = (RESUMING, RECORDING, REMOVING)  # the release is live by then


@dataclass
class Field:
    """A site called shop with a tree made by hand, httpd, and a daemon that something befalls."""

    scratch: Scratch
    httpd: Httpd
    incoming: Path
    new: Path  # the tarball, to be dropped
    content: dict[str, str]

    def start(self, actor: str, step: str, is_once: bool = True) -> Daemon:
        command = [sys.executable, "-m", "tests.crash.daemon", str(self.scratch.root)]
        command += ["tests.crash.worker", actor, step]
        if is_once:
            command.append(str(self.scratch.root / "befallen"))
        daemon = Daemon(command, environment(), self.scratch.root / "daemon.log")
        self.scratch.daemons.append(daemon)
        daemon.wait_ready()
        return daemon

    def wait_killed(self, daemon: Daemon) -> None:
        wait_until(lambda: not daemon.is_alive(), "the daemon to be killed")
        daemon.kill()

    def check_live(self) -> None:
        """The new release is live, all is told and tidy, and httpd runs."""
        self.scratch.wait_live(release_of(self.new))
        wait_until(lambda: not (self.incoming / self.new.name).exists(), "the upload's removal")
        assert texts(self.scratch.live()) == self.content
        assert self.httpd.is_running()
        wait_until(lambda: not leftovers(self.scratch.releases()), "what was set aside to be removed")
        for name in ("stop", "kill"):  # whatever runs ends in order; then nothing changes any more
            for daemon in self.scratch.daemons:
                if daemon.is_alive() and name == "stop":
                    daemon.stop()
        assert not leftovers(self.scratch.releases())
        assert not leftovers(self.scratch.layout.run)
        assert not self.scratch.layout.pause_record.exists()
        outcomes = [item.outcome for item in self.scratch.deployments()]
        assert outcomes.count(Outcome.LIVE) == 1, outcomes
        assert Outcome.PENDING not in outcomes
        state = self.scratch.state()
        assert texts(self.scratch.releases() / state.previous[0]) == site_content("by hand")


@contextmanager
def field(root: Path) -> Iterator[Field]:
    scratch = Scratch(root)
    with Httpd(workers=2) as httpd:
        incoming = scratch.add_site(httpd=httpd.name)
        for name, text in site_content("by hand").items():
            scratch.live().mkdir(exist_ok=True)
            (scratch.live() / name).write_text(text)
        content = site_content("new")
        try:
            yield Field(scratch, httpd, incoming, write_tarball(root / "new.tar.gz", content), content)
        finally:
            for daemon in scratch.daemons:
                if daemon.is_alive():
                    daemon.stop()


def worker_dies(field: Field, step: str) -> None:
    """The daemon resumes, recovers and deploys again."""
    daemon = field.start("die", step)
    drop(field.new, field.incoming)
    field.scratch.wait_live(release_of(field.new))
    assert daemon.is_alive()
    field.check_live()


def worker_and_daemon_die(field: Field, step: str) -> None:
    """The guardian resumes; the next daemon recovers and deploys again."""
    daemon = field.start("die_with_daemon", step)
    drop(field.new, field.incoming)
    field.wait_killed(daemon)
    wait_until(field.httpd.is_running, "httpd to run again")
    expected = field.content if step in SWAPPED else site_content("by hand")
    assert texts(field.scratch.live()) == expected
    field.scratch.start_daemon()
    field.check_live()


def daemon_dies(field: Field, step: str) -> None:
    """The worker sees that nobody listens; whether it still swaps or not, the next daemon ends the matter."""
    daemon = field.start("kill_daemon", step)
    drop(field.new, field.incoming)
    field.wait_killed(daemon)
    field.scratch.start_daemon()
    field.check_live()


def all_die(field: Field, step: str) -> None:
    """Nobody is left to resume httpd: the next daemon does, before it says that it is ready."""
    daemon = field.start("die_with_all", step)
    drop(field.new, field.incoming)
    field.wait_killed(daemon)
    assert field.httpd.is_at_rest()
    field.scratch.start_daemon()
    assert field.httpd.is_running()
    field.check_live()


def worker_and_guardian_die(field: Field, step: str) -> None:
    """The daemon is the last one that can resume httpd."""
    field.start("die_with_guardian", step)
    drop(field.new, field.incoming)
    field.check_live()


ALL = [
    (scenario, step)
    for scenario in (worker_dies, worker_and_daemon_die, daemon_dies)
    for step in (EXTRACTING, STAGED, STOPPING, SWAPPING, RESUMING, RECORDING, REMOVING)
]
# The steps themselves are tested one by one without a daemon; this is about who takes up what the others left.
TELLING = [
    *((worker_dies, step) for step in (EXTRACTING, STOPPING, SWAPPING, RECORDING)),
    *((worker_and_daemon_die, step) for step in (EXTRACTING, STOPPING, RESUMING, REMOVING)),
    *((daemon_dies, step) for step in (STAGED, SWAPPING)),
    (all_die, SWAPPING),
    (worker_and_guardian_die, SWAPPING),
]


def play_all(scenarios: list[tuple[Callable[[Field, str], None], str]], memory: Path) -> None:
    def play(number: int) -> list[str]:
        scenario, step = scenarios[number]
        with field(memory / str(number)) as it:
            try:
                scenario(it, step)
            except AssertionError:
                log = (it.scratch.root / "daemon.log").read_text()
                return [f"{scenario.__name__} at {step}: {traceback.format_exc()}\n{log}"]
        return []

    failures = in_lanes(play, len(scenarios), LANES)
    assert not failures, "\n".join(failures)


def test_killed_at_telling_steps(memory: Path) -> None:
    play_all(TELLING, memory)


@pytest.mark.soak
def test_killed_at_all_steps_of_the_list(memory: Path) -> None:
    play_all([item for item in ALL if item not in TELLING], memory)


@pytest.mark.soak  # the daemon looks for what others left each half a minute
def test_the_daemon_puts_right_what_a_command_left(memory: Path) -> None:
    """`swapd deploy` is killed with its guardian between two renames: httpd is stopped, the live path is missing."""
    with field(memory / "root") as it:
        it.scratch.configure(httpd=it.httpd.name, strategy="rename")
        daemon = it.scratch.start_daemon()
        befallen = [
            "die_with_guardian",
            "rename shop.releases/.staged-",
            *it.scratch.command_line("deploy", "shop", it.new)[3:],
        ]
        subprocess.run([sys.executable, "-m", "tests.crash.command", *befallen], env=environment())
        assert it.httpd.is_at_rest()
        assert not it.scratch.live().exists()
        wait_until(it.httpd.is_running, "httpd to run", 2 * RESCAN)
        assert texts(it.scratch.live()) == site_content("by hand")
        wait_until(lambda: not it.scratch.pending(), "the deployment's outcome")
        assert it.scratch.deployments()[0].problem == "crashed"
        wait_until(lambda: not leftovers(it.scratch.releases()), "nothing to be left")
        assert daemon.is_alive()


def test_an_upload_that_crashes_every_worker_is_given_up(memory: Path) -> None:
    """Other uploads of the site have their turn meanwhile and afterwards."""
    with field(memory / "root") as it:
        daemon = it.start("die", "utime /crash", is_once=False)
        crash = write_tarball(memory / "crash.tar.gz", {"crash": "…"})
        drop(crash, it.incoming)
        it.scratch.wait_marker("crash.tar.gz.failed")
        drop(it.new, it.incoming)
        it.scratch.wait_live(release_of(it.new))
        outcomes = [item.outcome for item in it.scratch.deployments() if item.file_name == crash.name]
        assert outcomes == [Outcome.FAILED] * MAX_ATTEMPTS
        assert daemon.is_alive()
        assert (it.incoming / crash.name).exists()
        wait_until(lambda: not daemon.workers(), "the worker's end")

"""A rollback whose command is killed or told to stop once its release is live: the next start does the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.support.sites import Scratch, environment
from tests.support.tarballs import release_of, site_content, write_tarball
from tests.support.trees import snapshot, texts
from tests.support.waiting import wait_until


def roll_back(scratch: Scratch, actor: str, step: str, *arguments: str) -> int:
    """The command, which something befalls at a step; its exit status."""
    line = [sys.executable, "-m", "tests.crash.command", actor, step]
    line += scratch.command_line("rollback", "shop", *arguments)[3:]
    return subprocess.run(line, env=environment(), capture_output=True).returncode


def are_times_new(scratch: Scratch, other: str) -> bool:
    """Whether every file is newer than what visitors hold of the other release."""
    held, found = snapshot(scratch.releases() / other), snapshot(scratch.live())
    names = [name for name in held if name.endswith(".html")]
    return all(found[name].mtime_ns // 10**9 > held[name].mtime_ns // 10**9 for name in names)


@pytest.mark.parametrize("actor", ["die", "interrupt"])
def test_the_times_are_made_new_by_the_daemon_that_starts_next(scratch: Scratch, actor: str) -> None:
    scratch.add_site(strategy="exchange")
    scratch.live().mkdir()
    tarballs = [write_tarball(scratch.root / f"shop-{it}.tar.gz", site_content(str(it))) for it in (1, 2)]
    scratch.deploy(*tarballs)
    one, two = map(release_of, tarballs)
    # Told to stop, it ends as what it is: done, but for the times.
    step = "utime /page" if actor == "die" else "rename shop/.site.toml"
    assert roll_back(scratch, actor, step) == (-signal.SIGKILL if actor == "die" else 0)
    assert texts(scratch.live()) == site_content("1"), "live, whatever comes after that"
    assert not are_times_new(scratch, two)
    scratch.start_daemon()
    wait_until(lambda: scratch.deployments()[0].is_closed, "the rest to be done")
    assert are_times_new(scratch, two)
    (record, *_) = scratch.deployments()
    assert (record.release, record.previous, len(scratch.deployments())) == (one, two, 3)


def test_a_dead_command_keeps_no_release_from_anybody(scratch: Scratch) -> None:
    """Killed between taking the kept tree and the swap: the next command finds it under its name."""
    scratch.add_site(strategy="exchange")
    scratch.live().mkdir()
    tarballs = [write_tarball(scratch.root / f"shop-{it}.tar.gz", site_content(str(it))) for it in (1, 2)]
    scratch.deploy(*tarballs)
    one, _ = map(release_of, tarballs)
    assert roll_back(scratch, "die", "renameat2 shop.releases/.staged-") == -signal.SIGKILL
    assert not (scratch.releases() / one).exists()
    assert texts(scratch.live()) == site_content("2")
    done = scratch.run("rollback", "shop")
    assert done.returncode == 0, done
    assert texts(scratch.live()) == site_content("1")
    assert sorted(name.partition("@")[0] for name in os.listdir(scratch.releases())) == ["adopted", "shop-2"]

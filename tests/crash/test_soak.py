"""Hundreds of deployments with kills at random moments, of whatever of swapd there is: `make soak`."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swapd.answer import is_retried
from tests.crash.actors import kill_something
from tests.support.httpd import Httpd
from tests.support.sites import Scratch, leftovers
from tests.support.tarballs import drop, release_of, site_content, write_tarball
from tests.support.trees import texts
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "100"))
LONGEST = 1.5  # seconds after the drop within which something is killed; a deployment takes about half as long


def wait_ended(scratch: Scratch, release: str) -> None:
    """Until the release has an outcome that is not followed by another attempt."""

    def has_ended() -> bool:
        newest = scratch.deployments()[0]
        return newest.release == release and newest.ended is not None and not is_retried(newest)

    wait_until(has_ended, f"the outcome of {release}; there: {scratch.deployments()[0]}")


@contextlib.contextmanager
def told(scratch: Scratch) -> Iterator[None]:
    """Prints what the daemons said when a test fails."""
    try:
        yield
    except BaseException:
        print((scratch.root / "daemon.log").read_text()[-20000:])
        raise


@contextlib.contextmanager
def visited(page: Path, seen: set[str]) -> Iterator[None]:
    """Reads the page all the time; what a reader got in place of a page is noted, too."""
    is_over = threading.Event()

    def visit() -> None:
        while not is_over.is_set():
            try:
                seen.add(page.read_text())
            except OSError as error:
                seen.add(repr(error))

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("strategy", ["symlink", "exchange", "rename"])
def test_kills_at_random(strategy: str, tmp_path: Path, scratch: Scratch, httpd: Httpd) -> None:
    seed = int(os.environ.get("SOAK_SEED", random.randrange(1 << 32)))
    print(f"SOAK_SEED={seed}")
    source = random.Random(seed)
    incoming = scratch.add_site(httpd=httpd.name, strategy=strategy, keep=3)
    tarball = write_tarball(tmp_path / "release-0.tar.gz", site_content("release 0"))
    assert scratch.run("deploy", "shop", tarball).returncode == 0
    daemon = scratch.start_daemon()
    pages, history = set[str](), []
    with visited(scratch.live() / "index.html", pages), told(scratch):
        for number in range(1, ROUNDS + 1):
            content = site_content(f"release {number}")
            tarball = write_tarball(tmp_path / f"release-{number}.tar.gz", content)
            drop(tarball, incoming)
            time.sleep(source.uniform(0, LONGEST))
            history.append(kill_something(daemon.process.pid, source))
            if "daemon" in history[-1]:
                wait_until(lambda: not daemon.is_alive(), "the daemon's end")  # noqa: B023 - called at once
                daemon.kill()
                daemon = scratch.start_daemon()
            wait_ended(scratch, release_of(tarball))
            if scratch.deployments()[0].problem in ("no-guardian", "extractor-killed"):  # before anything was stopped
                os.utime(incoming / tarball.name)
            scratch.wait_live(release_of(tarball))
            assert texts(scratch.live()) == content, history
            wait_until(httpd.is_running, f"httpd to run after {history}")
            assert daemon.is_alive()
    daemon.stop()
    assert not leftovers(scratch.releases()), history
    assert not scratch.layout.pause_record.exists()
    strange = pages - {site_content(f"release {number}")["index.html"] for number in range(ROUNDS + 1)}
    # Who is not stopped by the pause may see two renames in between.
    assert all("FileNotFoundError" in page for page in strange) if strategy == "rename" else not strange

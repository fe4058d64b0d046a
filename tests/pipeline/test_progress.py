"""How far a deployment is: what the status line says, and which stage an outcome names."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swapd.context import Context
from swapd.deploy import deploy
from swapd.host.configuration import read_site
from swapd.model.release import Stage, Upload
from tests.support.daemon import Daemon
from tests.support.httpd import state_of
from tests.support.sites import Scratch
from tests.support.tarballs import drop, large_content, write_sidecar, write_tarball
from tests.support.waiting import wait_until

Plot = Callable[..., Scratch]


@contextmanager
def held(pid: int) -> Iterator[None]:
    """The process stands still within."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state_of(pid) in "TX", "it to stop")
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def percentage(daemon: Daemon, site: str) -> int:
    """Of the extraction, as the newest status line has it; -1 where that has none."""
    lines = daemon.status_lines()
    found = re.search(rf"{site}: extract \S+ (\d+)%", lines[-1]) if lines else None
    return int(found[1]) if found else -1


@pytest.fixture(scope="module")
def vast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 MB in 3000 files: what is read ahead is little of it, and its extraction takes a second or so."""
    source = random.Random(1)
    content = {f"data/{number % 50}/{number}.bin": source.randbytes(16_000) for number in range(3000)}
    return write_tarball(tmp_path_factory.mktemp("vast") / "vast-1.tar", {"index.html": "vast", **content})


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.zst"])
def test_the_status_line_says_how_much_is_extracted(plot: Plot, vast: Path, tmp_path: Path, suffix: str) -> None:
    """The extraction is held here and there, so that the daemon has the time to say it on any machine."""
    tarball = tmp_path / f"vast-1{suffix}"
    program = {".tar.gz": ["gzip", "-1"], ".tar.zst": ["zstd", "-q"]}[suffix]
    with tarball.open("wb") as output:
        subprocess.run([*program, "-c", vast], stdout=output, check=True)
    scratch = plot()
    daemon = scratch.daemon
    drop(tarball, scratch.incoming)
    (extracting,) = wait_until(lambda: daemon.below_workers("swapd extract"), "the extraction")
    seen = [0]

    def has_grown() -> bool:
        """Whether it has said more by the moment at which it is held: it speaks now and then, not for each file."""
        with held(extracting), contextlib.suppress(AssertionError):
            wait_until(lambda: percentage(daemon, scratch.site) > seen[-1], f"more than {seen[-1]} %", patience=1)
            seen.append(percentage(daemon, scratch.site))
            return True
        return False

    for _ in range(3):
        wait_until(has_grown, f"more than {seen[-1]} %")
    assert seen == sorted(seen)
    assert seen[-1] <= 100
    scratch.wait_marker(f"{tarball.name}.live")
    assert daemon.wait_status(f"{scratch.site}: vast-1@")


def test_every_stage_is_entered_and_the_long_ones_say_how_far_they_are(scratch: Scratch, tmp_path: Path) -> None:
    scratch.add_site()
    site = read_site(scratch.layout, "shop")
    write_tarball(tmp_path / "shop-1.tar", large_content(4))
    told: list[tuple[Stage, float | None]] = []
    context = Context(scratch.layout, lambda _: None, lambda stage, fraction, _: told.append((stage, fraction)))
    deploy(site, Upload(tmp_path, "shop-1.tar", False), context)
    stages = list(dict.fromkeys(stage for stage, _ in told))
    assert stages == [
        Stage.CLAIM,
        Stage.VERIFY,
        Stage.EXTRACT,
        Stage.PREPARE,
        Stage.SWAP,
        Stage.PAUSE,
        Stage.PRUNE,
    ]
    fractions = {
        stage: [fraction for each, fraction in told if each is stage and fraction is not None] for stage in stages
    }
    for stage in (Stage.CLAIM, Stage.EXTRACT):
        assert fractions[stage] == sorted(fractions[stage])
        assert fractions[stage][-1] == 1.0
    assert len(fractions[Stage.CLAIM]) >= 4, "for each MiB"


def test_a_rejection_names_the_stage_that_it_came_from(plot: Plot, tmp_path: Path) -> None:
    scratch = plot()
    for name, stage in (("digest", "verify"), ("content", "extract")):
        tarball = write_tarball(tmp_path / f"{name}-1.tar", {"index.html": "x" * 5000})
        if stage == "extract":
            tarball.write_bytes(tarball.read_bytes()[:3000])
        else:
            write_sidecar(scratch.incoming / tarball.name, "0" * 64)
        drop(tarball, scratch.incoming)
        scratch.wait_marker(f"{tarball.name}.rejected")
        assert scratch.deployments()[0].stage == stage

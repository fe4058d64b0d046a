"""The power of a whole machine is cut at random moments of continuous deployments, again and again.

What is modelled: the machine's memory is lost, and of its disk's write cache what chance decides; what the filesystem
flushed is there (``tests.crash.vm.disk``). Kernel, filesystem, swapd and its processes are the real ones. Each boot
is the check of the last cut, before swapd is started, and the field of the next: swapd goes on by itself.
"""

from __future__ import annotations

import os
import platform
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crash.children import PROCESSORS, in_lanes
from tests.crash.vm.disk import Disk
from tests.crash.vm.image import CODE, Image, make_image
from tests.crash.vm.machine import PATIENCE, Machine
from tests.support.disks import MKFS
from tests.support.httpd import PROJECT

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        platform.machine() != "x86_64", reason="Debian's cloud kernel for this processor has another name"
    ),
]

SIZE = 512  # MiB; XFS wants 300 at least
KINDS = ("ext4", "xfs", "btrfs")
STRATEGIES = ("symlink", "exchange", "rename", "pinned")  # of sites that are called so
CUTS = 5  # for each filesystem and strategy
SECONDS = 120.0  # after which no further cut begins
LONGEST = 20.0  # seconds that a machine is left alone until its power is cut
SYNCFS = '_check(_libc.syncfs(descriptor), "syncfs")'
SECTORS = {"ext4": [], "xfs": ["-s", "size=4096"], "btrfs": []}


class Lineage:
    """One disk with one site, and the machines that run on it one after the other, until the power of each is cut."""

    def __init__(self, image: Image, kind: str, strategy: str, directory: Path, seed: int) -> None:
        self._image, self._kind, self._site, self._directory = image, kind, strategy, directory
        self._source = random.Random(seed)
        path = directory / "disk"
        with path.open("wb") as file:
            file.truncate(SIZE << 20)
        subprocess.run([*MKFS[kind], *SECTORS[kind], path], check=True, stdout=subprocess.DEVNULL)
        self._disk = Disk(path)
        # What may be live: what was last told to be, and whatever was asked for after that.
        self._allowed = [f"{strategy}-by-hand"]
        self._pace = 5.0  # seconds that a deployment takes in there
        self._asked = 0.0
        self._has_gone_on = False
        self.failures: list[str] = []
        self.story: list[str] = []
        self.boots = 0

    def live_through(self, cuts: int, deadline: float) -> None:
        """So many cuts, or fewer when time is up; and a last boot that only sees what the last of them left."""
        for number in range(cuts + 1):
            is_last = number == cuts or (number > 0 and time.monotonic() > deadline)
            self._boot(is_last=is_last)
            if is_last or self.failures:
                break

    def _boot(self, *, is_last: bool) -> None:
        self.boots += 1
        self._has_gone_on = False
        console = self._directory / f"console-{self.boots}"
        machine = Machine(self._image, self._disk, self._kind, console, site=self._site, boot=self.boots)
        try:
            self._hear(machine, lambda event: event == "checked")
            if not is_last:
                # Or amid what swapd does with what the last cut left.
                if self._source.random() < 0.75:
                    self._hear(machine, lambda _: self._has_gone_on)
                self._linger(machine, self._source.uniform(0, min(1.5 * self._pace, LONGEST)))
        except AssertionError as error:
            self.failures.append(str(error))
        finally:
            for event in machine.cut():
                self._take(event)
            self.story.append(f"boot {self.boots}: {self._disk.cut(self._source)}")
        if self.failures:
            story = "\n".join([*self.story, machine.console_text()])
            self.failures.append(f"{self._kind}, {self._site}, boot {self.boots}:\n{story}")

    def _hear(self, machine: Machine, is_it: Callable[[str], bool]) -> None:
        """Until then; or until something is wrong."""
        while not self.failures:
            event = machine.next_event(time.monotonic() + PATIENCE)
            assert event is not None, f"nothing more was heard for {PATIENCE:g} s"
            self._take(event)
            if is_it(event["event"]):
                return

    def _linger(self, machine: Machine, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (event := machine.next_event(deadline)) is not None:
            self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        self.story.append(f"{time.monotonic():.1f} {event}")
        match event["event"]:
            case "checked":
                self._judge(event)
            case "asked":
                self._allowed.append(event["mark"])
                self._asked = time.monotonic()
            case "resumed":
                self._end(event)
            case "ended":
                self._end(event)
                self._pace = time.monotonic() - self._asked
            case "broken" | "off":
                self.failures.append(f"the machine: {event}")

    def _judge(self, found: dict[str, Any]) -> None:
        """What stands there after a cut, before swapd has done anything about it."""
        # Two renames have an instant in between, and it may be that one.
        allowed = [*self._allowed, *(["nothing"] if self._site == "rename" else [])]
        if found["live"] not in allowed:
            self.failures.append(f"live is {found['live']}, and not of {allowed}")
        # The live path follows the route: it may be a step behind, and is whole.
        if found["path"].startswith("[") or (found["path"] == "nothing" and "nothing" not in allowed):
            self.failures.append(f"the live path is {found['path']}")
        for release, mark in found["kept"].items():
            if mark != release.partition("@")[0] and not release.startswith("adopted@"):
                self.failures.append(f"the kept release {release} is {mark}")

    def _end(self, event: dict[str, Any]) -> None:
        mark, outcome = event["mark"], event["outcome"]
        if outcome not in ("live", "unchanged"):
            self.failures.append(f"{mark} ended otherwise: {outcome}")
        elif mark not in self._allowed:
            self.failures.append(f"{mark} came back after {self._allowed[0]} had been told to be live")
        else:
            # What has been told to be live stays so, whatever comes.
            last = len(self._allowed) - 1 - self._allowed[::-1].index(mark)
            self._allowed = self._allowed[last:]
            self._has_gone_on = True


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return make_image(tmp_path_factory.mktemp("vm"))


def check_cuts(image: Image, directory: Path, cuts: int, seconds: float) -> None:
    """So many cuts for each filesystem and strategy, or as many as there is time for."""
    seed = int(os.environ.get("SOAK_SEED", random.randrange(1 << 32)))
    print(f"SOAK_SEED={seed}")
    cases = [(kind, strategy) for strategy in STRATEGIES for kind in KINDS]
    begin = time.monotonic()

    def live(number: int) -> list[str]:
        kind, strategy = cases[number]
        place = directory / f"{kind}-{strategy}"
        place.mkdir()
        lineage = Lineage(image, kind, strategy, place, seed + number)
        turns = -(-len(cases) // PROCESSORS)
        lineage.live_through(cuts, begin + seconds * (number // PROCESSORS + 1) / turns)
        (place / "disk").unlink()
        (place / "cuts").write_text(str(lineage.boots - 1))
        return lineage.failures

    failures = in_lanes(live, len(cases))
    assert not failures, "\n".join(failures)
    done = {f"{kind}-{strategy}": (directory / f"{kind}-{strategy}/cuts").read_text() for kind, strategy in cases}
    print(f"cuts in {time.monotonic() - begin:.0f} s: {done}")
    assert "0" not in done.values(), done


@pytest.mark.timeout(1200)
def test_the_power_is_cut_at_random_moments(image: Image, tmp_path: Path) -> None:
    """Some twenty times for each filesystem, as long as there is time."""
    check_cuts(image, tmp_path, CUTS, SECONDS)


@pytest.mark.soak
@pytest.mark.timeout(6 * 3600)
def test_the_power_is_cut_hundreds_of_times(image: Image, tmp_path: Path) -> None:
    check_cuts(image, tmp_path, int(os.environ.get("SOAK_CUTS", "34")), 5.5 * 3600)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_swap_before_the_release_is_on_the_disk_would_be_found(tmp_path: Path) -> None:
    """Else the tests above would prove nothing."""
    project = tmp_path / "project"
    for part in CODE:
        shutil.copytree(PROJECT / part, project / part, ignore=shutil.ignore_patterns("__pycache__"))
    module = project / "swapd/host/linux.py"
    text = module.read_text()
    assert SYNCFS in text
    module.write_text(text.replace(SYNCFS, "pass"))
    lineage = Lineage(make_image(tmp_path, project), "ext4", "exchange", tmp_path, 1)
    lineage.live_through(20, time.monotonic() + 3000)
    assert lineage.failures
    assert lineage.failures[0].startswith("live is [")

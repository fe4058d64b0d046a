"""The power fails at every step of a deployment: what the disk has is whole, and the next start goes on from it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from swapd.host import linux
from tests.crash.children import describe_failure
from tests.crash.disk import Disk
from tests.crash.steps import Act, install, replace_everywhere
from tests.crash.world import World

pytestmark = pytest.mark.root  # mounts

# Between two of these nothing comes to the disk, and no name changes that a start goes by.
KINDS = ("syncfs", "fsync", "rename")


@dataclass(frozen=True)
class Cut:
    """The disk and the journal as they were before a step."""

    step: str
    image: Path
    journal: Path


def cut_at_every_step(
    disk: Disk, case: tuple[str, str], prepare: Callable[[Act], None] = install
) -> tuple[World, list[Cut]]:
    """Deploys to the end, and fails at each step from the one on that writes the release through to the disk."""
    directory = disk.place.parent
    names = directory / "steps"
    begun: list[str] = []

    def act(step: str) -> None:
        if step.startswith(KINDS if begun else "syncfs"):
            begun.append(step)
            disk.cut(f"cut-{len(begun)}")
            shutil.copy(world.journal, directory / f"journal-{len(begun)}")
            with names.open("a") as file:
                print(step, file=file)

    with disk.mounted() as place:
        world = World(place / "root", *case, journal=directory / "journal")
        disk.settle()
        world.work(act, prepare).check()
    steps = names.read_text().splitlines()
    return world, [
        Cut(step, directory / f"cut-{number}", directory / f"journal-{number}")
        for number, step in enumerate(steps, start=1)
    ]


@pytest.mark.parametrize(
    "case", [("symlink", "releases"), ("exchange", "directory"), ("rename", "releases")], ids="-".join
)
def test_power_cut_at_every_step(case: tuple[str, str], tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    world, cuts = cut_at_every_step(disk, case)
    allowed = {"old", "new", "nothing"} if case[0] == "rename" else {"old", "new"}  # nothing between two renames
    failures = []
    for number, cut in enumerate(cuts, start=1):
        world.journal = cut.journal
        with disk.mounted(cut.image):
            try:
                assert world.standing() in allowed
                world.recover().check()
                world.check_recovered()
                world.check_next()
            except AssertionError:
                failures.append(describe_failure(number, cut.step))
    assert not failures, "\n".join(failures)


def test_what_is_not_written_through_is_lost_on_this_disk(tmp_path: Path) -> None:
    """The test above would see it, were the release swapped before it is on the disk."""

    def without_syncfs(act: Act) -> None:
        install(act)
        linux_syncfs = linux.syncfs
        replace_everywhere(linux_syncfs, lambda _: act("syncfs left out"))

    disk = Disk(tmp_path)
    world, cuts = cut_at_every_step(disk, ("exchange", "directory"), without_syncfs)
    standings = []
    for cut in cuts:
        with disk.mounted(cut.image):
            standings.append(world.standing())
    assert "broken" in standings
    assert os.path.ismount(disk.place) is False

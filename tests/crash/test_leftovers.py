"""What a crash left of an extraction is removed after the next swap, and not before the next extraction."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.actors import die
from tests.crash.test_every_step import record_steps
from tests.crash.world import World
from tests.support.sites import leftovers

REMOVALS = ("unlink", "rmdir")


@pytest.mark.parametrize(("strategy", "beginning"), [("exchange", "directory"), ("symlink", "releases")])
def test_a_staging_tree_is_removed_after_the_next_swap(memory: Path, strategy: str, beginning: str) -> None:
    """On ext4 an extraction right after the removal of such a tree takes several times as long."""
    world = World(memory / "world", strategy, beginning)

    def kill_when_all_is_written(step: str) -> None:
        if step.startswith("syncfs"):
            die()

    assert world.work(kill_when_all_is_written).is_killed
    assert leftovers(world.releases, [".staging-"])
    seen = record_steps(world, world.work)
    standing = [standing for _, standing in seen]
    swapped = standing.index("new")
    # Of the tree's own names: everything else that is removed meanwhile is swapd's own, and small.
    inside = ("index.html", "site.css", "page.php", ".removing-", ".staging-")
    removals = [at for at, (step, _) in enumerate(seen) if step.startswith(REMOVALS) and any(n in step for n in inside)]
    assert all(at > swapped for at in removals), seen[min(removals)]
    # What removes them is a child of the worker's, whose first step here is to be forked.
    forks = [at for at, (step, _) in enumerate(seen) if step == "fork"]
    assert max(forks) > swapped
    assert leftovers(world.releases) == []
    assert world.standing() == "new"

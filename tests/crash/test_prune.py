"""A prune is killed at each of its steps: no kept release is lost, and the next one goes on with what it left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from swapd.context import Context
from swapd.host import records
from swapd.host.configuration import read_site
from swapd.host.files import locked
from swapd.model.config import Site
from swapd.model.events import Event
from swapd.recover import recover
from swapd.retention import prune_releases, sweep
from swapd.stages.prune import remove_aside
from tests.crash.actors import die
from tests.crash.children import Child, Ended, describe_failure
from tests.crash.steps import Act, Counter, install
from tests.crash.world import content
from tests.support.sites import Scratch, leftovers
from tests.support.tarballs import release_of, write_tarball
from tests.support.trees import texts

NAMES = ("one", "two", "three", "four", "five")
KEPT = ("two", "four")  # by keep = 2 and a pin; five is live


class Shelf:
    """A site whose every release is kept, until ``keep`` is lowered."""

    def __init__(self, root: Path, part: str) -> None:
        self.scratch = Scratch(root)
        self.part = part
        self._configure(9)
        self.ids = {}
        for name in NAMES:
            tarball = write_tarball(root / f"{name}.tar.gz", content(name))
            self.scratch.deploy(tarball)
            self.ids[name] = release_of(tarball)
        state = self.scratch.state()
        assert self.scratch.run("pin", "shop", "two").returncode == 0
        assert len(state.previous) == 4
        self._configure(2)

    def _configure(self, keep: int) -> None:
        paths = [{"live": str(self.scratch.www / "second/place"), "part": self.part}] if self.part else []
        (self.scratch.www / "second").mkdir(exist_ok=True)
        self.scratch.add_site(keep=keep, pause={"mode": "never"}, path=paths)
        self.site = read_site(self.scratch.layout, "shop")

    def copy(self, root: Path) -> None:
        """The same for another kill: what it takes is the making."""
        shutil.copytree(self.scratch.root, root, symlinks=True)

    def prune(self, act: Act | None = None) -> Ended:
        """In a process of its own, which does all of it itself, what a child removes as well."""

        def work() -> None:
            if act is not None:
                install(act)
            context = Context(self.scratch.layout, _ignore, lambda *_: None)
            with locked(self.scratch.layout.site_lock("shop"), "a test"):
                recover(self.site, context)
                prune_releases(self.site, context)
            if act is None:
                sweep(self.site, context)
            else:
                assert remove_aside(self.site.parts) == []

        return Child(work).wait()

    def check_whole(self) -> None:
        """What is live, and what the state says is kept, is there and whole, at every moment."""
        state = records.read_state(self.scratch.layout, self.site.name)
        assert state.live
        assert state.live.release == self.ids["five"]
        marks = {release: name for name, release in self.ids.items()}
        for place in self.site.parts:
            assert texts(place.live) == self.share("five", place)
            for release in state.previous:
                if (place.releases / release).exists() or release not in state.doomed:
                    assert texts(place.releases / release) == self.share(marks[release], place)
            for name in os.listdir(place.releases):
                if name in marks:
                    assert texts(place.releases / name) == self.share(marks[name], place), "never half a tree"
        assert {self.ids[name] for name in KEPT} <= set(state.previous)

    def share(self, name: str, place: Site) -> dict[str, str]:
        found = content(name)
        if not self.part:
            return found
        prefix = f"{self.part}/"
        if place.part:
            return {path.removeprefix(prefix): text for path, text in found.items() if path.startswith(prefix)}
        return {path: text for path, text in found.items() if not path.startswith(prefix)}

    def check_done(self) -> None:
        self.check_whole()
        state = self.scratch.state()
        assert set(state.previous) == {self.ids[name] for name in KEPT}
        assert (state.doomed, state.pinned) == ((), (self.ids["two"],))
        for place in self.site.parts:
            assert leftovers(place.releases) == []
            assert {*os.listdir(place.releases)} - {self.ids["five"]} == {self.ids[name] for name in KEPT}


def _ignore(_: Event) -> None:
    """What it says is for other tests."""


@pytest.mark.parametrize("part", [pytest.param("", marks=pytest.mark.soak), "lib"], ids=["one path", "two paths"])
def test_killed_at_every_step(part: str, memory: Path) -> None:
    whole = Shelf(memory / "root", part)
    whole.copy(memory / "shelf")
    steps: list[str] = []
    log = memory / "steps"

    def record(step: str) -> None:
        with log.open("a") as file:
            print(step, file=file)

    whole.prune(record).check()
    whole.check_done()
    steps = log.read_text().splitlines()
    assert any("→" in step and ".removing-" in step for step in steps), steps

    failures = [
        said for number in range(len(steps)) for said in kill_at(whole, memory / "shelf", number, steps[number])
    ]
    assert not failures, "\n".join(failures)


def kill_at(shelf: Shelf, original: Path, number: int, step: str) -> list[str]:
    """In the place where it was made, because records have whole paths in them.

    That the copies have other inodes is no drift: the live path is a link to the release of the recorded name.
    """
    shutil.rmtree(shelf.scratch.root)
    shutil.copytree(original, shelf.scratch.root, symlinks=True)
    try:
        assert shelf.prune(Counter(number + 1, die)).is_killed
        shelf.check_whole()
        shelf.prune().check()
        shelf.check_done()
        six = write_tarball(shelf.scratch.root / "six.tar.gz", content("six"))
        shelf.scratch.deploy(six)
        assert texts(shelf.scratch.live())["index.html"] == "six\n"
    except AssertionError:
        return [describe_failure(number + 1, step)]
    return []

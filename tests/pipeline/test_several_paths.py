"""A site with several live paths: one tarball, each part where it belongs, all of one release."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swapd.model.release import Outcome
from tests.support.httpd import Httpd
from tests.support.mounts import tmpfs
from tests.support.sites import Scratch, leftovers
from tests.support.tarballs import drop, release_of, write_tarball
from tests.support.trees import texts, write_tree

Plot = Callable[..., Scratch]
KINDS = ("missing", "directory", "link")
OLD = {"index.html": "by hand"}


def main(mark: str) -> dict[str, str]:
    return {"index.html": f"<h1>{mark}</h1>", "data/notes.txt": mark}


def cgi(mark: str) -> dict[str, str]:
    return {"run.py": f"# {mark}", "lib/helper.py": f"# {mark}"}


def static(mark: str) -> dict[str, str]:
    return {"site.css": f"/* {mark} */"}


def content(mark: str) -> dict[str, str]:
    """The whole release."""
    parts = (("", main(mark)), ("cgi/", cgi(mark)), ("data/static/", static(mark)))
    return {f"{prefix}{name}": text for prefix, part in parts for name, text in part.items()}


class Place:
    """A site, and where its further live paths are."""

    def __init__(self, scratch: Scratch, tmp_path: Path) -> None:
        self.scratch = scratch
        self.tmp_path = tmp_path
        self.cgi, self.static = scratch.root / "lib/cgi", scratch.root / "cdn/static"
        for live in (self.cgi, self.static):
            live.parent.mkdir()

    @property
    def all_paths(self) -> list[dict[str, Any]]:
        return [{"live": str(self.cgi), "part": "cgi"}, {"live": str(self.static), "part": "data/static"}]

    @property
    def lives(self) -> tuple[Path, Path, Path]:
        return self.scratch.live(), self.cgi, self.static

    def tarball(self, mark: str, without: str = " ") -> Path:
        """The same each time: gzip writes down when it packed."""
        files = {name: text for name, text in content(mark).items() if not name.startswith(without)}
        path = self.tmp_path / f"shop-{mark}.tar.gz"
        return path if path.exists() else write_tarball(path, files)

    def deploy(self, mark: str, status: int = 0) -> str:
        """By command; the release."""
        tarball = self.tarball(mark)
        done = self.scratch.run("deploy", "shop", tarball)
        assert done.returncode == status, done
        return release_of(tarball)

    def check_live(self, mark: str) -> None:
        assert tuple(map(texts, self.lives)) == (main(mark), cgi(mark), static(mark))
        self.check_tidy()

    def check_tidy(self) -> None:
        for live in self.lives:
            assert leftovers(live.parent) == []
            assert not (releases := releases_of(live)).exists() or leftovers(releases) == []

    def kept(self, live: Path) -> set[str]:
        """The releases beside a live path, without the one that is live."""
        live_release = str((state := self.scratch.state().live) and state.release)
        return {path.name for path in releases_of(live).iterdir()} - {live_release}


def releases_of(live: Path) -> Path:
    return live.with_name(f"{live.name}.releases")


@pytest.fixture
def place(scratch: Scratch, tmp_path: Path) -> Place:
    return Place(scratch, tmp_path)


@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, repeat=2)), ids="-".join)
def test_each_part_is_served_where_it_belongs(place: Place, httpd: Httpd, kinds: tuple[str, str]) -> None:
    scratch = place.scratch
    scratch.add_site(httpd=httpd.name, path=place.all_paths)
    for live, kind in zip(place.lives, (*kinds, "directory"), strict=True):
        if kind == "directory":
            write_tree(live, OLD)
        elif kind == "link":
            write_tree(live.with_name("by hand"), OLD)
            live.symlink_to("by hand")
    release = place.deploy("one")
    place.check_live("one")
    assert httpd.is_running()
    (record,) = scratch.deployments()
    assert (record.outcome, record.release, len(record.swaps)) == (Outcome.LIVE, release, 3)
    assert record.pause is not None
    assert record.pause.processes == 4
    assert str(record.previous).startswith("adopted@")
    for live, kind in zip(place.lives, (*kinds, "directory"), strict=True):
        if kind != "missing":
            assert texts((releases_of(live) / str(record.previous)).resolve()) == OLD, "one id for all of them"
    assert scratch.state().previous == (record.previous,)


@pytest.mark.parametrize("strategy", ["auto", "symlink", "exchange", "rename"])
def test_releases_are_kept_and_pruned_together(place: Place, strategy: str) -> None:
    place.scratch.add_site(strategy=strategy, keep=3, path=place.all_paths)
    releases = [place.deploy(mark) for mark in ("one", "two", "three", "four")]
    place.check_live("four")
    for live, part in zip(place.lives, (main, cgi, static), strict=True):
        assert place.kept(live) == set(releases[1:3])
        for release, mark in zip(releases[1:3], ("two", "three"), strict=True):
            assert texts(releases_of(live) / release) == part(mark)
    # A kept release comes back whole.
    assert place.deploy("two") == releases[1]
    place.check_live("two")
    assert [place.kept(live) for live in place.lives] == [set(releases[2:4])] * 3


@pytest.mark.parametrize("without", ["cgi/", "data/static/", "data/"])
def test_a_release_without_a_part_is_rejected(place: Place, without: str) -> None:
    place.scratch.add_site(path=place.all_paths)
    place.deploy("one")
    bad = place.tarball("two", without)
    done = place.scratch.run("deploy", "shop", bad)
    assert done.returncode == 3, done
    assert place.scratch.deployments()[0].problem == "missing-content"
    assert ("cgi" if without == "cgi/" else "data/static") in done.stderr
    place.check_live("one")


def test_a_part_that_is_a_file_is_none(place: Place) -> None:
    place.scratch.add_site(path=place.all_paths)
    files = {name: text for name, text in content("one").items() if not name.startswith("cgi/")}
    bad = write_tarball(place.tmp_path / "bad.tar.gz", {**files, "cgi": "a file"})
    assert place.scratch.run("deploy", "shop", bad).returncode == 3
    assert [item.problem for item in place.scratch.deployments()] == ["missing-content"]
    place.check_tidy()
    assert not any(live.exists() for live in place.lives)


def test_a_live_path_that_cannot_be_swapped_keeps_all_of_them(place: Place) -> None:
    place.scratch.add_site(path=place.all_paths)
    place.deploy("one")
    place.static.rename(place.static.with_name("aside"))
    place.static.write_text("a file")
    place.deploy("two", status=1)
    assert place.scratch.deployments()[0].problem == "live-is-a-file"
    assert (texts(place.scratch.live()), texts(place.cgi)) == (main("one"), cgi("one"))
    assert place.static.read_text() == "a file"
    place.check_tidy()


def test_a_path_that_is_added_makes_the_same_tarball_go_live_again(place: Place) -> None:
    scratch = place.scratch
    scratch.add_site(path=place.all_paths[:1])
    place.deploy("one")
    assert texts(scratch.live()) == {**main("one"), "data/static/site.css": static("one")["site.css"]}
    place.deploy("one")
    scratch.add_site(path=place.all_paths)
    place.deploy("one")
    place.check_live("one")
    place.deploy("one")
    outcomes = [item.outcome for item in reversed(scratch.deployments())]
    assert outcomes == [Outcome.LIVE, Outcome.UNCHANGED, Outcome.LIVE, Outcome.UNCHANGED]


def test_a_live_path_that_somebody_replaced_makes_it_go_live_again(place: Place) -> None:
    place.scratch.add_site(path=place.all_paths, drift="adopt")
    place.deploy("one")
    place.cgi.rename(place.cgi.with_name("aside"))
    write_tree(place.cgi, OLD)
    place.deploy("one")
    place.check_live("one")
    assert [item.outcome for item in place.scratch.deployments()] == [Outcome.LIVE, Outcome.LIVE]


def test_a_path_that_is_removed_is_left_as_it_is(place: Place) -> None:
    scratch = place.scratch
    scratch.add_site(path=place.all_paths, keep=2)
    first = place.deploy("one")
    scratch.add_site(path=place.all_paths[1:], keep=2)
    for mark in ("two", "three", "four"):
        place.deploy(mark)
    assert texts(place.cgi) == cgi("one"), "nobody touches what is configured no more"
    assert {path.name for path in releases_of(place.cgi).iterdir()} == {first}
    cgi_in_main = {f"cgi/{name}": text for name, text in cgi("four").items()}
    assert texts(scratch.live()) == {**main("four"), **cgi_in_main}
    assert texts(place.static) == static("four")
    place.check_tidy()


@pytest.mark.root
@pytest.mark.parametrize("strategy", ["auto", "exchange", "rename"])
def test_a_part_on_another_filesystem_is_copied(place: Place, strategy: str) -> None:
    place.scratch.add_site(strategy=strategy, path=place.all_paths)
    with tmpfs(place.cgi.parent):
        for mark in ("one", "two"):
            place.deploy(mark)
            place.check_live(mark)
        (kept,) = place.kept(place.cgi)
        assert texts(releases_of(place.cgi) / kept) == cgi("one")


def test_a_tarball_that_is_dropped(plot: Plot, httpd: Httpd, tmp_path: Path) -> None:
    other = tmp_path / "lib/cgi"
    other.parent.mkdir()
    scratch = plot(httpd=httpd.name, path=[{"live": str(other), "part": "cgi"}])
    for mark in ("one", "two"):
        tarball = write_tarball(tmp_path / f"shop-{mark}.tar.gz", content(mark))
        drop(tarball, scratch.incoming)
        marker = scratch.wait_marker(f"shop-{mark}.tar.gz.live")
        assert marker["pause"]["processes"] == 4
        assert texts(other) == cgi(mark)
    assert httpd.is_running()

"""Back to a kept release: from the command to live, for small and large trees; and the swap beside its system calls."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from swapd.host.files import identify
from swapd.host.renames import swap_paths
from swapd.model.record import How, PathSwap
from tests.benchmarks.programs import compile_program
from tests.benchmarks.table import quantile, table
from tests.support.httpd import Httpd
from tests.support.sites import Scratch, environment

ROUNDS, QUICK_ROUNDS = 11, 3
FILES, QUICK_FILES = (100, 30_000), (100, 3_000)
SWAPS = 1_000
WORKERS = 8
RECIPES = {
    "ln -nfs": "ln -nfs {target} {live}",
    "ln -s, mv -T": "ln -s {target} {live}.new && mv -T {live}.new {live}",
}
HOWS = {How.EXCHANGE: "exchange", How.RENAME: "rename of a link", How.TWICE: "two renames"}

TITLES = ("files", "live path", "swapd: live", "told", "ended", *RECIPES)
LEGEND = """\
Milliseconds from the start of the command, medians of {rounds}, taken in turn, on {place}.
live        the live path is the other release
told        its outcome is in record and journal, and the command has printed it
ended       the files have their new times, too, and the command has ended
The recipes switch a link to a tree: they know neither what was live nor a record, and pause nobody. swapd pauses
{workers} processes, and most of its time goes into starting Python."""
SWAP_TITLES = ("swap", "in C", "swapd", "more")
SWAP_LEGEND = (
    f"Microseconds, medians of {SWAPS}, on {{place}}: the renames alone, which are all that the window has in it."
)


class Bench:
    """A site with two releases of so many files."""

    def __init__(self, root: Path, files: int, strategy: str, httpd: str) -> None:
        self.scratch = Scratch(root)
        self.scratch.add_site(httpd=httpd, strategy=strategy)
        self.live = self.scratch.live()
        if strategy == "exchange":
            self.live.mkdir()
        for number in (1, 2):
            tarball = root / f"shop-{number}.tar"
            _pack(tarball, files, number)
            self.scratch.deploy(tarball)
            tarball.unlink()
        self._next = itertools.cycle((1, 2))

    def roll_back(self) -> tuple[float, float, float]:
        """Seconds from the command's start until the other release is live, until it says so, until its end."""
        release = f"shop-{next(self._next)}"
        (tree,) = self.scratch.releases().glob(f"{release}@*")
        wanted = tree.stat().st_ino
        command = self.scratch.command_line("rollback", "shop", release)
        begin = time.monotonic()
        running = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())
        live = _wait_for(self.live, wanted, begin)
        assert running.stdout is not None
        running.stdout.readline()
        told = time.monotonic() - begin
        if running.wait():
            raise SystemExit(f"{' '.join(command)} ended with {running.returncode}")
        running.stdout.close()
        return live, told, time.monotonic() - begin


class Links:
    """What the recipes switch: a link, from one tree to another."""

    def __init__(self, place: Path) -> None:
        trees = [place / f"tree-{number}" for number in (1, 2)]
        for tree in trees:
            tree.mkdir()
        self._trees = itertools.cycle(trees)
        self.live = place / "link"
        self.live.symlink_to(next(self._trees))

    def switch(self, recipe: str) -> float:
        target = next(self._trees)
        line = recipe.format(target=target, live=self.live)
        begin = time.monotonic()
        running = subprocess.Popen(["sh", "-c", line])
        live = _wait_for(self.live, target.stat().st_ino, begin)
        if running.wait():
            raise SystemExit(f"{line} failed")
        return live


def _wait_for(live: Path, inode: int, begin: float) -> float:
    """Looks at full speed: one processor is left for whoever works."""
    while True:
        try:
            if os.stat(live).st_ino == inode:
                return time.monotonic() - begin
        except FileNotFoundError:
            pass
        if time.monotonic() - begin > 60:
            raise SystemExit(f"{live} never became the other release")


def _pack(tarball: Path, files: int, number: int) -> None:
    with tarfile.open(tarball, "w") as archive:
        for name in range(files):
            content = f"<?php // file {name} of release {number}\n".encode()
            member = tarfile.TarInfo(f"d{name % 97}/f{name}.php")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def measure(*, is_quick: bool) -> str:
    """Both tables."""
    rounds = QUICK_ROUNDS if is_quick else ROUNDS
    place = tempfile.gettempdir()
    rows = []
    for files in QUICK_FILES if is_quick else FILES:
        for strategy in ("symlink", "exchange"):
            with _directory() as directory, Httpd(WORKERS) as httpd:
                bench = Bench(directory / "root", files, strategy, httpd.name)
                rows.append(_measure_case(bench, files, strategy, rounds))
            print(f"  {files} files, {strategy}", flush=True)
    legend = LEGEND.format(rounds=rounds, place=place, workers=WORKERS + 1)
    first = ["A rollback", "", table(TITLES, rows), "", legend]
    swaps = table(SWAP_TITLES, [_measure_swap(how) for how in HOWS])
    return "\n".join([*first, "", "The swap", "", swaps, "", SWAP_LEGEND.format(swaps=SWAPS, place=place)])


def _measure_case(bench: Bench, files: int, strategy: str, rounds: int) -> list[str]:
    links = Links(bench.scratch.www)
    ours: list[tuple[float, float, float]] = []
    theirs: dict[str, list[float]] = {name: [] for name in RECIPES}
    for _ in range(rounds):
        os.sync()  # what the one before left must not be written in the time of this one
        ours.append(bench.roll_back())
        for name, recipe in RECIPES.items():
            theirs[name].append(links.switch(recipe))
    figures = [*zip(*ours, strict=True), *theirs.values()]
    kind = "link" if strategy == "symlink" else "directory"
    return [str(files), kind, *(f"{quantile(values, 0.5) * 1e3:.1f}" for values in figures)]


def _measure_swap(how: How) -> list[str]:
    with _directory() as directory:
        program = compile_program("swap", directory)
        ways: dict[str, Callable[[Path], Iterator[float]]] = {
            "in C": lambda place: _swap_in_c(program, how, place),
            "swapd": lambda place: _swap(how, place),
        }
        median = {}
        for name, swaps in ways.items():
            place = directory / name.replace(" ", "-")
            for tree in ("live", "other"):
                (place / tree).mkdir(parents=True)
            if how is How.RENAME:
                (place / "live").rmdir()
                (place / "live").symlink_to("other")
            median[name] = quantile(list(swaps(place)), 0.5) * 1e6
    more = median["swapd"] - median["in C"]
    return [HOWS[how], *(f"{value:.1f}" for value in median.values()), f"{more:.1f}"]


def _swap_in_c(program: Path, how: How, place: Path) -> Iterator[float]:
    command = [str(program), how.value, str(place / "other"), str(place / "live"), str(SWAPS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    yield from (int(line) / 1e9 for line in done.stdout.split())


def _swap(how: How, place: Path) -> Iterator[float]:
    """What ``stages.swap`` does in the window, in the very function."""
    live, other, aside = place / "live", place / "other", place / "aside"
    for _ in range(SWAPS):
        path = aside if how is How.RENAME else other
        if how is How.RENAME:
            aside.symlink_to(other)
        swap = PathSwap(how, str(path), str(live), identify(other), str(aside) if how is How.TWICE else "")
        begin = time.perf_counter()
        swap_paths([swap])
        yield time.perf_counter() - begin
        if how is How.TWICE:
            aside.rename(other)


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="swapd-bench-") as directory:
        yield Path(directory)


if __name__ == "__main__":
    print(measure(is_quick="--quick" in sys.argv))

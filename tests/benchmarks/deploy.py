"""From a tarball to a live site: swapd, GNU tar and bsdtar with what belongs to them, and the floors."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.programs import compile_program
from tests.benchmarks.shop import COMPRESSORS, Shop, make_shop
from tests.benchmarks.table import is_met, quantile, table
from tests.support.sites import environment

ROUNDS, QUICK_ROUNDS = 7, 3
PLACES = {"disk": Path(tempfile.gettempdir()), "tmpfs": Path("/dev/shm")}
UNPACKERS = {"GNU tar": "tar", "bsdtar": "bsdtar"}
# From the issue: of GNU tar's time, with isal and without; and of the larger floor's.
GOALS = {("gzip", True): 0.55, ("gzip", False): 0.8, ("zstd", True): 1.0, ("zstd", False): 1.0}
MOST_OF_FLOOR = 1.5

TITLES = ("tarball", "decompress", "create", "swapd", "GNU tar", "bsdtar", "/tar", "goal", "/floor", "<=1.5")
LEGEND = """\
Seconds from the complete tarball to the live site, medians of {rounds}, taken in turn: {files} files, {bytes} MiB.
decompress  gzip -dc or zstd -dc to /dev/null; with Python's isal where swapd has it: a floor
create      the same files, created by a C program and synced (tests/benchmarks/create.c): a floor
swapd       swapd deploy, from its start to its end: copy, digest, verification, strict extraction, owners, times, sync,
            swap, record; without a pause
GNU tar     tar -x, sync -f, ln -s, mv -T; and the same with bsdtar
/floor      of the larger floor; isal: {isal}"""


class Bench:
    """One place, and one tarball of the shop."""

    def __init__(self, place: Path, shop: Shop, compression: str, create: Path) -> None:
        self._numbers = itertools.count(1)
        self._shop = shop
        self._compression = compression
        self._create = create
        self._root = place / compression
        self._tarball = self._root / shop.tarballs[compression].name
        self._www = self._root / "www"
        self._www.mkdir(parents=True)
        shutil.copyfile(shop.tarballs[compression], self._tarball)
        sites = self._root / "etc/swapd/sites"
        sites.mkdir(parents=True)
        (sites / "shop.toml").write_text(f'live = "{self._www}/shop"\nkeep = 100\n[pause]\nmode = "never"\n')

    def swapd(self) -> None:
        """A tarball of another name is another release."""
        dropped = self._tarball.with_name(f"shop-{next(self._numbers)}{COMPRESSORS[self._compression][0]}")
        os.link(self._tarball, dropped)
        command = [sys.executable, "-m", "swapd", "--root", str(self._root), "deploy", "shop", str(dropped)]
        _run(command, env=environment())

    def unpack(self, program: str) -> None:
        """As administrators do it."""
        tree = self._www / f"{program}-{next(self._numbers)}"
        line = 'mkdir "$2" && "$0" -x -f "$1" -C "$2" && sync -f "$2" && ln -s "$2" "$2.link" && mv -T "$2.link" "$3"'
        _run(["sh", "-c", line, program, str(self._tarball), str(tree), str(self._www / program)])

    def decompress(self) -> None:
        if self._compression == "gzip" and has_isal():
            program = (
                "import sys; from isal import igzip\n"
                "with igzip.open(sys.argv[1]) as file:\n"
                "    while file.read(1 << 20): pass"
            )
            _run([sys.executable, "-c", program, str(self._tarball)])
        else:
            _run([COMPRESSORS[self._compression][1][0], "-dc", str(self._tarball)])

    def create(self) -> None:
        tree = self._www / f"created-{next(self._numbers)}"
        tree.mkdir()
        _run([str(self._create), str(tree)], stdin=self._shop.listing.encode())
        _run(["sync", "-f", str(tree)])


def has_isal() -> bool:
    """Whether swapd decompresses gzip by it."""
    return importlib.util.find_spec("isal") is not None


def measure(*, is_quick: bool) -> str:
    """All places and compressions, as a table."""
    rounds = QUICK_ROUNDS if is_quick else ROUNDS
    rows: list[list[str] | str] = []
    with tempfile.TemporaryDirectory(prefix="swapd-bench-") as directory:
        shop = make_shop(Path(directory), is_quick=is_quick)
        create = compile_program("create", Path(directory))
        for name, path in PLACES.items():
            rows.append(f"{name}:")
            for compression in COMPRESSORS:
                with tempfile.TemporaryDirectory(prefix="swapd-bench-", dir=path) as place:
                    rows.append(_measure_case(Bench(Path(place), shop, compression, create), compression, rounds))
                    print(f"  {name} {compression}", flush=True)
    legend = LEGEND.format(
        rounds=rounds, files=shop.files, bytes=shop.bytes >> 20, isal="yes" if has_isal() else "not installed"
    )
    return "\n".join(["A deployment", "", table(TITLES, rows), "", legend])


def _measure_case(bench: Bench, compression: str, rounds: int) -> list[str]:
    ways: dict[str, Callable[[], None]] = {
        "decompress": bench.decompress,
        "create": bench.create,
        "swapd": bench.swapd,
        **{name: lambda program=program: bench.unpack(program) for name, program in UNPACKERS.items()},  # type: ignore[misc]
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            os.sync()  # what the one before left must not be written in the time of this one
            begin = time.monotonic()
            work()
            times[name].append(time.monotonic() - begin)
    median = {name: quantile(values, 0.5) for name, values in times.items()}
    goal = GOALS[compression, has_isal()]
    of_tar = median["swapd"] / median["GNU tar"]
    of_floor = median["swapd"] / max(median["decompress"], median["create"])
    figures = [f"{value:.2f}" for value in median.values()]
    goals = [
        f"{of_tar:.2f}",
        f"<={goal:g} {is_met(of_tar <= goal)}",
        f"{of_floor:.2f}",
        is_met(of_floor <= MOST_OF_FLOOR),
    ]
    return [compression, *figures, *goals]


def _run(command: list[str], *, stdin: bytes = b"", env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, input=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr.decode(errors='replace')}")

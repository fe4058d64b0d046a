"""From a tarball to a live site: swapd, GNU tar and bsdtar with what belongs to them, and the floors."""

from __future__ import annotations

import contextlib
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
from tests.benchmarks.running import Running
from tests.benchmarks.shop import COMPRESSORS, Shop, make_shop
from tests.benchmarks.table import is_met, quantile, table
from tests.support.tarballs import write_sidecar

ROUNDS, QUICK_ROUNDS = 7, 3
PLACES = {"disk": Path(tempfile.gettempdir()), "tmpfs": Path("/dev/shm")}
UNPACKERS = {"GNU tar": "tar", "bsdtar": "bsdtar"}
# From the issue: of GNU tar's time, by how gzip is decompressed; and of the larger floor's.
GOALS = {"gzip, isal": 0.55, "gzip, zlib": 0.8, "zstd": 1.0}
MOST_OF_FLOOR = 1.5
MOST_RESIDENT = 64 << 20  # bytes, of the process that reads the archive

TITLES = ("tarball", "decompress", "create", "swapd", "GNU tar", "bsdtar", "/tar", "goal", "/floor", "<=1.5")
LEGEND = """\
Seconds from the complete tarball to the live site, medians of {rounds}, taken in turn: {files} files, {bytes} MiB.
decompress  gzip -dc or zstd -dc to /dev/null; with Python's isal where swapd has it: a floor
create      the same files, created by a C program and synced (tests/benchmarks/create.c): a floor
swapd       from the tarball's name in the drop directory to the live release: copy, digest, verification, strict
            extraction, owners, times, sync, swap, records; without a pause
GNU tar     tar -x, sync -f, ln -s, mv -T; and the same with bsdtar
/floor      of the larger floor"""
MEMORY_TITLES = ("tarball", "daemon", "worker", "extraction", "<64")
MEMORY_LEGEND = "MiB that each process had resident at the most; what they share with each other counts for each."


class Bench:
    """One place, and one tarball of the shop."""

    def __init__(self, place: Path, shop: Shop, case: str, create: Path) -> None:
        self._compression, _, decoder = case.partition(", ")
        self._has_isal = decoder == "isal"
        self._numbers = itertools.count(1)
        self._deployed = 0
        self._shop = shop
        self._create = create
        self._www = place / "others"
        self._www.mkdir()
        self._tarball = place / shop.tarballs[self._compression].name
        shutil.copyfile(shop.tarballs[self._compression], self._tarball)
        self._sidecar = write_sidecar(self._tarball).read_text()
        self.daemon = Running(place / "swapd", has_isal=self._has_isal)

    def swapd(self) -> None:
        """A tarball of another name is another release."""
        self._deployed += 1
        name = f"shop-{self._deployed}{COMPRESSORS[self._compression][0]}"
        os.link(self._tarball, self.daemon.incoming / f".{name}")
        (self.daemon.incoming / f"{name}.sha256").write_text(self._sidecar.replace(self._tarball.name, name))
        os.rename(self.daemon.incoming / f".{name}", self.daemon.incoming / name)
        self.daemon.wait_live(self._deployed)

    def unpack(self, program: str) -> None:
        """As administrators do it."""
        tree = self._www / f"{program}-{next(self._numbers)}"
        line = 'mkdir "$2" && "$0" -x -f "$1" -C "$2" && sync -f "$2" && ln -s "$2" "$2.link" && mv -T "$2.link" "$3"'
        _run(["sh", "-c", line, program, str(self._tarball), str(tree), str(self._www / program)])

    def decompress(self) -> None:
        if self._has_isal:
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


def measure(*, is_quick: bool) -> str:
    """All places and compressions, as tables."""
    rounds = QUICK_ROUNDS if is_quick else ROUNDS
    rows: list[list[str] | str] = []
    sizes: list[list[str] | str] = []
    with tempfile.TemporaryDirectory(prefix="swapd-bench-") as directory:
        shop = make_shop(Path(directory), is_quick=is_quick)
        create = compile_program("create", Path(directory))
        for name, path in PLACES.items():
            rows.append(f"{name}:")
            for case in GOALS:
                with tempfile.TemporaryDirectory(prefix="swapd-bench-", dir=path) as place:
                    bench = Bench(Path(place), shop, case, create)
                    with contextlib.closing(bench.daemon):
                        rows.append(_measure_case(bench, case, rounds))
                        if path is PLACES["tmpfs"]:
                            sizes.append(_measure_memory(bench, case))
                    print(f"  {name} {case}", flush=True)
    legend = LEGEND.format(rounds=rounds, files=shop.files, bytes=shop.bytes >> 20)
    memory = ["Memory", "", table(MEMORY_TITLES, sizes), "", MEMORY_LEGEND]
    return "\n".join(["A deployment", "", table(TITLES, rows), "", legend, "", "", *memory])


def _measure_case(bench: Bench, case: str, rounds: int) -> list[str]:
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
    goal = GOALS[case]
    of_tar = median["swapd"] / median["GNU tar"]
    of_floor = median["swapd"] / max(median["decompress"], median["create"])
    figures = [f"{value:.2f}" for value in median.values()]
    goals = [
        f"{of_tar:.2f}",
        f"<={goal:g} {is_met(of_tar <= goal)}",
        f"{of_floor:.2f}",
        is_met(of_floor <= MOST_OF_FLOOR),
    ]
    return [case, *figures, *goals]


def _measure_memory(bench: Bench, case: str) -> list[str]:
    """In a deployment of its own: looking takes time."""
    with bench.daemon.measured() as most:
        bench.swapd()
    figures = [f"{most[name] / (1 << 20):.0f}" for name in ("daemon", "worker", "extraction")]
    return [case, *figures, is_met(most["extraction"] < MOST_RESIDENT)]


def _run(command: list[str], *, stdin: bytes = b"", env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, input=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr.decode(errors='replace')}")

"""From the last byte of an upload to its claim; and a thousand uploads at once."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.running import Running, running
from tests.benchmarks.table import is_met, milliseconds, quantile, table
from tests.support.tarballs import pack, site_content, write_sidecar

ROUNDS, QUICK_ROUNDS = 21, 7
CROWD, QUICK_CROWD = 1000, 200
HUNDRED = 100
MOST = 100.0  # milliseconds, from the issue

CLAIM_TITLES = ("upload", "p50", "p90", "max", f"<{MOST:g}")
CLAIM_LEGEND = """\
Milliseconds from an upload's last system call to the record of the deployment's start, which follows the private copy,
its digest, and an fsync; {rounds} uploads each to an idle daemon, taken in turn.
renamed, sidecar first   rsync, mv: the tarball gets its name last
renamed, sidecar last    the tarball is there before its sidecar
written, sidecar first   scp, sftp: the tarball is written under its own name and closed"""
CROWD_TITLES = ("hundred", "ms each", "of the processor")
CROWD_LEGEND = """\
{count} small tarballs with sidecars, all there when the daemon begins, take {seconds:.1f} s.
In order: {in_order}; lost: {lost}.
ms each            from one outcome to the next, the median of this hundred
of the processor   milliseconds that the daemon and all its children took for each, which other load changes less; the
                   first hundred has in it that a marker is written for each of the crowd"""


def measure(*, is_quick: bool) -> str:
    """Both tables."""
    with tempfile.TemporaryDirectory(prefix="swapd-bench-") as directory:
        claim = _measure_claim(Path(directory) / "claim", QUICK_ROUNDS if is_quick else ROUNDS)
        crowd = _measure_crowd(Path(directory) / "crowd", QUICK_CROWD if is_quick else CROWD)
    return f"{claim}\n\n\n{crowd}"


def _measure_claim(root: Path, rounds: int) -> str:
    ways: dict[str, Callable[[Running, Path], float]] = {
        "renamed, sidecar first": _rename_tarball_last,
        "renamed, sidecar last": _rename_sidecar_last,
        "written, sidecar first": _write_tarball,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    with running(root, settle="1h") as daemon:
        for number in range(rounds):
            for way, (name, put) in enumerate(ways.items()):
                tarball = _prepare(root, f"claim-{number}-{way}.tar.gz")
                begin = put(daemon, tarball)
                release = tarball.name.removesuffix(".tar.gz")
                times[name].append((daemon.wait_said(f"deploying {release}@") - begin) * 1e3)
                daemon.wait_live(number * len(ways) + way + 1)
    rows = [
        [name, *(milliseconds(quantile(values, share)) for share in (0.5, 0.9, 1)), is_met(max(values) < MOST)]
        for name, values in times.items()
    ]
    return "\n".join(["To the claim", "", table(CLAIM_TITLES, rows), "", CLAIM_LEGEND.format(rounds=rounds)])


def _prepare(root: Path, name: str) -> Path:
    tarball = root / name
    tarball.write_bytes(pack(site_content(name), name))
    write_sidecar(tarball)
    return tarball


def _put(path: Path, daemon: Running) -> float:
    os.rename(path, daemon.incoming / path.name)
    return time.monotonic()


def _sidecar(tarball: Path) -> Path:
    return tarball.with_name(f"{tarball.name}.sha256")


def _rename_tarball_last(daemon: Running, tarball: Path) -> float:
    _put(_sidecar(tarball), daemon)
    return _put(tarball, daemon)


def _rename_sidecar_last(daemon: Running, tarball: Path) -> float:
    _put(tarball, daemon)
    return _put(_sidecar(tarball), daemon)


def _write_tarball(daemon: Running, tarball: Path) -> float:
    _put(_sidecar(tarball), daemon)
    (daemon.incoming / tarball.name).write_bytes(tarball.read_bytes())
    return time.monotonic()


def _measure_crowd(root: Path, count: int) -> str:
    prepared = root.with_name("prepared")
    prepared.mkdir()
    names = [f"many-{number:04}.tar.gz" for number in range(count)]
    tarballs = [_prepare(prepared, name) for name in names]

    def drop_all(incoming: Path) -> None:
        for tarball in tarballs:
            for path in (_sidecar(tarball), tarball):
                os.rename(path, incoming / path.name)

    begin = time.monotonic()
    with running(root, before=drop_all, keep=3) as daemon:
        taken = [daemon.processor()]
        for done in range(HUNDRED, count + 1, HUNDRED):
            daemon.wait_outcomes(done)
            taken.append(daemon.processor())
        last = daemon.wait_live(count)
        moments = daemon.find_live()
    order = [name for name, _ in moments]
    steps = [(b - a) * 1e3 for (_, a), (_, b) in itertools.pairwise(moments)]
    rows = [
        [
            f"{number + 1}.",
            milliseconds(quantile(steps[number * HUNDRED : (number + 1) * HUNDRED], 0.5)),
            milliseconds((after - before) * 1e3 / HUNDRED),
        ]
        for number, (before, after) in enumerate(itertools.pairwise(taken))
    ]
    wanted = [name.removesuffix(".tar.gz") for name in names]
    legend = CROWD_LEGEND.format(
        count=count,
        seconds=last - begin,
        in_order=is_met(order == wanted),
        lost=len(set(wanted) - set(order)),
    )
    return "\n".join(["A crowd", "", table(CROWD_TITLES, rows), "", legend])

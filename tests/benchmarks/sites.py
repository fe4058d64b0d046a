"""A hundred sites with twenty releases each: what the status costs, and the daemon's start and memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import tomli_w

from swapd.host.files import identify
from swapd.model.layout import Layout
from swapd.model.record import Deployment, LiveRelease, SiteState, now
from swapd.model.release import DeploymentId, Digest, Outcome, ReleaseId, SiteName
from tests.benchmarks.table import milliseconds, quantile, table
from tests.support.daemon import Daemon
from tests.support.sites import environment

SITES, RELEASES = 100, 20
ROUNDS, QUICK_ROUNDS = 7, 3
CALM = 300.0  # seconds of watchdog: no pings of a hurry that no host has

LEGEND = """\
{sites} sites with {releases} releases and as many records each; medians of {rounds}, taken in turn.
python      a bare interpreter, started and ended: the floor of every command; click: with swapd's command line imported
ls          ls -lR of the places that the status looks at, without what is in the releases
status      swapd status, of all sites and of one; --json of all
daemon      from its start until systemd is told that it is ready, all drop directories watched
memory      resident set of the daemon and of the process that watches for it; threads; inotify instances, of which a
            user may have {most}"""


def build(root: Path) -> Layout:
    """Writes what deployments would have left, without the deployments."""
    layout = Layout(root)
    for number in range(SITES):
        _build_site(layout, SiteName(f"site{number:03}"))
    return layout


def _build_site(layout: Layout, name: SiteName) -> None:
    live = layout.root / "www" / name
    releases = live.with_name(f"{name}.releases")
    layout.sites.mkdir(parents=True, exist_ok=True)
    layout.site_file(name).write_text(tomli_w.dumps({"live": str(live), "keep": RELEASES}))
    (layout.spool / name).mkdir(parents=True)
    layout.deployments(name).mkdir(parents=True)
    began = now() - timedelta(days=RELEASES)
    ids = []
    for number in range(RELEASES):
        release = ReleaseId(f"{name}-{number}@{number:012x}")
        (releases / release).mkdir(parents=True)
        (releases / release / "index.html").write_text(release)
        deployment = Deployment(
            id=DeploymentId(str(uuid.uuid4())),
            site=name,
            outcome=Outcome.LIVE,
            started=began + timedelta(days=number),
            ended=began + timedelta(days=number, seconds=2),
            file_name=f"{name}-{number}.tar.gz",
            is_dropped=True,
            release=release,
            digest=Digest(f"{number:064x}"),
            starts=1,
            is_told=True,
            is_closed=True,
        )
        path = layout.deployments(name) / f"{deployment.id}.toml"
        path.write_text(tomli_w.dumps(deployment.document()))
        ids.append((release, deployment.id))
    live.symlink_to(f"{name}.releases/{ids[-1][0]}")
    current = LiveRelease(ids[-1][0], Digest(f"{RELEASES - 1:064x}"), ids[-1][1], now(), identify(live))
    state = SiteState(current, tuple(release for release, _ in reversed(ids[:-1])))
    layout.site_record(name).write_text(tomli_w.dumps(state.document()))


def measure(*, is_quick: bool) -> str:
    """All of it, as a table."""
    rounds = QUICK_ROUNDS if is_quick else ROUNDS
    with tempfile.TemporaryDirectory(prefix="swapd-bench-") as directory:
        layout = build(Path(directory) / "root")
        swapd = [sys.executable, "-m", "swapd", "--root", str(layout.root)]
        listed = [str(layout.spool), str(layout.state), str(layout.root / "www")]
        ways: dict[str, Callable[[], float]] = {
            "python": lambda: _time([sys.executable, "-c", "pass"]),
            "click": lambda: _time([sys.executable, "-c", "import swapd.verbs"]),
            "ls": lambda: _time(["ls", "-lR", "-I", "*@*", *listed]),
            "status": lambda: _time([*swapd, "status"]),
            "status site000": lambda: _time([*swapd, "status", "site000"]),
            "status --json": lambda: _time([*swapd, "status", "--json"]),
            "daemon": lambda: _start(layout)[0],
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, work in ways.items():
                times[name].append(work())
        rows = [[name, milliseconds(quantile(values, 0.5) * 1000)] for name, values in times.items()]
        memory = _start(layout)[1]
    legend = LEGEND.format(
        sites=SITES,
        releases=RELEASES,
        rounds=rounds,
        most=Path("/proc/sys/fs/inotify/max_user_instances").read_text().strip(),
    )
    return "\n".join(["Many sites", "", table(("", "ms"), rows), "", memory, "", legend])


def _time(command: list[str]) -> float:
    begin = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment())
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr.decode(errors='replace')}")
    return time.monotonic() - begin


def _start(layout: Layout) -> tuple[float, str]:
    """How long a start took until all is watched, and what it then has."""
    begin = time.monotonic()
    line = [sys.executable, "-m", "swapd", "--root", str(layout.root), "run"]
    daemon = Daemon(line, environment(), layout.root / "daemon.log", CALM)
    try:
        daemon.wait_ready()
        took = time.monotonic() - begin
        children = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
        pids = [daemon.process.pid, *map(int, children)]
        parts = [f"{_status(pid, 'VmRSS') // 1024} MiB, {_status(pid, 'Threads')} threads" for pid in pids]
        return took, f"memory: {'; '.join(parts)}; {sum(map(_instances, pids))} inotify instances"
    finally:
        daemon.stop()


def _status(pid: int, key: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def _instances(pid: int) -> int:
    directory = f"/proc/{pid}/fd"
    links = []
    for number in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(f"{directory}/{number}"))
    return sum(link == "anon_inode:inotify" for link in links)

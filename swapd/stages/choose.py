"""Choose: how a site is swapped on this host, before anything is extracted for it, and what stands in the way.

Facts that this stage rests on:

- RENAME_EXCHANGE is refused across filesystems, across two bind mounts of one filesystem, and on a mount point; some
  FUSE filesystems report success and destroy the target. So it is tried beforehand in the real directories, and
  judged by the inodes.
- A mount below the live path would move away with the old tree.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from swapd.host.linux import RENAME_EXCHANGE, mount_points, renameat2
from swapd.host.refusals import explain
from swapd.model.config import Site, Strategy
from swapd.model.errors import Failed

PROBE = ".swapd-probe-"
SAFE = "The live release and the upload are untouched."


@dataclass(frozen=True, slots=True)
class Choice:
    """How this site is swapped on this host now, and why."""

    strategy: Strategy
    reason: str


def choose(site: Site) -> Choice:
    """The strategy for the site as its paths are now; ``Failed`` says what on this host stands in the way of it.

    After this, the releases directory is there. Nothing else has changed.
    """
    _check_paths(site)
    try:
        site.releases.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise explain(error, site.releases.parent) from error
    _check_filesystem(site)
    is_link, is_there = site.live.is_symlink(), os.path.lexists(site.live)
    kind = "a symbolic link" if is_link else "a directory" if is_there else "not there yet"
    wants_link = site.strategy is Strategy.SYMLINK or (site.strategy is Strategy.AUTO and (is_link or not is_there))
    # One of several live paths is exchanged, link or not: should another fail, it must be what it was again.
    if wants_link and (not is_there or (is_link and not site.is_one_of_several)):
        return Choice(Strategy.SYMLINK, f"{site.live} is {kind}")
    if site.strategy is Strategy.RENAME:
        return Choice(Strategy.RENAME, "the configuration says so")
    obstacle = _find_exchange_obstacle(site)
    if obstacle is None:
        strategy = Strategy.SYMLINK if wants_link else Strategy.EXCHANGE
        return Choice(strategy, f"{site.live} is {kind} and its filesystem can exchange")
    if site.strategy is Strategy.AUTO:
        return Choice(Strategy.RENAME, f"{site.live} is {kind} and cannot be exchanged: {obstacle}")
    raise Failed(
        "cannot-exchange",
        f"{site.live} is {kind} and cannot be exchanged: {obstacle}",
        f'{SAFE} Write strategy = "rename" or "auto" in the site\'s configuration.',
    )


def _check_paths(site: Site) -> None:
    if not site.live.parent.is_dir():
        raise Failed("no-parent", f"there is no directory {site.live.parent}", f"{SAFE} Make it, or correct live.")
    if os.path.lexists(site.live) and not site.live.is_symlink() and not site.live.is_dir():
        raise Failed("live-is-a-file", f"{site.live} is a file", f"{SAFE} Move it away, or correct live.")
    # By real paths, as the kernel has its mounts; a link may lead to a mount, but not to what one below would cover.
    real = Path(os.path.realpath(site.live.parent)) / site.live.name
    target = Path(os.path.realpath(site.live))
    for point in map(Path, mount_points()):
        if point == real or real in point.parents or target in point.parents:
            raise Failed(
                "live-is-mounted",
                f"{point} is a mount point: a swap cannot take it along",
                f"{SAFE} Mount it elsewhere, above {site.live}, or list it in shared.",
            )


def _check_filesystem(site: Site) -> None:
    live = site.live if site.live.is_dir() and not site.live.is_symlink() else site.live.parent
    if site.releases.stat().st_dev != live.stat().st_dev:
        raise Failed(
            "releases-on-another-filesystem",
            f"{site.releases} is not on the filesystem of {site.live}: nothing can be renamed between them",
            f"{SAFE} Set releases in the site's configuration to a directory on that filesystem, such as "
            f"{site.live}.releases.",
        )


def sweep_probes(site: Site) -> None:
    """Removes the empty directories that a crash amid an earlier probe left beside the live path.

    Under the site's lock: nobody else has probes of this site's. Raises ``OSError``.
    """
    for path in site.live.parent.glob(f"{PROBE}{site.name}-*"):
        path.rmdir()


def _find_exchange_obstacle(site: Site) -> str | None:
    """Why two directories in the real places cannot be exchanged, or None: tried, and judged by the inodes."""
    name = f"{PROBE}{site.name}-{secrets.token_hex(4)}"
    here, there = site.live.parent / name, site.releases / name
    try:
        here.mkdir()
        there.mkdir()
        before = here.stat().st_ino, there.stat().st_ino
        renameat2(str(here), str(there), RENAME_EXCHANGE)
        after = there.stat().st_ino, here.stat().st_ino
    except OSError as error:
        return str(error.strerror)
    finally:
        for probe in (here, there):
            try:
                probe.rmdir()
            except FileNotFoundError:
                pass
    return None if before == after else "the filesystem reports success and does something else"

"""The map file by which the web server finds the tree that it serves.

Facts that this rests on:

- httpd's mod_rewrite looks at the map's time for each request, and reads the map again when that differs from the one
  that it knows. Microseconds count for it; the kernel stamps files by a clock that ticks every few milliseconds. So
  each map gets a time of its own, later than the one before it.
- By SELinux's labels, httpd may not read what is below /var/lib: a map has the label of the one before it, or of the
  directory that holds the live path.
- It reads the map from the beginning on each time, and may be in the middle of it: it is replaced, never written to.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from swapd.host.files import fsync_directory, identify, is_tree
from swapd.host.labels import has_labels, label_like
from swapd.model.config import Site, Strategy
from swapd.model.record import PathSwap, RouteSwap
from swapd.model.route import format_map, parse_map, route_base, route_to

TICK = 1_000_000  # nanoseconds: what tells the times of two maps for certain


def read_route(path: str | Path) -> str:
    """The tree that the map names; empty when it names none, or is not there. Raises ``OSError``."""
    try:
        return parse_map(Path(path).read_text("utf-8", "replace"))
    except FileNotFoundError:
        return ""


def write_map(path: Path, site: str, tree: str, *, instead_of: Path, base: Path) -> None:
    """A new map, through to the disk, that is later than the one which it is to take the place of."""
    text = format_map(site, tree).encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fchmod(descriptor, 0o644)  # httpd's children read it
        os.utime(descriptor, ns=(later := _later_than(instead_of), later))
        if has_labels():
            label_like(path, (instead_of, base))
        os.fsync(descriptor)


def _later_than(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return max(time.time_ns(), path.stat().st_mtime_ns + TICK)
    return time.time_ns()


def set_route(path: Path, site: str, tree: str, base: Path) -> None:
    """The map names the tree below ``base`` after this, or none; survives a power cut."""
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        write_map(temporary, site, tree, instead_of=path, base=base)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def lead(site: Site, tree: str) -> None:
    """The site's map names the tree after this, or none; survives a power cut."""
    set_route(site.route.map, site.name, tree, route_base(site))


def find_kept_tree(site: Site) -> str:
    """What the live path leads to, as a map names it; empty where that is no release of the site's."""
    target = Path(os.path.realpath(site.live))
    if site.live.is_symlink() and target.is_dir() and target.parent == site.releases.resolve():
        return route_to(site, site.releases / target.name)
    return ""


def is_route_lost(site: Site) -> bool:
    """Whether there is no map for a web server that is told to follow one. Raises ``OSError``."""
    if site.strategy not in (Strategy.PINNED, Strategy.AUTO) or not site.route.apache.exists():
        return False
    try:
        os.stat(site.route.map)
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False


def is_astray(site: Site) -> bool:
    """Whether the map names another tree than the one that the live path leads to. Raises ``OSError``."""
    tree = read_route(site.route.map)
    return bool(tree) and not (site.live.exists() and is_tree(route_base(site) / tree, identify(site.live)))


def is_route_right(site: Site) -> bool:
    """Whether the visitors of a pinned site come by the route to what is live."""
    return site.strategy is not Strategy.PINNED or (bool(read_route(site.route.map)) and not is_astray(site))


def sweep_maps(site: Site) -> None:
    """Removes what a crash left of a map that was about to be written; under the site's lock. Raises ``OSError``."""
    for path in site.route.map.parent.glob(f".{site.route.map.name}.{'[0-9a-f]' * 8}"):
        path.unlink()


def stage_route(route: RouteSwap, site: str) -> None:
    """The new map stands ready, and the old one has a second name by which it can be brought back."""
    path = Path(route.map)
    write_map(Path(route.new), site, route.tree, instead_of=path, base=Path(route.base))
    with contextlib.suppress(FileNotFoundError):
        os.link(path, route.old)
    fsync_directory(path.parent)


def switch_route(route: RouteSwap) -> None:
    """From here on, requests that begin are served from the new tree."""
    os.rename(route.new, route.map)


def take_route_back(route: RouteSwap) -> None:
    """The map is the one before again. Raises ``OSError``."""
    try:
        os.rename(route.old, route.map)
    except FileNotFoundError:
        os.unlink(route.map)  # there was none


def is_routed(swap: PathSwap) -> bool:
    """Whether the web server is led to the staged tree, as far as this swap is about that."""
    if swap.route is None:
        return True
    tree = read_route(swap.route.map)
    return bool(tree) and is_tree(Path(swap.route.base) / tree, swap.staged)


def forget_staged_route(route: RouteSwap) -> None:
    """Only the map is left of a swap that is done, or was given up; survives a power cut."""
    for name in (route.new, route.old):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    fsync_directory(Path(route.map).parent)

"""Whether the filesystem can exchange two directories: tried, and judged by the inodes.

RENAME_EXCHANGE is refused across filesystems, across two bind mounts of one filesystem, and on a mount point; some FUSE
filesystems report success and destroy the target. So it is tried beforehand in the real directories.
"""

from __future__ import annotations

import secrets

from swapd.host.linux import RENAME_EXCHANGE, renameat2
from swapd.model.config import Site
from swapd.model.errors import Issue
from swapd.strategies.way import describe_live

PROBE = ".swapd-probe-"


def find_exchange_obstacle(site: Site) -> Issue | None:
    """Why what stands at the live path cannot be exchanged with a release, or None."""
    why = _try_exchange(site)
    if why is None:
        return None
    return Issue(
        "cannot-exchange",
        f"{describe_live(site)} and cannot be exchanged: {why}",
        'Write strategy = "rename" or "auto" in the site\'s configuration.',
    )


def _try_exchange(site: Site) -> str | None:
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


def sweep_probes(site: Site) -> None:
    """Removes the empty directories that a crash amid an earlier probe left beside the live path.

    Under the site's lock: nobody else has probes of this site's. Raises ``OSError``.
    """
    for path in site.live.parent.glob(f"{PROBE}{site.name}-*"):
        path.rmdir()

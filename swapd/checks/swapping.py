"""How a site will be swapped, and what of its filesystems stands in the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from swapd.host.files import opened_directory
from swapd.host.linux import RAMFS_MAGIC, TMPFS_MAGIC, fstatfs_type
from swapd.host.refusals import explain
from swapd.model.config import PauseMode, Site, Strategy
from swapd.model.errors import Failed
from swapd.model.findings import AS_ROOT, Finding, Severity
from swapd.model.layout import Layout
from swapd.stages.choose import Choice, look


def find_strategies(site: Site, _: Layout) -> Iterator[Finding]:
    """For each live path how it is swapped, and why; or why it cannot be, and the way out."""
    for part in site.parts:
        try:
            choice = look(part)
        except Failed as error:
            yield Finding.of(site.name, f"{part.live} cannot be swapped", error)
        except OSError as error:
            if isinstance(error, PermissionError) and os.geteuid() != 0:
                yield _not_tried(part, error)
                continue
            directory = Path(error.filename or part.releases)
            yield Finding.of(site.name, f"{part.live} cannot be swapped", explain(error, directory))
        else:
            yield _chosen(part, choice)
            if choice.strategy is Strategy.RENAME and part.pause.mode is PauseMode.NEVER:
                yield _has_window(part, choice)


def _chosen(site: Site, choice: Choice) -> Finding:
    strategy = choice.strategy.value
    return Finding(
        site.name,
        Severity.INFO,
        "strategy",
        f"{site.live} is swapped by {strategy}",
        choice.reason,
        facts={"live": str(site.live), "strategy": strategy},
    )


def _not_tried(site: Site, error: PermissionError) -> Finding:
    return Finding(
        site.name,
        Severity.UNKNOWN,
        "not-tried",
        f"how {site.live} will be swapped is not known to you",
        f"it is tried with scratch directories, and {error.filename} says: {error.strerror}",
        AS_ROOT,
        {"live": str(site.live)},
        (f"sudo swapd check {site.name}",),
    )


def _has_window(site: Site, choice: Choice) -> Finding:
    return Finding(
        site.name,
        Severity.WARNING,
        "window-without-pause",
        f"visitors may get errors amid a swap: for an instant there is no {site.live}",
        f'it is swapped by two renames ({choice.reason}), and [pause] mode = "never" lets httpd run meanwhile',
        f"Remove that mode, so that httpd is paused for the swap; or make {site.live} a symbolic link to a directory: "
        "swapping that leaves no instant without it.",
        {"live": str(site.live)},
    )


def find_volatile(site: Site, _: Layout) -> Iterator[Finding]:
    """What a restart of the machine would take with it."""
    for part in site.parts:
        place = part.live if os.path.isdir(part.live) else part.live.parent
        try:
            with opened_directory(place) as descriptor:
                is_volatile = fstatfs_type(descriptor) in (TMPFS_MAGIC, RAMFS_MAGIC)
        except OSError:
            continue  # what is wrong there keeps it from being swapped, and has been said
        if is_volatile:
            yield Finding(
                site.name,
                Severity.WARNING,
                "volatile-filesystem",
                f"a restart of this machine loses {part.live} and every release of it",
                f"{place} is in memory (tmpfs)",
                f"Have {part.live} on a disk. If it is meant so, drop the tarball again after each restart.",
                {"live": str(part.live)},
            )

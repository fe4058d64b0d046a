"""Prune: releases past ``keep`` and what crashes left are removed, after the swap.

On ext4, extracting right after the removal of a tree of the same size takes eight times as long: not before, but where
there is no room otherwise.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable

from swapd.host.files import REMOVING, remove_tree
from swapd.model.config import Site
from swapd.model.record import SiteState
from swapd.model.release import ReleaseId

# What a crash may leave and nobody needs. Not `.staged-` and `.outgoing-`: those may be the tree that was live, and
# are recovery's to name.
LEFTOVERS = (".staging-", ".swapd-probe-", REMOVING)


def releases_to_prune(state: SiteState, keep: int) -> list[ReleaseId]:
    """What is past ``keep``: the live release counts, and it and the one before it are never among them."""
    live = state.live.release if state.live else None
    before = [release for release in state.previous if release != live]
    return before[max(keep, 2) - 1 :]


def has_leftovers(site: Site) -> bool:
    """Whether a crash left something among the releases that a prune removes, at any of the site's live paths."""
    for part in site.parts:
        with contextlib.suppress(OSError):
            if any(name.startswith(LEFTOVERS) for name in os.listdir(part.releases)):
                return True
    return False


def prune(site: Site, releases: Iterable[ReleaseId]) -> None:
    """After this they are gone, and so is what crashes left among the releases. Follows no link.

    A release is renamed aside first, so that a crash never leaves half a tree under a release's name. What cannot be
    removed keeps nothing else from it; an ``ExceptionGroup`` of the ``OSError`` then says it all.
    """
    errors: list[OSError] = []
    directory = os.open(site.releases, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for release in releases:
            try:
                os.rename(release, f"{REMOVING}{secrets.token_hex(8)}", src_dir_fd=directory, dst_dir_fd=directory)
            except FileNotFoundError:
                continue
            except OSError as error:
                errors.append(error)
        for name in os.listdir(directory):
            if name.startswith(LEFTOVERS):
                try:
                    remove_tree(directory, name)
                except OSError as error:
                    errors.append(error)
    finally:
        os.close(directory)
    if errors:
        raise ExceptionGroup("not everything could be removed", errors)

"""Prune: releases past ``keep`` and what crashes left are removed, after the swap.

Facts that this stage rests on:

- On ext4, extracting right after the removal of a tree of the same size takes eight times as long: never before.
- A release is renamed aside before anything of it is removed: that takes no time, so it is done under the site's lock,
  and a crash never leaves half a tree under a release's name. What is aside nobody needs, and anybody may remove it at
  any time; it is safe to kill whoever does.
- Somebody may have gone into a release between a look and the rename. After the rename nobody can, so that a second
  look is final.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable

from swapd.host.files import REMOVING, opened_directory, remove_tree
from swapd.host.usage import Usage, users_of_tree
from swapd.model.config import Site
from swapd.model.record import SiteState
from swapd.model.release import ReleaseId
from swapd.model.usage import User

# What a crash may leave and nobody needs. Not `.staged-` and `.outgoing-`: those may be the tree that was live, and
# are recovery's to name.
ABANDONED = (".staging-", ".swapd-probe-")
ASIDE = (REMOVING,)  # nobody works on these; a `.staging-` may be a deployment's that is under way
LEFTOVERS = (*ABANDONED, *ASIDE)


def releases_to_prune(state: SiteState, keep: int) -> list[ReleaseId]:
    """What is past ``keep``, which counts good releases, the live one among them; bad ones first.

    Never the live release, nor the one before it, nor the good one that a rollback would go to, nor a pinned one;
    pinned ones are kept on top of those that count.
    """
    live = state.live.release if state.live else None
    before = [release for release in state.previous if release != live]
    good = [release for release in before if release not in state.bad and release not in state.pinned]
    kept = {*before[:1], *good[: max(keep, 2) - 1], *state.pinned}
    doomed = [release for release in before if release not in kept]
    return sorted(doomed, key=lambda release: release not in state.bad)


def find_leftovers(site: Site, prefixes: tuple[str, ...] = LEFTOVERS) -> list[str]:
    """What is on its way out among the site's releases, and what a crash left there that a prune removes."""
    found = []
    for part in site.parts:
        try:
            found += [f"{part.releases}/{name}" for name in os.listdir(part.releases) if name.startswith(prefixes)]
        except OSError:
            continue
    return sorted(found)


def find_users(site: Site, release: str, usage: Usage) -> list[User]:
    """Who uses the release, which may have been renamed aside. Raises ``OSError``."""
    try:
        with opened_directory(site.releases) as directory:
            return users_of_tree(directory, release, usage)
    except FileNotFoundError:
        return []


def set_aside(site: Site, release: ReleaseId) -> str | None:
    """Renames a release to where it is removed; its name there, None where it was not there. Raises ``OSError``."""
    aside = f"{REMOVING}{secrets.token_hex(8)}"
    with opened_directory(site.releases) as directory:
        try:
            os.rename(release, aside, src_dir_fd=directory, dst_dir_fd=directory)
        except FileNotFoundError:
            return None
    return aside


def put_back(site: Site, aside: str, release: ReleaseId) -> None:
    """The release has its name again. Raises ``OSError``."""
    with opened_directory(site.releases) as directory:
        os.rename(aside, release, src_dir_fd=directory, dst_dir_fd=directory)


def set_abandoned_aside(site: Site) -> None:
    """What crashes left under a deployment's names is to be removed; only under the site's lock, when none is there.

    Raises ``OSError``.
    """
    with opened_directory(site.releases) as directory:
        for name in os.listdir(directory):
            if name.startswith(ABANDONED):
                os.rename(name, f"{REMOVING}{secrets.token_hex(8)}", src_dir_fd=directory, dst_dir_fd=directory)


def remove_aside(sites: Iterable[Site]) -> list[OSError]:
    """What was renamed aside is gone after this, but for what could not be removed: the errors. Follows no link."""
    errors: list[OSError] = []
    for site in sites:
        try:
            with opened_directory(site.releases) as directory:
                for name in os.listdir(directory):
                    if name.startswith(REMOVING):
                        try:
                            remove_tree(directory, name)
                        except OSError as error:
                            errors.append(error)
        except OSError as error:
            errors.append(error)
    return errors

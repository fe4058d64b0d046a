"""The swap of live paths by their renames, done and undone. Which of them were done, the inodes tell.

Where visitors come by a route, its map is renamed first: what the map names is live for them. Whatever a crash leaves
half done of that is completed, never undone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from swapd.host.files import is_tree
from swapd.host.linux import RENAME_EXCHANGE, renameat2
from swapd.host.routes import is_routed, set_route, switch_route, take_route_back
from swapd.model.record import How, PathSwap


def swap_paths(swaps: Sequence[PathSwap]) -> None:
    """All of them, or none: what was done before one fails is undone. Nothing but renames. Raises ``OSError``."""
    for number, swap in enumerate(swaps):
        try:
            _swap(swap)
        except OSError:
            for done in reversed(swaps[:number]):
                _undo(done)
            raise


def _swap(swap: PathSwap) -> None:
    if swap.route is None:
        _rename(swap)
        return
    switch_route(swap.route)
    try:
        _rename(swap)
    except OSError:
        take_route_back(swap.route)
        raise


def _rename(swap: PathSwap) -> None:
    match swap.how:
        case How.RENAME:
            os.rename(swap.path, swap.live)
        case How.EXCHANGE:
            renameat2(swap.path, swap.live, RENAME_EXCHANGE)
        case How.TWICE:
            os.rename(swap.live, swap.outgoing)
            try:
                # Without flags: this is for filesystems that refuse every flag. What a directory can replace is an
                # empty directory.
                os.rename(swap.path, swap.live)
            except OSError:
                # It is gone when somebody else has undone the first one: whoever resumes httpd for a pauser that hangs.
                with contextlib.suppress(FileNotFoundError):
                    os.rename(swap.outgoing, swap.live)
                raise


def _undo(swap: PathSwap) -> None:
    match swap.how:
        case How.RENAME:
            os.rename(swap.live, swap.path)
        case How.EXCHANGE:
            renameat2(swap.path, swap.live, RENAME_EXCHANGE)
        case How.TWICE:
            os.rename(swap.live, swap.path)
            os.rename(swap.outgoing, swap.live)


def is_swapped(swap: PathSwap) -> bool:
    """Whether the live path leads to the staged tree, and the route too, where there is one."""
    return is_tree(swap.live, swap.staged) and is_routed(swap)


def is_half_swapped(swap: PathSwap) -> bool:
    """Whether a crash, or a power cut, let only one of two renames happen.

    Of a directory's two, nothing is live, and what was is there; of a route and the live path, one is the new release.
    """
    if swap.route is not None:
        return is_routed(swap) != is_tree(swap.live, swap.staged)
    return swap.how is How.TWICE and not os.path.lexists(swap.live) and os.path.lexists(swap.outgoing)


def complete(swap: PathSwap, site: str) -> None:
    """Does what is left of a half-done swap; what is done may be done again. Raises ``OSError``."""
    if swap.route is None:
        os.rename(swap.path, swap.live)
        return
    if not is_routed(swap):
        set_route(Path(swap.route.map), site, swap.route.tree, Path(swap.route.base))
    if not is_tree(swap.live, swap.staged):
        _rename(swap)


def put_back(swaps: Sequence[PathSwap]) -> None:
    """After a crash amid several renames: all live paths are what they were, unless all had been swapped.

    Whatever stands there that is not known stays as it is. Raises nothing: this must not keep httpd from its resume.
    """
    if all(is_swapped(swap) for swap in swaps):
        return
    for swap in reversed(swaps):
        with contextlib.suppress(OSError):
            if is_half_swapped(swap):
                # Not by RENAME_NOREPLACE: the filesystems that need two renames refuse the flag.
                os.rename(swap.outgoing, swap.live)
            elif is_swapped(swap):
                _undo(swap)

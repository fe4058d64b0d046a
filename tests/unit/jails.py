"""Who enters the jail: root with all capabilities, with the unit's few, or where there is no Landlock, and a user."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from swapd.host import jail

NOBODY = 65534
is_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def refuse(*_: object) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def as_in_the_unit(patch: pytest.MonkeyPatch) -> None:
    for layer in ("_change_root", "_change_user"):
        patch.setattr(jail, layer, refuse)
    patch.setattr(jail.linux, "unshare", refuse)
    patch.setattr(jail.linux, "drop_bounding_set", refuse)


def without_landlock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(jail.landlock, "restrict", refuse)


def as_nobody(patch: pytest.MonkeyPatch) -> None:
    entering = jail.enter

    def enter(confinement: jail.Confinement, parent: int) -> jail.Layers:
        if confinement.tree is not None:
            os.fchown(confinement.tree, NOBODY, NOBODY)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return entering(confinement, parent)

    patch.setattr(jail, "enter", enter)


def as_we_are(_: pytest.MonkeyPatch) -> None:
    pass


Setting = Callable[[pytest.MonkeyPatch], None]
ROOTS = [as_in_the_unit, without_landlock, as_nobody]
SETTINGS = [as_we_are, *(pytest.param(each, marks=is_root) for each in ROOTS)]

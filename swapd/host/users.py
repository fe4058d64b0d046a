"""Users by name: who owns a file, and who runs a command: the person behind sudo, not root."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from swapd.model.text import printable

_UNSET = 2**32 - 1  # of a process that no login began, such as a service's


def find_operator(
    environment: Mapping[str, str] = os.environ, loginuid: Path = Path("/proc/self/loginuid"), euid: int | None = None
) -> str:
    """The user's name, or uid where nobody has it.

    The login's uid is set once, by PAM, and kept over sudo and su; nobody without CAP_AUDIT_CONTROL can change it, and
    so it is believed first. Without one, what sudo says counts for root alone, whose environment only root can make,
    and only where the system knows the user by that very name.
    """
    try:
        logged_in = int(loginuid.read_text())
    except (OSError, ValueError):
        logged_in = _UNSET
    if logged_in != _UNSET:
        return user_name(logged_in)
    if (os.geteuid() if euid is None else euid) == 0 and (user := environment.get("SUDO_USER")):
        try:
            if str(pwd.getpwnam(user).pw_uid) == environment.get("SUDO_UID"):
                return printable(user)
        except KeyError:
            pass
    return user_name(os.getuid())


def user_name(uid: int) -> str:
    """The name that the system knows the user by, or the number."""
    try:
        return printable(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return str(uid)

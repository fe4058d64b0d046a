"""Owners of releases, by name and by number."""

from __future__ import annotations

import grp
import pwd

from swapd.model.errors import Failed


def read_owner(owner: str) -> tuple[int, int]:
    """The uid and gid of USER:GROUP, by name or number; ``Failed`` (``unknown-owner``) where one is not there."""
    user, group = owner.split(":")
    try:
        uid = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
        gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise Failed(
            "unknown-owner",
            f"owner = {owner}: {error.args[0]}",
            "Make that user and group on this host, or name others in the site's configuration.",
        ) from error
    return uid, gid


def group_name(gid: int) -> str:
    """The name that the system knows the group by, or the number."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)

"""Admit: a tarball that certainly has no room here is refused before a byte of it is extracted.

Only what is certain refuses, and nothing that a tarball says of itself admits it: while it is extracted the room is
looked at again and again (``host.room``). Both leave the same reserve free.
"""

from __future__ import annotations

from collections.abc import Callable

from swapd.archive import read_least
from swapd.host.files import opened_directory
from swapd.host.refusals import explain
from swapd.host.room import read_room, stores_as_it_is
from swapd.model.config import Site
from swapd.model.release import VerifiedTarball
from swapd.model.room import refuse_lack


def admit(verified: VerifiedTarball, site: Site, keep_going: Callable[[], None] = lambda: None) -> None:
    """Raises ``NoRoom`` (``no-space``, ``no-inodes``), which says the numbers; else nothing is changed or promised.

    ``keep_going`` is called now and then, and may raise.
    """
    tarball, rules = verified.tarball, site.verify
    try:
        with opened_directory(site.releases) as directory:
            room = read_room(directory)
            least_bytes = least_inodes = 0
            if stores_as_it_is(directory):
                entries = rules.max_entries if room.free_inodes is None else min(room.free_inodes, rules.max_entries)
                is_whole = tarball.expected == tarball.digest
                least_bytes, least_inodes = read_least(
                    tarball.descriptor, tarball.compression, entries, is_whole=is_whole, keep_going=keep_going
                )
            refuse_lack(room, f"release {tarball.release}", str(site.releases), least_bytes, least_inodes)
    except OSError as error:
        raise explain(error, site.releases) from error

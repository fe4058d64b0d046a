"""Admit: a tarball that is certainly too large, or has no room here, is refused before a byte of it is extracted.

Only what is certain refuses, and nothing that a tarball says of itself admits it: while it is extracted the room is
looked at again and again (``host.room``). Both leave the same reserve free.
"""

from __future__ import annotations

from collections.abc import Callable

from swapd.archive import Least, read_least
from swapd.host.files import opened_directory
from swapd.host.refusals import explain
from swapd.host.room import read_room, stores_as_it_is
from swapd.model.config import Site, Verify
from swapd.model.errors import Rejected
from swapd.model.release import Compression, Tarball, VerifiedTarball
from swapd.model.room import refuse_lack
from swapd.model.units import format_size


def admit(verified: VerifiedTarball, site: Site, keep_going: Callable[[], None] = lambda: None) -> None:
    """Nothing is changed or promised by this; what it raises says the numbers.

    ``NoRoom`` (``no-space``, ``no-inodes``); ``Rejected`` (``too-large``, ``too-many-entries``) where the tarball
    itself says that it holds more than ``max_extracted`` or ``max_entries`` allow. ``keep_going`` is called now and
    then, and may raise.
    """
    tarball, rules = verified.tarball, site.verify
    try:
        with opened_directory(site.releases) as directory:
            room = read_room(directory)
            # With more entries than there are inodes free there is no room, and no more of it need be read.
            entries = rules.max_entries if room.free_inodes is None else min(room.free_inodes, rules.max_entries)
            least = _read_least(tarball, entries, keep_going)
            # How many entries a stream's size may be made of depends on the limit, and not on the room that there is.
            is_estimate = tarball.compression is not Compression.NONE
            _refuse_over(_read_least(tarball, rules.max_entries, keep_going) if is_estimate else least, rules)
            if not stores_as_it_is(directory):
                least = Least(0, 0)
            refuse_lack(room, f"release {tarball.release}", str(site.releases), *least)
    except OSError as error:
        raise explain(error, site.releases) from error


def _read_least(tarball: Tarball, entries: int, keep_going: Callable[[], None]) -> Least:
    is_whole = tarball.expected == tarball.digest
    return read_least(tarball.descriptor, tarball.compression, entries, is_whole=is_whole, keep_going=keep_going)


def _refuse_over(least: Least, rules: Verify) -> None:
    if least.bytes > rules.max_extracted:
        raise Rejected.because(
            "too-large",
            f"it holds at least {format_size(least.bytes)} ({least.bytes} bytes), and max_extracted = "
            f"{format_size(rules.max_extracted)}",
            "Raise max_extracted in the site's [verify] table if the release is meant to be that large.",
        )
    if least.inodes > rules.max_entries:
        raise Rejected.because(
            "too-many-entries",
            f"it holds more than {rules.max_entries} entries, which max_entries allows",
            "Raise max_entries in the site's [verify] table if the release is meant to have that many.",
        )

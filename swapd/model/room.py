"""How much room a filesystem has, how much of it swapd leaves to others, and what is said where it does not do."""

from __future__ import annotations

from dataclasses import dataclass

from swapd.model.errors import Failed
from swapd.model.units import format_size

# What an extraction leaves free: a disk that is full to its last block stops databases, mail and logs of the same
# host, and a twentieth of a large disk would be room for several releases.
RESERVED_SHARE = 20  # one part in so many, of bytes and of inodes
RESERVED_BYTES = 512 << 20  # and no more than this
RESERVED_INODES = 10_000
# A retry needs so much more than what did not do: each failure then asks for more than the one before it, so that an
# archive of unknown size is not extracted in vain again and again.
RETRY_SHARE = 4
UNTOUCHED = "The live release and the upload are untouched."


@dataclass(frozen=True, slots=True)
class Room:
    """What statvfs(3) says of a filesystem, for those who have no share in what is kept for root."""

    free_bytes: int
    all_bytes: int
    free_inodes: int | None  # None where the filesystem makes them as it needs them (btrfs)
    all_inodes: int

    @property
    def reserved_bytes(self) -> int:
        """What an extraction leaves free."""
        return min(self.all_bytes // RESERVED_SHARE, RESERVED_BYTES)

    @property
    def reserved_inodes(self) -> int:
        return min(self.all_inodes // RESERVED_SHARE, RESERVED_INODES)


@dataclass(frozen=True, slots=True)
class RoomNeeded:
    """What must be free where before it is worth while to try again."""

    directory: str
    free_bytes: int
    free_inodes: int = 0

    def is_there(self, room: Room) -> bool:
        """Whether it is free now."""
        return room.free_bytes >= self.free_bytes and (room.free_inodes is None or room.free_inodes >= self.free_inodes)


class NoRoom(Failed):
    """The filesystem is too full; ``needed`` is when the daemon tries again, without being asked to."""

    def __init__(self, problem: str, message: str, needed: RoomNeeded) -> None:
        wanted = format_size(needed.free_bytes) if problem == "no-space" else f"{needed.free_inodes} inodes"
        super().__init__(
            problem,
            f"{needed.directory}: {message}",
            f"{UNTOUCHED} Make room there: a dropped tarball is taken up again by itself once {wanted} are free, and "
            "whenever it is touched.",
        )
        self.needed = needed


def refuse_lack(room: Room, what: str, directory: str, least_bytes: int, least_inodes: int) -> None:
    """Raises ``NoRoom`` unless ``what``, which needs at least so much, leaves the reserve free; before it begins."""
    needed = least_bytes + room.reserved_bytes
    if room.free_bytes < needed:
        raise NoRoom(
            "no-space",
            f"{what} needs at least {format_size(least_bytes)}; {_bytes_left(room)}",
            RoomNeeded(directory, needed),
        )
    needed_inodes = least_inodes + room.reserved_inodes
    if room.free_inodes is not None and room.free_inodes < needed_inodes:
        raise NoRoom(
            "no-inodes",
            f"{what} needs at least {least_inodes} inodes; {_inodes_left(room)}",
            RoomNeeded(directory, 0, needed_inodes),
        )


def find_lack(before: Room, room: Room, what: str, directory: str) -> NoRoom | None:
    """What to raise when the reserve is about to be used up: ``before`` is when ``what`` was begun."""
    if room.free_bytes < room.reserved_bytes:
        return lack_of_bytes(before, room, what, directory)
    if room.free_inodes is not None and room.free_inodes < room.reserved_inodes:
        return lack_of_inodes(before, room, what, directory)
    return None


def lack_of_bytes(before: Room, room: Room, what: str, directory: str) -> NoRoom:
    """The bytes do not do for ``what``; how many it needs is not known."""
    return NoRoom(
        "no-space",
        f"{what} needs more than the {format_size(before.free_bytes)} that were free before; {_bytes_left(room)}",
        RoomNeeded(directory, before.free_bytes + max(before.free_bytes // RETRY_SHARE, room.reserved_bytes, 1)),
    )


def lack_of_inodes(before: Room, room: Room, what: str, directory: str) -> NoRoom:
    """The same for inodes."""
    free = before.free_inodes or 0
    return NoRoom(
        "no-inodes",
        f"{what} needs more than the {free} inodes that were free before; {_inodes_left(room)}",
        RoomNeeded(directory, 0, free + max(free // RETRY_SHARE, room.reserved_inodes, 1)),
    )


def _bytes_left(room: Room) -> str:
    return f"{format_size(room.free_bytes)} are free, and {format_size(room.reserved_bytes)} are kept in reserve"


def _inodes_left(room: Room) -> str:
    return f"{room.free_inodes} are free, and {room.reserved_inodes} are kept in reserve"

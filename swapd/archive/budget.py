"""What is left of an archive's limits: whatever costs memory, disk or time is charged when it is promised."""

from __future__ import annotations

from swapd.archive.limits import LINK_OVERHEAD, MAX_LINK_BYTES, Limits
from swapd.archive.names import Parts, shown
from swapd.model.errors import Rejected
from swapd.model.release import printable


class Budget:
    """What is left of the limits. Each ``charge_`` raises ``Rejected`` before anything is spent."""

    def __init__(self, limits: Limits, tarball_size: int) -> None:
        self.limits = limits
        self._bytes = 0
        self._members = 0
        self._nodes = 0
        self._link_bytes = 0
        self._ratio_limit = limits.free_bytes + limits.max_ratio * tarball_size

    def charge_bytes(self, count: int, name: bytes) -> None:
        """``count`` bytes of content, promised by the member of this name."""
        self._bytes += count
        if self._bytes > self.limits.max_extracted:
            raise Rejected.because(
                "too-large",
                f"{shown(name)} would make it {self._bytes} bytes, and {self.limits.max_extracted} are allowed",
                "Raise max_extracted in the site's [verify] table if the release is meant to be that large.",
            )
        if self._bytes > self._ratio_limit:
            raise Rejected.because(
                "compression-bomb",
                f"{shown(name)} would make it {self._bytes} bytes, more than {self.limits.max_ratio} times the "
                "tarball's own size",
                "Only a file made to fill the disk, or one that is nearly all zeros, packs so well: leave it out.",
            )

    def charge_member(self, name: bytes) -> None:
        """One more header of a member."""
        self._members += 1
        self._check_entries(self._members, name)

    def charge_node(self, parts: Parts) -> None:
        """One more file, directory or link that comes to be, also where no member of its own announced it."""
        self._nodes += 1
        if self._nodes > self.limits.max_entries:
            self._check_entries(self._nodes, "/".join(parts).encode())

    def charge_link(self, path: str, target: str) -> None:
        """One more symlink, whose texts are held in memory."""
        self._link_bytes += len(path.encode()) + len(target.encode()) + LINK_OVERHEAD
        if self._link_bytes > MAX_LINK_BYTES:
            raise Rejected.because(
                "too-many-symlinks",
                f"the symlinks up to {printable(path)} take more than {MAX_LINK_BYTES} bytes",
                "Pack the files themselves where so many links are not needed (tar --dereference).",
            )

    def _check_entries(self, count: int, name: bytes) -> None:
        if count > self.limits.max_entries:
            raise Rejected.because(
                "too-many-entries",
                f"{shown(name)} is entry {count}, and {self.limits.max_entries} are allowed",
                "Raise max_entries in the site's [verify] table if the release is meant to have that many.",
            )

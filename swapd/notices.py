"""Notices: the pending markers of one site's uploads, a few at a time, so that a crowd keeps no other site waiting."""

from __future__ import annotations

from collections.abc import Iterable

from swapd.model.config import Site
from swapd.model.control import is_control
from swapd.model.record import Marker, now
from swapd.model.release import Outcome, is_tarball
from swapd.stages.arrive import Arrivals
from swapd.stages.mark import remove_pending_marker, remove_stale_marker, write_marker

AT_ONCE = 50  # markers in one turn of the daemon: some twenty milliseconds


class Notices:
    """What is said of those that wait, and what is still to be said or taken back.

    Each notice is checked when it is written: by then its upload may have had its turn. All that write raise
    ``OSError``.
    """

    def __init__(self) -> None:
        self._said: dict[str, str] = {}  # why each upload that has a pending marker of ours waits
        self._due: dict[str, None] = {}  # names, in this order
        self._gone: dict[str, None] = {}  # names of answered uploads that their owners removed
        self._is_stuck = False  # what was to be written last could not be

    @property
    def are_due(self) -> bool:
        """Whether there is something to write; after an error not before the next look."""
        return bool(self._due or self._gone) and not self._is_stuck

    def gather(self, arrivals: Arrivals, gone: Iterable[str]) -> None:
        """After a look: what it has found that is not said yet."""
        waiting = arrivals.waiting()
        self._due = dict.fromkeys(name for name, reason in waiting.items() if self._is_news(name, reason))
        self._due.update(dict.fromkeys(name for name in self._said if name not in waiting))
        self._gone.update(dict.fromkeys(gone))
        self._is_stuck = False

    def postpone(self) -> None:
        """Nothing is known of what waits until the next look."""
        self._due.clear()

    def _is_news(self, name: str, reason: str) -> bool:
        return (is_tarball(name) or is_control(name)) and self._said.get(name) != reason

    def write_some(self, site: Site, arrivals: Arrivals, current: str | None, most: int = AT_ONCE) -> None:
        """Says at most so much of what is due; nothing of ``current``, of which its worker speaks."""
        self._is_stuck, failure = True, None
        for name in list(self._due)[:most]:
            del self._due[name]
            if name != current:
                try:
                    self.write(site, arrivals, name)
                except OSError as error:  # of this one, which is due again at the next look; the others are not held up
                    failure = error
        for name in list(self._gone)[:most]:
            # Not what is said of another upload of this name, which has come, and perhaps been answered, since then.
            if name != current and not arrivals.has(name):
                remove_stale_marker(site.incoming, name)
            del self._gone[name]
        if failure is not None:
            raise failure
        self._is_stuck = False

    def write(self, site: Site, arrivals: Arrivals, name: str) -> None:
        """Says why this upload waits, if that is news; takes it back if it does not wait any more."""
        reason = arrivals.reason(name)
        if reason is None:
            if name in self._said:
                remove_pending_marker(site.incoming, name)
                del self._said[name]
        elif self._is_news(name, reason):
            write_marker(site.incoming, name, Marker(Outcome.PENDING, reason, site.name, now()))
            self._said[name] = reason

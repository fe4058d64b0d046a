"""The tally: a site's totals on the disk, and what of its records is not in them yet.

The file is not written through to the disk: a power cut may bring back an older one, from which the records, which are
written through, lead to the same totals again.
"""

from __future__ import annotations

import contextlib
import json
import time

from swapd.host.records import read_other_deployments
from swapd.host.textfile import replace_file
from swapd.model.errors import Failed
from swapd.model.layout import Layout
from swapd.model.release import DeploymentId, SiteName
from swapd.model.totals import Totals, count, disregard, forget

AT_ONCE = 20  # records that are read in one go: some twenty milliseconds
TICK = 20_000_000  # nanoseconds within which a directory may change twice and its time once: some ticks of the kernel


class Tally:
    """Of one site. Only one process may have it."""

    def __init__(self, layout: Layout, site: SiteName) -> None:
        self.totals = Totals()
        self._layout = layout
        self._site = site
        self._is_read = False
        self._is_lost = False  # the file was damaged: what is in the records was counted in it
        self._written = Totals()  # as they are on the disk
        self._seen = -1  # the directories' times when all was counted
        self._looking = -1
        self._looked: set[DeploymentId] = set()  # since they are of that time

    def is_due(self) -> bool:
        """Whether there may be something to count; cheap."""
        return self._seen != self._find_time()

    def expect(self) -> None:
        """All records are looked at once more, whatever the directories' times are."""
        self._seen = -1

    def _find_time(self) -> int:
        """When a record was last written or removed, in nanoseconds; 0 where there is nothing to be seen."""
        try:
            times = [self._layout.deployments(self._site).stat().st_mtime_ns]
        except OSError:
            return 0  # before the first deployment; or not mounted, which is no reason to forget anything
        with contextlib.suppress(OSError):
            times.append(self._layout.kept_records(self._site).stat().st_mtime_ns)
        return max(times)

    def count_some(self) -> bool:
        """Counts some of what is not in the totals; whether that was all there is.

        Raises ``Failed`` (``cannot-read``) or ``OSError``; what was counted stays so, and the rest is not due before
        something changes, or is expected.
        """
        if not self._looked:
            self._looking = self._find_time()
        try:
            is_all = not self._looking or self._count()
        except (Failed, OSError):
            self._looked.clear()
            self._seen = self._looking
            raise
        if is_all:
            self._looked.clear()
            self._is_lost = False
            is_settled = not 0 <= time.time_ns() - self._looking < TICK
            self._seen = self._looking if is_settled else -1
            self._write()
        return is_all

    def _count(self) -> bool:
        if not self._is_read:
            self._read()
        known = self.totals.complete | self._looked
        found, there, is_all = read_other_deployments(self._layout, self._site, known, AT_ONCE)
        self._looked.update(found)
        for deployment in found.values():
            if deployment is not None:
                self.totals = (disregard if self._is_lost else count)(self.totals, deployment)
        self.totals = forget(self.totals, there)
        return is_all

    def _read(self) -> None:
        """What was counted before. Should that be lost, counting begins at zero, which a collector understands.

        To begin with what the records still have would look as if so many deployments came at once.
        """
        path = self._layout.totals(self._site)
        try:
            totals = Totals.from_document(json.loads(path.read_bytes()), str(path))
        except FileNotFoundError:
            pass
        except (Failed, ValueError, AttributeError):  # whatever JSON has in the place of an object
            self._is_lost = True
        else:
            self._is_lost = not totals.is_sound
            self.totals = self._written = totals if totals.is_sound else Totals()
        self._is_read = True

    def _write(self) -> None:
        if self.totals != self._written:
            document = json.dumps(self.totals.document(), separators=(",", ":"))
            replace_file(self._layout.totals(self._site), document.encode())
            self._written = self.totals

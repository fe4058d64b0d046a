"""A process that pauses and does not end: ``python -m tests.support.pauser ROOT NAME MAX [DESCRIPTORS]``.

It says ``stopped`` once everything is stopped, and then waits in the window until its standard input ends. With
DESCRIPTORS, it first opens so many files, as a pause of a large server does.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from swapd.host import records
from swapd.model.config import Pause, PauseMode
from swapd.model.layout import Layout
from swapd.model.release import SiteName
from swapd.stages import pause


def main() -> None:
    root, name, longest = sys.argv[1:4]
    if len(sys.argv) > 4:
        count = int(sys.argv[4])
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + 200, most))
        for _ in range(count):
            os.open("/dev/null", os.O_RDONLY)
    layout = Layout(Path(root))
    records.make_state_directories(layout, SiteName("shop"))
    rules = Pause(PauseMode.ALWAYS, (name,), float(longest))
    with pause.found(rules, layout) as found:
        assert found is not None
        with pause.paused(found, rules, layout):
            os.write(1, b"stopped\n")
            os.read(0, 1)


if __name__ == "__main__":
    main()

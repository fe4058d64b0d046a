"""Work that boots hosts of its own, side by side: most of the time is spent waiting for processes."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.crash.world import Child


def play_in_lanes(plays: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """What each of the functions returned, as JSON has it. Each runs in a process of its own, with all it starts.

    Hosts end with the process that booted them: an interrupted run leaves none.
    """

    def run(play: Callable[[], Any], path: str) -> None:
        Path(path).write_text(json.dumps(play()))

    with tempfile.TemporaryDirectory() as directory:
        children = {name: Child(partial(run, play, f"{directory}/{name}")) for name, play in plays.items()}
        waiting = list(children.values())
        try:
            while waiting:
                waiting.pop(0).wait().check()
        except BaseException:
            for child in waiting:
                os.kill(child.pid, signal.SIGKILL)
                child.wait()
            raise
        return {name: json.loads(Path(f"{directory}/{name}").read_text()) for name in plays}

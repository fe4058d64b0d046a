"""The daemon's worker, which something befalls at a step: ``python -m tests.crash.worker ACTOR STEP [FLAG]``.

ACTOR is a function of ``tests.crash.actors``, STEP a part of the step's description. With FLAG, a file that is not
there yet, it happens to the first worker that takes such a step, and to no other.
"""

from __future__ import annotations

import sys
from pathlib import Path

from swapd import worker
from tests.crash import actors
from tests.crash.steps import install


def main() -> None:
    actor, awaited, *flag = sys.argv[1:]

    def act(step: str) -> None:
        if awaited in step and not (flag and Path(flag[0]).exists()):
            if flag:
                Path(flag[0]).touch()
            getattr(actors, actor)()

    install(act)
    worker.main()


if __name__ == "__main__":
    main()

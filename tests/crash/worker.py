"""The daemon's worker, which something befalls at a step; its arguments are ACTOR STEP [FLAG].

ACTOR is a function of ``tests.crash.actors``, STEP a part of the step's description. With FLAG, a file that is not
there yet, it happens to the first worker that takes such a step, and to no other.
"""

from __future__ import annotations

from pathlib import Path

from swapd import worker
from swapd.model.config import Site
from swapd.model.layout import Layout
from tests.crash import actors
from tests.crash.steps import install

real_work = worker.work


def work(arguments: list[str], site: Site, layout: Layout) -> None:
    actor, awaited, *flag = arguments

    def act(step: str) -> None:
        if awaited in step and not (flag and Path(flag[0]).exists()):
            if flag:
                Path(flag[0]).touch()
            getattr(actors, actor)()

    install(act)
    real_work(site, layout)

"""Whether the live paths of a field are whole, looked at all the time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from tests.host.field import STRATEGIES, Field
from tests.host.looks import unit_pids
from tests.support.httpd import name_of, parent_of, state_of

GLANCE = 0.005  # seconds between two looks


def _find_broken(field: Field, strategy: str) -> str:
    """What is wrong with what visitors get now; empty when it is one of the releases, byte for byte."""
    try:
        found = field.live_texts(strategy)
    except OSError as error:
        # Between two renames there is none, and nothing serves visitors. Path and processes are looked at one after the
        # other, so once more: the renames take microseconds.
        if strategy == "rename" and not (_is_serving(field) and not field.sites[strategy].tree().exists()):
            return ""
        return repr(error)
    return "" if found in field.known.values() else repr(found)


def _is_serving(field: Field) -> bool:
    """Whether a child of Apache's runs: masters, and what tells a master something, serve nobody."""
    pids = unit_pids(field.web.host, "apache2")
    return any(name_of(parent_of(pid)) == "apache2" and state_of(pid) not in "TZX" for pid in pids)


@contextlib.contextmanager
def watched(field: Field) -> Iterator[list[str]]:
    """Looks at every live path all the time; what was broken."""
    is_over, broken = threading.Event(), list[str]()

    def watch() -> None:
        while not is_over.wait(GLANCE):
            broken.extend(what for strategy in STRATEGIES if (what := _find_broken(field, strategy)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield broken
    finally:
        is_over.set()
        thread.join()

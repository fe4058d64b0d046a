"""The programs of swapd's own that run beside it."""

from __future__ import annotations

import sys


def own_program(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of swapd's.

    With -P: without it, the current directory comes first on Python's path, and that may be a drop directory, where an
    uploader can leave a ``json.py``.
    """
    return [sys.executable, "-P", "-m", module, *arguments]

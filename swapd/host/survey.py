"""A look at a live tree: how much of it is PHP, and which links are in it. It stops where a tree is very large."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

MOST = 30_000  # entries: a fifth of a second
SUFFIXES = (".php", ".phtml", ".phar", ".inc")


@dataclass(slots=True)
class Survey:
    """What was seen of a tree; ``is_whole`` when that was everything."""

    php_files: int = 0
    entries: int = 0
    links: list[Path] = field(default_factory=list)  # below the tree as it was named, links in that unresolved
    is_whole: bool = True

    @property
    def may_have_php(self) -> bool:
        """Whether its pages may be PHP's: a tree that is empty may have any."""
        return self.php_files > 0 or not self.is_whole or self.entries == 0


def survey(tree: Path, most: int = MOST) -> Survey:
    """The tree behind the path; links in it are followed nowhere, and what may not be read is left out."""
    found = Survey()
    waiting = [str(tree)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                found.entries += 1
                if entry.is_symlink():
                    found.links.append(Path(entry.path))
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.name.endswith(SUFFIXES):
                    found.php_files += 1
        if found.entries > most:
            found.is_whole = False
            break
    return found

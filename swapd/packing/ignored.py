"""``.swapdignore``: what ``swapd pack`` leaves out, in the syntax of ``.gitignore``.

git itself matches the patterns, in an empty repository that no configuration reaches: that syntax is what git does, and
libraries that imitate it differ from git and, from version to version, from each other. The same tree has to give the
same bytes on every machine.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from swapd.model.errors import Failed, Issue, Rejected
from swapd.model.release import printable

NAME = ".swapdignore"
NAMED_AT_MOST = 5  # paths that one line names
BOM = b"\xef\xbb\xbf"
# One pattern as git's wildmatch reads it: an escaped byte, a closed bracket expression, any other byte.
CLASS = rb"\[:(?:al(?:num|pha)|blank|cntrl|digit|graph|lower|p(?:rint|unct)|space|upper|xdigit):\]"
BRACKETS = rb"\[[!^]?\]?(?:" + CLASS + rb"|\\.|\[(?!:[a-z]*:\])|[^\[\]\\])*\]"
UNDERSTOOD = re.compile(rb"(?:\\.|" + BRACKETS + rb"|[^\[\\])*", re.DOTALL)
ROUNDABOUT = re.compile(rb"(?:^|/)\.{1,2}(?:/|$)|//")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Paths that are not packed, directories with a slash at their end and without what is below them; and why."""

    paths: tuple[str, ...]
    by: str = ""  # what says so; empty: swapd itself

    def __str__(self) -> str:
        named = ", ".join(printable(path) for path in self.paths[:NAMED_AT_MOST])
        more = len(self.paths) - NAMED_AT_MOST
        return f"left out{self.by and f' by {self.by}'}: {named}{f' and {more} more' if more > 0 else ''}"


class Patterns:
    """The patterns of one ``.swapdignore``, ready to be asked. A tree without one has patterns that match nothing."""

    def __init__(self, scratch: Path | None) -> None:
        self._scratch = scratch

    def matched(self, paths: Mapping[str, bool]) -> set[str]:
        """Those of the paths that are left out; ``paths`` tells of each whether it is a directory.

        A directory comes with, or later than, the one that it is in. What is below a directory that is left out is
        left out, whatever other patterns say, as git has it.
        """
        if self._scratch is None or not paths:
            return set()
        for path, is_directory in paths.items():
            if is_directory:  # git looks what a path is, and believes in a file where nothing is
                (self._scratch / "tree" / path).mkdir(parents=True, exist_ok=True)
        # With a ./ before it no name is taken for pathspec magic, as `:(top)` would be.
        asked = b"".join(b"./" + os.fsencode(path) + b"\0" for path in paths)
        answer = _git(self._scratch, "check-ignore", "--no-index", "--stdin", "-z", stdin=asked)
        return {os.fsdecode(path.removeprefix(b"./")) for path in answer.split(b"\0") if path}


@contextmanager
def patterns_of(content: bytes | None, shown: str) -> Iterator[Patterns]:
    """Patterns that can be asked until the context ends; ``content`` is the file's, None where there is no file.

    Raises ``Rejected`` with the line of each pattern that can match nothing: what it was to keep from visitors would be
    published. ``shown`` is what messages call the file.
    """
    if content is None:
        yield Patterns(None)
        return
    if issues := list(_find_issues(content, shown)):
        raise Rejected(issues)
    with tempfile.TemporaryDirectory(prefix="swapd-pack-") as directory:
        scratch = Path(directory)
        (scratch / "tree").mkdir()
        _git(scratch, "init", "--quiet", "--template=")
        (scratch / "git/info").mkdir(exist_ok=True)
        (scratch / "git/info/exclude").write_bytes(content)
        yield Patterns(scratch)


def _find_issues(content: bytes, shown: str) -> Iterator[Issue]:
    for number, line in enumerate(content.removeprefix(BOM).split(b"\n"), start=1):
        if line.strip() and not line.startswith(b"#") and (reason := _why_it_matches_nothing(line)):
            text = printable(os.fsdecode(line.strip()))
            yield Issue("bad-pattern", f"{shown}:{number}: {text} {reason[0]}", reason[1])


def _why_it_matches_nothing(line: bytes) -> tuple[str, str] | None:
    """What is wrong with the line, and what to do; None where git may find something by it."""
    pattern = re.sub(rb"(?<!\\) +$", b"", line.removesuffix(b"\r")).removeprefix(b"!")
    if b"\0" in pattern:
        return "holds a NUL byte", "It has to be a text with one pattern a line."
    try:
        pattern.decode()
    except UnicodeDecodeError:
        return "is not UTF-8, as the names in a release are", "Save the file as UTF-8."
    if pattern in {b"", b"/"}:
        return "is no pattern", "Remove the line. A directory's content is: /directory/*"
    if ROUNDABOUT.search(pattern):
        return (
            "matches nothing: paths are compared as they are, without . and .. and empty parts",
            "Write /name for what lies in the root itself, name for what lies anywhere.",
        )
    if not UNDERSTOOD.fullmatch(pattern):
        return (
            "matches nothing: a [ is not closed, or a \\ stands at the end",
            "Put a backslash before a character that stands for itself.",
        )
    return None


def _git(scratch: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    """What git prints in the scratch repository; ``check-ignore`` ends with 1 when nothing matches."""
    # A hook's own GIT_DIR, the user's excludes, a filesystem without case: none of them may decide what is packed.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_DIR": str(scratch / "git"),
        "GIT_WORK_TREE": str(scratch / "tree"),
    }
    command = ["git", "-c", "core.ignoreCase=false", "-c", "core.precomposeUnicode=false", *arguments]
    try:
        done = subprocess.run(
            command, cwd=scratch / "tree", env=environment, input=stdin, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise Failed("no-git", f"git is not installed, which reads {NAME}", "Install git.") from None
    if done.returncode not in {0, 1} or done.stderr:
        said = printable(os.fsdecode(done.stderr).strip()) or f"exit status {done.returncode}"
        raise Failed("git-failed", f"git {arguments[0]} with the patterns of {NAME}: {said}")
    return done.stdout


def topmost(missing: Iterable[str], present: Iterable[str]) -> tuple[str, ...]:
    """The missing files, those of a directory of which nothing is present as that directory."""
    there = {*present}
    found: set[str] = set()
    for path in missing:
        parts = path.split("/")
        heads = ("/".join(parts[:length]) + "/" for length in range(1, len(parts)))
        found.add(next((head for head in heads if head.rstrip("/") not in there), path))
    return tuple(sorted(found))

"""Which of a site's releases somebody means who does not type all of its id."""

from __future__ import annotations

from collections.abc import Sequence

from swapd.model.errors import UsageError
from swapd.model.release import ReleaseId, printable


def find_kept(text: str, releases: Sequence[ReleaseId], what: str) -> ReleaseId:
    """The release of this id, or the only one whose id begins so.

    ``UsageError`` lists the releases, which are ``what``.
    """
    listed = f"{what}: {', '.join(releases)}" if releases else f"none is {what}"
    if text in releases:
        return ReleaseId(text)
    found = [release for release in releases if text and release.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            "ambiguous-release", f"{printable(text)} may be {' or '.join(found)}", "Write more of the release's id."
        )
    raise UsageError("unknown-release", f"no release is called {printable(text)}", f"{listed[:1].upper()}{listed[1:]}.")

"""Control files: files of a drop directory that ask for something instead of bringing a tarball.

``rollback`` asks for the release before, ``rollback@RELEASE`` for that one, or for the one whose id begins so. What
is written in it may bind it to the release that is live; where a signature is required, it must: a signed request
that anybody keeps would otherwise be good for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swapd.model.errors import Rejected
from swapd.model.release import (
    Digest,
    Fingerprint,
    ReleaseId,
    Sidecar,
    Upload,
    is_release_id,
    is_tarball,
    printable,
)

ROLLBACK = "rollback"
MAX_CONTROL = 4096  # bytes


def is_control(file_name: str) -> bool:
    """Whether a file of a drop directory is a control file, by its name."""
    return file_name == ROLLBACK or (file_name.startswith(f"{ROLLBACK}@") and not is_tarball(file_name))


@dataclass(frozen=True, slots=True)
class RollbackRequest:
    """A wish to have a kept release live again; ``wanted`` is its id, or the beginning of that, or empty."""

    wanted: str = ""
    upload: Upload | None = None  # the control file; None for a command
    words: tuple[str, ...] = ()  # of its content: which release is live, and which one shall be
    fingerprint: Fingerprint | None = None
    sidecars: tuple[Sidecar, ...] = ()
    uploader: str = ""
    signer: str = ""
    signed: Digest | None = None  # of the content, where a signature is required

    @property
    def name(self) -> str:
        """What it is called in records: as the control file that asks for the same."""
        return f"{ROLLBACK}@{self.wanted}" if self.wanted else ROLLBACK


def parse_wanted(file_name: str) -> str:
    """The release that a control file asks for by its name; empty for the one before."""
    return file_name.removeprefix(ROLLBACK).removeprefix("@")


def parse_words(content: bytes) -> tuple[str, ...]:
    """The words of a control file's first line with any; what follows a ``#`` is anybody's."""
    for line in content.decode("utf-8", "replace").splitlines():
        if words := line.partition("#")[0].split():
            return tuple(words)
    return ()


def find_release(wanted: str, releases: Sequence[ReleaseId]) -> ReleaseId:
    """The one of the releases that is meant: by its id, by its name, or by the beginning of its id.

    ``Rejected``: ``unknown-release`` where none is, ``ambiguous-release`` where several are.
    """
    exact = [release for release in releases if wanted in (release, release.partition("@")[0])]
    found = exact or [release for release in releases if release.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise Rejected.because(
            "ambiguous-release",
            f"{printable(wanted)} may be any of {', '.join(found)}",
            "Name it by more of its id.",
        )
    raise Rejected.because(
        "unknown-release",
        f"no release {printable(wanted)} is kept",
        f"Kept are: {', '.join(releases) or 'none'}. A release that is gone is deployed again by its tarball.",
    )


def refuse_stale(request: RollbackRequest, live: ReleaseId | None, target: ReleaseId, *, must_be_bound: bool) -> None:
    """``Rejected`` where the request speaks of another state than that of now.

    With ``must_be_bound`` it has to say from which release, and to which one if it names one: a file's name is not
    signed with it. Problems: ``not-live`` and ``names-differ``; ``not-bound`` where it says nothing.
    """
    words = request.words if must_be_bound else tuple(word for word in request.words if is_release_id(word))
    hint = describe_binding(request, live, target)
    needed = 1 + bool(request.wanted)
    if must_be_bound and len(words) != needed:
        what = "what is live now, and what is wanted" if needed > 1 else "what is live now"
        raise Rejected.because("not-bound", f"what was signed has to be one line that says {what}", hint)
    if words and words[0] != live:
        raise Rejected.because(
            "not-live", f"it was made to roll back from {printable(words[0])}, and {live or 'nothing'} is live", hint
        )
    if len(words) > 1 and words[1] != target:
        raise Rejected.because(
            "names-differ", f"it says {printable(words[1])} inside, and by its name means {target}", hint
        )


def describe_binding(request: RollbackRequest, live: ReleaseId | None, target: ReleaseId, more: str = "") -> str:
    """The commands that make such a request and its signature now."""
    line = " ".join(filter(None, (live, target if request.wanted else "", more)))
    name = f"{ROLLBACK}@{target}" if request.wanted else ROLLBACK
    return (
        f"If it is still wanted: echo '{line}' > {name}; rm -f {name}.sig; ssh-keygen -Y sign -n swapd -f KEY {name}; "
        "then upload both. Without a requirement to sign, an empty file will do."
    )

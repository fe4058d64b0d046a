"""Compare: whether a release is older than the one that is live, by the times that the archive gives its files.

A signature says who packed a tarball, and nothing of when it is uploaded: whoever has an old one can bring back what
was wrong with it. The times of the members are signed with them, so they tell what is older than the live release.

A time that is still to come tells nothing: counted, one such file would let its tarball pass for new for ever. Nor does
a member without a time. The extraction leaves both out, and a release that has no other is not known to be newer.
"""

from __future__ import annotations

from datetime import UTC, datetime

from swapd.model.errors import Rejected
from swapd.model.record import LiveRelease


def refuse_older(newest: int | None, live: LiveRelease | None) -> None:
    """``Rejected`` (``older-than-live``, ``age-unknown``) where the live release has a newer file, and that is known.

    ``newest`` is the time of the release's newest file in seconds since the epoch; None where none has one that tells.
    """
    if live is None or live.newest is None:
        return
    if newest is None:
        raise Rejected.because(
            "age-unknown",
            "none of its files has a time that is not still to come, and newer_only goes by these",
            "Pack it again where the clock is right, with the files' times; see this host's clock, too (timedatectl).",
        )
    if newest < live.newest:
        raise Rejected.because(
            "older-than-live",
            f"its newest file is of {_describe(newest)}, and that of {live.release}, which is live, of "
            f"{_describe(live.newest)}",
            "newer_only lets only newer releases follow. If this is the right one, pack it again, or switch that off.",
        )


def _describe(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

"""What an uploader is answered: the marker beside the upload, and that what is live is taken away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from swapd.context import Context
from swapd.host import records
from swapd.model.config import Site
from swapd.model.record import Deployment
from swapd.model.release import Digest, Outcome, SidecarKind
from swapd.stages.mark import describe, remove_sums, remove_upload, write_marker

MAX_ATTEMPTS = 3  # how often an upload is taken up that crashes us, before it counts as failed
RETRIED = ("interrupted", "crashed")  # problems after which the same upload is taken up again


def is_retried(deployment: Deployment) -> bool:
    """Whether the daemon takes the same upload up again after this outcome."""
    if deployment.problem == "crashed" and deployment.attempt >= MAX_ATTEMPTS:
        return False
    return deployment.problem in RETRIED and deployment.is_dropped


def find_answered(deployments: Iterable[Deployment]) -> Iterator[Deployment]:
    """Of deployments, newest first, those of uploads that were rejected, failed or passed over, and left as they are.

    By the newest of each name.
    """
    seen: set[str] = set()
    for deployment in deployments:
        if not deployment.is_dropped or deployment.file_name in seen:
            continue
        seen.add(deployment.file_name)
        stays = deployment.outcome in (Outcome.REJECTED, Outcome.FAILED) or deployment.is_superseded
        if stays and not is_retried(deployment):
            yield deployment


class Answer:
    """To one upload, whose name may be one that no record has. Of what a command names, there is nothing to be said.

    What cannot be done is said in the journal. Each method returns whether there is no more to hope for: a fault of the
    host may pass.
    """

    def __init__(self, site: Site, context: Context, file_name: str) -> None:
        self._site = site
        self._context = context
        self._file_name = file_name

    def mark(self, deployment: Deployment) -> bool:
        """The upload has the marker that tells of the deployment; of one that is taken up again, that it waits."""
        if not deployment.is_dropped:
            return True
        if is_retried(deployment):
            deployment = replace(deployment, outcome=Outcome.PENDING)
        marker = describe(deployment)
        incoming = self._site.incoming
        return self._degrading("the marker", lambda: write_marker(incoming, self._file_name, marker))

    def take_away(self, deployment: Deployment) -> bool:
        """The upload is gone, with its sidecars, where it is live; what was uploaded since it was claimed stays."""
        claimed, sidecars = deployment.fingerprint, deployment.sidecars
        is_live = deployment.outcome in (Outcome.LIVE, Outcome.UNCHANGED) and not deployment.is_superseded
        if not is_live or not deployment.is_dropped or claimed is None:
            return True
        incoming = self._site.incoming
        is_done = self._degrading(
            "the removal of the upload", lambda: remove_upload(incoming, self._file_name, claimed, sidecars)
        )
        if any(sidecar.kind is SidecarKind.SUMS for sidecar in sidecars):
            self._degrading("the removal of SHA256SUMS", lambda: remove_sums(incoming, self._are_answered))
        return is_done

    def _are_answered(self, digests: set[Digest]) -> bool:
        """Whether tarballs of all these digests have had an outcome; of more than are remembered, nobody knows."""
        if len(digests) > records.HISTORY_LENGTH:
            return True
        return digests <= {
            item.digest for item in records.read_deployments(self._context.layout, self._site.name) if item.ended
        }

    def _degrading(self, what: str, write: Callable[[], object]) -> bool:
        return self._context.degrading(self._site.name, what, write)

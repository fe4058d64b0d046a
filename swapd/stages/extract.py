"""Extract: from a verified tarball to a staging tree on the live path's filesystem, by the strict reader, in a jail."""

from __future__ import annotations

import os
from collections.abc import Callable

from swapd.archive import Limits, extract_jailed
from swapd.host.files import closing_descriptor
from swapd.host.refusals import explain
from swapd.host.room import keeping_room
from swapd.model.config import Mtime, Site
from swapd.model.release import DeploymentId, ExtractedTree, Tree, VerifiedTarball

STAGING = ".staging-"  # never the name of a release, so a listing tells what is not complete


def extract(
    verified: VerifiedTarball, site: Site, deployment: DeploymentId, progress: Callable[[int], None]
) -> ExtractedTree:
    """The archive's tree under ``STAGING`` + deployment, read to the archive's last byte.

    The tree is not durable yet. ``progress`` is told the bytes of the tarball read so far, and may raise. When this
    raises, a part of the tree may be left under that name. ``Rejected`` is the archive's fault, ``Failed`` this host's,
    among it ``NoRoom`` before the disk is full. The reader is a child process without rights, which dies with this one;
    this one must have no threads.
    """
    staging = site.releases / f"{STAGING}{deployment}"
    tarball = verified.tarball
    limits = Limits(
        max_extracted=site.verify.max_extracted,
        max_entries=site.verify.max_entries,
        allow_links_to=tuple(map(str, site.verify.allow_links_to)),
    )
    try:
        os.mkdir(staging, 0o700)
        with (
            closing_descriptor(os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as into,
            keeping_room(into, site.releases, f"release {tarball.release}") as keep_room,
        ):
            extracted = extract_jailed(
                tarball.descriptor,
                tarball.compression,
                into,
                limits,
                strip_components=site.strip_components,
                progress=progress,
                keep_room=keep_room,
                keep_times=site.mtime is Mtime.ARCHIVE,
            )
    except OSError as error:
        raise explain(error, site.releases) from error
    return ExtractedTree(verified, Tree(staging), extracted.files, extracted.bytes, extracted.newest)

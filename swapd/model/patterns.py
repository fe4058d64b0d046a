"""How things may be called; apart from their values, for who has no time to load those."""

from __future__ import annotations

import re

SITE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# A release is a directory name, part of a marker's name and of a journal field: 200 characters leave room for
# `.sha256.rolled-back` and for the digest below the 255 bytes of NAME_MAX.
RELEASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}")
RELEASE_ID = re.compile(rf"({RELEASE_NAME.pattern})@[0-9a-f]{{12}}")
# A tarball, or a sidecar or marker of one.
DROPPED = re.compile(
    rf"({RELEASE_NAME.pattern}\.(?:tar|tar\.gz|tgz|tar\.zst|tar\.xz|tar\.bz2))"
    r"(?:\.(?:sha256|sig|sha256\.sig|pending|live|unchanged|rejected|failed|rolled-back))?"
)
REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+@-]*")  # of git, which allows more: what no shell takes for its own

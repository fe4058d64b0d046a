"""How much an archive may ask for: what the site's configuration says, and what no real site needs more of.

A tarball of a few kilobytes can promise terabytes, millions of names or headers without end.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_COMPONENT_BYTES = 255  # NAME_MAX of every common filesystem
MAX_PATH_BYTES = 4095  # PATH_MAX without its NUL: nothing longer can be named in a system call
MAX_EXTENSION_BYTES = 256 * 1024  # one pax or GNU extension header; extended attributes are what make them long
MAX_GLOBAL_HEADERS = 64  # `git archive` writes one
MAX_STREAMS = 1 << 20  # gzip members and the like in one tarball; bgzip starts one for each 64 KiB
MAX_PADDING_BYTES = 1 << 20  # zeros after the end marker: tar's record is 10 KiB by default
MAX_LINK_BYTES = 16 << 20  # names and targets of all symlinks, which are held in memory until the end
MAX_LINK_HOPS = 40  # MAXSYMLINKS of Linux: one more and the kernel says ELOOP
LINK_OVERHEAD = 128  # what one more symlink costs in memory besides its texts


@dataclass(frozen=True, slots=True)
class Limits:
    """What one archive may ask for; the first two are the site's, the others fit every site that we know of."""

    max_extracted: int  # bytes of all members together
    max_entries: int  # members, and also files, directories and links that come to be
    max_depth: int = 128  # directories below each other; Python's own tree walkers give up at about 1000
    max_ratio: int = 200  # bytes of content for each byte of the tarball; text seldom passes 20, gzip ends at 1032
    free_bytes: int = 256 << 20  # content that the ratio does not count: a small archive of zeros does no harm
    allow_links_to: tuple[str, ...] = ()  # absolute paths that symlinks may lead to, and below

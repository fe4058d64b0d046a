"""The programs and modules that only some tarballs need, and what makes others faster."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Sequence

from swapd.model.config import Site
from swapd.model.findings import Finding, Severity
from swapd.model.layout import Layout

# A Python that was built without a library has no such module.
MODULES = {"no-xz": ("_lzma", ".tar.xz", "liblzma"), "no-bzip2": ("_bz2", ".tar.bz2", "libbz2")}


def has(module: str) -> bool:
    """Whether this Python could import it."""
    return importlib.util.find_spec(module) is not None


def find_decompressors(_: Sequence[Site], __: Layout) -> Iterator[Finding]:
    """What of the formats of tarballs cannot be read here, or could be faster."""
    if shutil.which("zstd") is None:
        yield Finding(
            None,
            Severity.WARNING,
            "no-zstd",
            "tarballs of the kind .tar.zst fail",
            "there is no program zstd",
            "Install it (the package has the same name on Fedora and EL):",
            commands=("apt-get install zstd",),
        )
    for problem, (module, suffix, library) in MODULES.items():
        if not has(module):
            yield Finding(
                None,
                Severity.WARNING,
                problem,
                f"tarballs of the kind {suffix} fail",
                f"this Python has no module {module}: it was built without {library}",
                "Have Python as the distribution has it, or use another format.",
            )
    if not has("isal"):
        yield Finding(
            None,
            Severity.INFO,
            "no-isal",
            "gzip is decompressed by zlib",
            "this Python has no module isal, with which it takes half the time",
            "Install python3-isal where the distribution has it (Debian 13 and later).",
        )

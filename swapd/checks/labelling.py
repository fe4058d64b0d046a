"""Whether SELinux's policy has the same label for releases as the live tree has now.

swapd gives a release the labels of the live tree. restorecon(8), which some run each night and every system runs after
a relabelling, goes by paths instead: where its rules are for the live path alone, it takes the releases' labels away.
Seen on no system with SELinux so far: what matchpathcon(8) prints is read as its manual page says.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from swapd.host.labels import ATTRIBUTE, has_labels
from swapd.model.config import Site
from swapd.model.findings import Finding, Severity
from swapd.model.layout import Layout

PATIENCE = 10.0
Policy = Callable[[Path], str]


def find_labels(site: Site, layout: Layout) -> Iterator[Finding]:
    """Only where SELinux is there, in force or not."""
    if not layout.is_host or not has_labels():
        return
    if shutil.which("matchpathcon") is None:
        why = "there is no program matchpathcon, which says what the policy has for a path"
        hint = "Install libselinux-utils to have it looked at."
        what = f"whether a relabelling would take the labels of {site.live} away is not known"
        yield Finding(site.name, Severity.UNKNOWN, "label-unknown", what, why, hint)
        return
    yield from compare(site, ask_policy)


def ask_policy(path: Path) -> str:
    """The label that the policy has for a directory there; ``SubprocessError`` where it cannot be asked."""
    command = ["matchpathcon", "-m", "dir", "-n", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout.strip()


def compare(site: Site, policy: Policy, attribute: str = ATTRIBUTE) -> Iterator[Finding]:
    """What a live tree has, against what the policy would give it and the releases."""
    for part in site.parts:
        live = Path(os.path.realpath(part.live))
        try:
            label = os.getxattr(live, attribute).rstrip(b"\0").decode("utf-8", "replace")
        except OSError:
            continue  # nothing there yet, or a filesystem without labels
        kind = type_of(label)
        for path in (part.live, part.releases / "release"):
            wanted = policy(path)
            # Where the policy says <<none>>, it leaves alone what is there.
            if type_of(wanted) and type_of(wanted) != kind:
                yield _differs(part, path, kind, type_of(wanted))
                break


def type_of(label: str) -> str:
    """The part of USER:ROLE:TYPE:LEVEL that rules go by."""
    fields = label.split(":")
    return fields[2] if len(fields) >= 3 else ""


def _differs(part: Site, path: Path, kind: str, wanted: str) -> Finding:
    place = part.live if path == part.live else part.releases
    pattern = shlex.quote(f"{place}(/.*)?")
    return Finding(
        part.name,
        Severity.WARNING,
        "label-differs",
        "a relabelling (restorecon) would take the live tree's label away, and the web server may not read it then",
        f"{part.live} has the type {kind}, and the policy has {wanted} for {path}",
        f"If {kind} is right, tell the policy:",
        {"live": str(part.live)},
        (f"semanage fcontext -a -t {shlex.quote(kind)} {pattern}", f"restorecon -Rv {shlex.quote(str(place))}"),
    )

"""The unit's sandbox: opened for a site's directories, and no others, by a drop-in of the site's own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from swapd.host.files import write_durably
from swapd.model.config import Site
from swapd.model.errors import Failed

DROP_IN_DIRECTORY = Path("/etc/systemd/system/swapd.service.d")


def write_drop_in(site: Site) -> Path:
    """Opens the site's directories to the unit's sandbox: the file that does. Takes effect when the unit restarts.

    The common parent is opened, once: a bind mount for each of live and releases would make the exchange EXDEV.
    """
    parents = {part.live.parent for part in site.parts}
    parents |= {part.releases for part in site.parts if part.live.parent not in part.releases.parents}
    if Path("/var/spool/swapd") not in site.incoming.parents:
        parents.add(site.incoming)
    # Within one another, they would be mounts of their own, too.
    parents = {path for path in parents if not parents & set(path.parents)}
    lines = [
        f"# Written by swapd init for the site {site.name}: where its releases are swapped.",
        "[Service]",
        # The dash: a directory that is lost must not keep the daemon from serving the other sites.
        *(f'ReadWritePaths="-{str(path).replace("%", "%%")}"' for path in sorted(parents)),
    ]
    if any(home in part.live.parents for part in site.parts for home in map(Path, ("/home", "/root", "/run/user"))):
        # The unit's ProtectHome=yes would hide the site; so the homes are shown, and the line above opens one place.
        lines.append("ProtectHome=read-only")
    if site.route.apache.exists():
        lines.append("# To ask the web server whether it follows the site's route.")
        lines.append("RestrictAddressFamilies=AF_INET AF_INET6")
    path = DROP_IN_DIRECTORY / f"site-{site.name}.conf"
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_durably(path, ("\n".join(lines) + "\n").encode())
    return path


def restart_unit(is_wanted: bool) -> str:
    """Has the sandbox as it is written now; what was done, or is to be done, as a line for people. ``Failed``."""
    if not is_wanted or not Path("/run/systemd/system").is_dir() or shutil.which("systemctl") is None:
        return "restart the unit for it: systemctl daemon-reload && systemctl restart swapd"
    for arguments in (["daemon-reload"], ["restart", "swapd.service"]):
        done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(
                "cannot-restart",
                f"systemctl {' '.join(arguments)}: {done.stderr.strip()}",
                "The site is configured. See systemctl status swapd, then restart it.",
            )
    return "restarted swapd.service"

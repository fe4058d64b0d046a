"""Which systemd service a process belongs to, and what that service's watchdog demands.

A process's control group names its unit, and everybody may read it; asking systemd by D-Bus would need its library.
"""

from __future__ import annotations

import subprocess
from pathlib import Path, PurePosixPath

from swapd.model.units import parse_timespan

PATIENCE = 10.0  # seconds for systemctl on a loaded machine


def control_group(pid: int) -> str:
    """The path of the process's control group as systemd manages it; empty when the process is gone.

    In the unified hierarchy where systemd has it, even if an older one is there, too: it then keeps both alike.
    """
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # cgroups(7): `0::PATH` is the unified hierarchy; where systemd does not use it, it has one called after itself.
    paths = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines if line.count(":") >= 2}
    unified = paths.get("", "")
    return unified if unified not in ("", "/") else paths.get("name=systemd", unified)


def is_in_service(pid: int, service: str) -> bool:
    """Whether the process is in the control group of the unit, or in one below it."""
    return service in PurePosixPath(control_group(pid)).parts


def find_service(pid: int) -> str | None:
    """The system service whose process this is; None for a user's services, sessions, and without systemd."""
    parts = PurePosixPath(control_group(pid)).parts
    if any(part.startswith("user@") for part in parts):
        return None
    return next((part for part in reversed(parts) if part.endswith(".service")), None)


def read_watchdog(service: str) -> float | None:
    """Seconds within which the service must report to systemd, or None when it need not.

    Also None when systemd cannot be asked: below a container's own init, there is no watchdog either.
    """
    try:
        shown = subprocess.run(
            ["systemctl", "show", "--value", "--property=WatchdogUSec", "--", service],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        ).stdout.strip()
        return parse_timespan(shown) or None
    except (OSError, subprocess.SubprocessError, ValueError):
        return None

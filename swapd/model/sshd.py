"""sshd's settings for a user, and what it has to be told so that a user can do nothing but upload: texts and values.

Facts that the latter rests on (sshd_config(5), sshd(8)):

- A ChrootDirectory, and each directory above it, must belong to root and be writable by nobody else. So it is the
  directory that has the drop directories in it, and the drop directory is what the user sees as ``/SITE``.
- ``internal-sftp`` is a part of sshd: it needs no files in there, and no shell of the user's. ``scp`` gets along with
  it since it speaks the same protocol (OpenSSH 9.0).
- Keys are looked for before the change of the root directory, in the user's real home.
- A Match block in a file that is included ends with that file.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

SFTP_ONLY = "internal-sftp"
_HOST = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_NOT_PUBLIC = re.compile(r"\.(local|localdomain|internal|lan|home|intranet)$|^localhost|\.\d+$")


@dataclass(frozen=True, slots=True)
class SshSettings:
    """What ``sshd -T -C user=…`` says of a user."""

    port: int = 22
    chroot: str = ""
    command: str = ""
    only: tuple[str, ...] = ()  # lines that let in some users only

    @property
    def is_sftp_only(self) -> bool:
        """Whether the user gets no shell."""
        return self.command.split(" ")[0] in (SFTP_ONLY, "/usr/lib/openssh/sftp-server")


def parse_settings(text: str) -> SshSettings:
    """The settings as a value. sshd prints its keywords in lower case."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, []).append(value)
    listened = [match[1] for value in found.get("listenaddress", []) if (match := re.search(r":(\d+)\Z", value))]
    ports = [int(port) for port in listened or found.get("port", []) if port.isdigit()]
    values = {key: values[0] for key, values in found.items() if values[0] != "none"}
    return SshSettings(
        22 if 22 in ports or not ports else ports[0],
        values.get("chrootdirectory", ""),
        values.get("forcecommand", ""),
        tuple(f"{key} {' '.join(found[key])}" for key in ("allowusers", "allowgroups") if key in found),
    )


def place_in_chroot(path: Path, settings: SshSettings, user: str, home: str) -> str | None:
    """What the user calls the directory, with a slash at its end; None where it is out of reach."""
    if not settings.chroot:
        return f"{path}/"
    tokens = {"%u": user, "%h": home, "%%": "%"}
    root = re.sub("%[uh%]", lambda match: tokens[match[0]], settings.chroot)
    if not path.is_relative_to(root):
        return None
    inner = PurePosixPath("/") / path.relative_to(root)
    return f"{inner}/" if inner.name else "/"


def choose_host_name(names: Iterable[str], otherwise: str) -> str:
    """The first of the names by which the host may be found from elsewhere."""
    return next((name for name in names if _HOST.fullmatch(name) and not _NOT_PUBLIC.search(name)), otherwise)


def format_match(user: str, chroot: Path | None) -> list[str]:
    """The lines of sshd's configuration for a user who uploads, looks at markers, and does nothing else."""
    return [
        f"Match User {user}",
        *([f'    ChrootDirectory "{chroot}"'] if chroot else []),
        f"    ForceCommand {SFTP_ONLY}",
        "    DisableForwarding yes",
        "    PermitTTY no",
    ]


def scp_line(file: str, user: str, host: str, port: int, path: str) -> str:
    """The line that uploads."""
    option = f"-P {port} " if port != 22 else ""
    return f"scp {option}{file} {shlex.quote(f'{user}@{host}:{path}')}"

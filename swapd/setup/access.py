"""How tarballs get to this host: who may drop them, by which name and port, and the line to type for it."""

from __future__ import annotations

import contextlib
import grp
import itertools
import os
import pwd
import re
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swapd.host.asking import ask, find_program
from swapd.model.config import Site
from swapd.model.release import printable
from swapd.model.sshd import SshSettings, choose_host_name, format_match, parse_settings, place_in_chroot, scp_line

PATIENCE = 2.0  # seconds for a name server, which may not answer at all
MOST_MEMBERS = 20  # of a group, that sshd is asked about
SSHD_CONFIG = Path("/etc/ssh/sshd_config")


@dataclass(frozen=True, slots=True)
class Access:
    """How a user uploads for a site. ``user`` is empty as long as nobody can."""

    host: str
    user: str
    settings: SshSettings
    path: str  # the drop directory as the user sees it

    @property
    def is_confined(self) -> bool:
        """Whether the user can do nothing else."""
        return bool(self.user) and self.settings.is_sftp_only

    def line(self, file: str) -> str:
        """What to type."""
        return scp_line(file, self.user or "USER", self.host, self.settings.port, self.path)


def find_access(site: Site, names: Sequence[str]) -> Access:
    """How the site's tarballs are uploaded: by a user who is confined to it, if there is one, or by another one.

    ``names`` are those that visitors know the site by: one of them where the host does not know itself by name.
    """
    host = _find_host_name(names)
    found = Access(host, "", ask_sshd("root") or SshSettings(), f"{site.incoming}/")
    for user in _members(site.group):
        settings = ask_sshd(user.pw_name) or found.settings
        path = place_in_chroot(site.incoming, settings, user.pw_name, user.pw_dir)
        has_shell = Path(user.pw_shell).name not in ("nologin", "false")
        if path is None or not (has_shell or settings.is_sftp_only):
            continue
        access = Access(host, user.pw_name, settings, path)
        if access.is_confined:
            return access
        if not found.user:
            found = access
    return found


def _members(group: str) -> Iterator[pwd.struct_passwd]:
    with contextlib.suppress(KeyError):
        entry = grp.getgrnam(group)
        members = sorted({*entry.gr_mem, *(user.pw_name for user in pwd.getpwall() if user.pw_gid == entry.gr_gid)})
        for name in members[:MOST_MEMBERS]:
            with contextlib.suppress(KeyError):
                yield pwd.getpwnam(name)


def _find_host_name(names: Sequence[str]) -> str:
    try:
        full = subprocess.run(
            ["hostname", "--fqdn"], capture_output=True, text=True, timeout=PATIENCE, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        full = ""
    return choose_host_name([full, *names], os.uname().nodename)


def ask_sshd(user: str) -> SshSettings | None:
    """What sshd's configuration has for the user; None where it does not say, such as to anybody but root."""
    program = find_program(["sshd"])
    if program is None:
        return None
    answer = ask(program, "-T", "-C", f"user={user},host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22")
    return parse_settings(answer.output) if answer.status == 0 else None


def describe_confinement(site: Site, access: Access) -> list[str]:
    """The commands, for root's shell, that make a user who may upload for the site and do nothing else here."""
    user = _find_free_name(site)
    unfit = find_unfit_for_chroot(site.incoming.parent)
    target = f"> {SSHD_CONFIG}.d/swapd-{user}.conf" if _has_included_directory() else f">> {SSHD_CONFIG}"
    unit = "ssh" if any(Path(base, "ssh.service").exists() for base in _UNITS) else "sshd"
    path = f"{site.incoming}/" if unfit else f"/{site.incoming.name}/"
    remarks = [f"# sshd has {printable(line)}: let {user} in there." for line in access.settings.only]
    if unfit:
        remarks.append(
            f"# No ChrootDirectory, for {unfit} is not root's alone: whatever everybody may read can be read."
        )
    return [
        f"useradd --create-home --shell /usr/sbin/nologin --groups {site.group} {user}",
        f"install --directory --owner={user} --mode=700 ~{user}/.ssh   # for the public key: authorized_keys",
        f"cat {target} <<'END'",
        *format_match(user, None if unfit else site.incoming.parent),
        "END",
        f"sshd -t && systemctl reload {unit}",
        *remarks,
        f"# from then on:  {scp_line(f'{site.name}-1.tar.gz', user, access.host, access.settings.port, path)}",
    ]


_UNITS = ("/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system")


def _find_free_name(site: Site) -> str:
    """A user who is there already may need the shell that would be taken away."""
    names = itertools.chain(["deploy"], (f"{site.name[:20]}-deploy{number or ''}" for number in itertools.count()))
    return next(name for name in names if not _is_user(name))


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def find_unfit_for_chroot(directory: Path) -> Path | None:
    """The directory for which sshd would refuse it as a user's root directory."""
    for path in (directory, *directory.parents):
        status = path.stat()
        if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & 0o022:
            return path
    return None


def _has_included_directory() -> bool:
    try:
        text = SSHD_CONFIG.read_text("utf-8", "replace")
    except OSError:
        return True  # as every current distribution has it
    pattern = rf"^\s*Include\s+{re.escape(str(SSHD_CONFIG))}\.d/\*"
    return re.search(pattern, text, re.MULTILINE | re.IGNORECASE) is not None

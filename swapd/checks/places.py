"""The directories of a site: who may drop, who may look in, and who could put something else there."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from swapd.checks.sandbox import again
from swapd.model.config import DROP_GROUP, Site, Strategy
from swapd.model.errors import Failed
from swapd.model.findings import Finding, Severity
from swapd.model.layout import Layout
from swapd.stages.prepare import find_owner

ACCESS_ACL = "system.posix_acl_access"  # acl(5): with one, the group's bits are a mask and say nothing of the group


def find_incoming(site: Site, layout: Layout) -> Iterator[Finding]:
    """Whether those who may drop tarballs can, and nobody else."""
    if not site.incoming.is_dir():
        is_there = os.path.lexists(site.incoming)
        why = f"{site.incoming} is {'no directory' if is_there else 'not there'}"
        remedy = "Move it away, and have the directory made:" if is_there else "Have it made:"
        yield _wrong(site, "incoming-missing", "no tarball can be dropped", why, remedy, again(site))
        return
    status = site.incoming.stat()
    mode, place = stat.S_IMODE(status.st_mode), _quoted(site.incoming)
    if mode & stat.S_IWOTH:
        yield Finding(
            site.name,
            Severity.WARNING,
            "incoming-world-writable",
            "every user of this host may deploy",
            f"{site.incoming} has mode {mode:04o}",
            f"Let only members of the group {site.group} in:",
            commands=(f"chmod o-rwx {place}",),
        )
    try:
        group = grp.getgrnam(site.group)
    except KeyError:
        if layout.is_host or site.group != DROP_GROUP:
            how = "systemd-sysusers" if site.group == DROP_GROUP else f"groupadd {shlex.quote(site.group)}"
            why = f"there is no group {site.group}, whose members may"
            yield _wrong(site, "no-group", "nobody but root can drop a tarball", why, "Make it:", how, again(site))
        return
    # A scratch directory is its user's own: swapd's group need not be able to drop there, nor can he give it away.
    is_scratch = not layout.is_host and (site.group == DROP_GROUP or os.geteuid() != 0)
    if is_scratch or has_acl(site.incoming):
        return
    yield from _find_group_rights(site, group, status)
    yield from _find_unreachable(site, layout, group)


def _wrong(site: Site, problem: str, what: str, why: str, remedy: str, *commands: str) -> Finding:
    return Finding(site.name, Severity.ERROR, problem, what, why, remedy, commands=commands)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def has_acl(path: Path) -> bool:
    """Whether an access control list says who may do what there, besides the mode."""
    with suppress(OSError):
        return bool(os.getxattr(path, ACCESS_ACL))
    return False


def _find_group_rights(site: Site, group: grp.struct_group, status: os.stat_result) -> Iterator[Finding]:
    mode, place = stat.S_IMODE(status.st_mode), _quoted(site.incoming)
    needed = stat.S_IWGRP | stat.S_IXGRP
    if status.st_gid != group.gr_gid or mode & needed != needed:
        yield _wrong(
            site,
            "incoming-not-writable",
            f"members of the group {site.group} cannot drop a tarball",
            f"{site.incoming} has mode {mode:04o} and belongs to the group {_group_name(status.st_gid)}",
            "Give it to them:",
            f"chgrp {shlex.quote(site.group)} {place}",
            f"chmod 2770 {place}",
        )
    elif not mode & stat.S_ISGID:
        yield Finding(
            site.name,
            Severity.WARNING,
            "incoming-not-setgid",
            "what one member of the group drops, another may not be able to replace or remove",
            f"{site.incoming} has mode {mode:04o}, without set-group-ID: files in it belong to their owner's own group",
            "Set it:",
            commands=(f"chmod g+s {place}",),
        )
    users = [user.pw_name for user in pwd.getpwall() if user.pw_gid == group.gr_gid]
    if not (users or group.gr_mem):
        yield Finding(
            site.name,
            Severity.INFO,
            "no-uploader",
            "nobody but root can drop a tarball yet",
            f"the group {site.group} has no member that this host knows of by itself",
            "Add somebody: adduser USER GROUP, or usermod -aG GROUP USER.",
            {"group": site.group},
        )


def _group_name(gid: int) -> str:
    with suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return str(gid)


def _find_unreachable(site: Site, layout: Layout, group: grp.struct_group) -> Iterator[Finding]:
    """The first directory on the way to the drop directory that its group cannot pass."""
    outer = () if layout.is_host else (layout.root, *layout.root.parents)
    for path in reversed(Path(os.path.realpath(site.incoming)).parents):
        if path in outer:
            continue  # whose scratch directory it is, is theirs to say
        status = path.stat()
        wanted = stat.S_IXGRP if status.st_gid == group.gr_gid else stat.S_IXOTH
        if not status.st_mode & wanted and not has_acl(path):
            yield _wrong(
                site,
                "incoming-unreachable",
                f"members of the group {site.group} cannot get at the drop directory",
                f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, and {site.incoming} is below it",
                "Let them pass, which shows them nothing of what is in there:",
                f"chmod {'g' if wanted == stat.S_IXGRP else 'o'}+x {_quoted(path)}",
            )
            return


def find_owners(site: Site, _: Layout) -> Iterator[Finding]:
    """Whether releases can be given to their owner, and visitors come to where they are."""
    try:
        owner = find_owner(site)
    except Failed as error:
        yield Finding.of(site.name, "a release cannot be given to its owner", error)
        return
    except OSError:
        return  # nothing can be swapped there, and that has been said
    for part in site.parts:
        if part.live.is_symlink() or not part.live.exists() or part.strategy is Strategy.PINNED:
            yield from _find_closed(part, owner)


def _find_closed(part: Site, owner: tuple[int, int]) -> Iterator[Finding]:
    """Where a symbolic link or a route leads into the releases, a web server has to get there."""
    releases = Path(os.path.realpath(part.releases))
    common = Path(os.path.realpath(part.live.parent))
    for path in (*reversed(releases.parents), releases):
        # Who comes to the live path has come as far as that.
        if path == common or path in common.parents or not path.is_dir():
            continue
        status = path.stat()
        # Where releases belong to somebody, a web server that gets at nothing else may be his; root's it never is.
        wanted = stat.S_IXOTH
        wanted |= stat.S_IXUSR if status.st_uid == owner[0] != 0 else 0
        wanted |= stat.S_IXGRP if status.st_gid == owner[1] != 0 else 0
        if not status.st_mode & wanted and not has_acl(path):
            yield _wrong(
                part,
                "releases-unreachable",
                "visitors get errors after the next swap: the web server cannot get at the release",
                f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, and {part.live} leads to what is below it",
                "Let everybody pass:",
                f"chmod o+x {_quoted(path)}",
            )
            return


def find_exposed(site: Site, layout: Layout) -> Iterator[Finding]:
    """Where somebody else could put something in the place of what visitors get, or of what swapd knows."""
    for part in site.parts:
        for path in (part.releases, part.live, part.live.parent):
            if path.is_dir() and (status := path.stat()).st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
                yield Finding(
                    site.name,
                    Severity.WARNING,
                    "world-writable",
                    "every user of this host can change what visitors get",
                    f"{path} has mode {stat.S_IMODE(status.st_mode):04o}",
                    "Let only its owner and its group write there:",
                    {"path": str(path)},
                    (f"chmod o-w {_quoted(path)}",),
                )
    own = (layout.site_state(site.name), layout.site_record(site.name), layout.deployments(site.name))
    yield from _find_unsafe(site, "unsafe-state", "others could change what swapd knows of the site", own)
    configured = (layout.site_file(site.name),)
    yield from _find_unsafe(site, "unsafe-configuration", "others could say where this site is deployed", configured)
    claims = layout.claims(site.name)
    if claims.is_dir() and (mode := stat.S_IMODE(claims.stat().st_mode)) & 0o077:
        yield Finding(
            site.name,
            Severity.WARNING,
            "claims-not-private",
            "users of this host can read tarballs that they have no part in",
            f"{claims} has mode {mode:04o}",
            "Close it:",
            commands=(f"chmod 0700 {_quoted(claims)}",),
        )


def find_exposed_host(_: Sequence[Site], layout: Layout) -> Iterator[Finding]:
    """The same of what all sites have in common."""
    yield from _find_unsafe(
        None, "unsafe-state", "others could change what swapd knows, or whom it resumes", (layout.state, layout.run)
    )
    places = (layout.configuration, layout.sites, layout.defaults_file)
    yield from _find_unsafe(None, "unsafe-configuration", "others could say what is deployed, and where", places)


def _find_unsafe(site: Site | None, problem: str, what: str, paths: Sequence[Path]) -> Iterator[Finding]:
    """What belongs to somebody else, or may be written by others than its owner."""
    for path in paths:
        with suppress(FileNotFoundError):
            status = path.stat()
            is_open = status.st_mode & (stat.S_IWOTH | (stat.S_IWGRP if status.st_gid else 0))
            if status.st_uid not in (0, os.geteuid()) or is_open:
                yield Finding(
                    site.name if site else None,
                    Severity.WARNING,
                    problem,
                    what,
                    f"{path} belongs to uid {status.st_uid} and has mode {stat.S_IMODE(status.st_mode):04o}",
                    "Take it back:",
                    {"path": str(path)},
                    (f"chown root {_quoted(path)}", f"chmod go-w {_quoted(path)}"),
                )

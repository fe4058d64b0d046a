"""A host as a site's administrator has it: Apache with virtual hosts, sshd, swapd, and somebody who may deploy.

The uploader sits at the same machine under another user and comes in through sshd over the loopback device: the
protocol and the server are the real ones, and the machine around needs no ssh programs of its own.
"""

from __future__ import annotations

import contextlib
import shutil
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.host import journal
from tests.host.machine import Host, wait_until
from tests.host.releases import Packed, describe_tree, exact_modes
from tests.host.visitors import served_differences
from tests.host.ways import AUTHOR, UPLOADER, Way

PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "apache2", "openssh-server", "openssh-client", "rsync", "curl"),
    *("man-db", "bash-completion", "sudo", "git"),  # as an administrator has them
)
MPMS = ("prefork", "worker", "event")
OUTCOMES = ("live", "unchanged", "rejected", "failed", "rolled-back")
DEPLOY_DEADLINE = 60.0  # seconds; it takes one

# For the sake of the many uploads of this ring; two seconds is what it is by itself.
DEFAULTS = """
[verify]
settle = "500ms"
"""

SSH_CONFIG = f"""
Host web
    HostName 127.0.0.1
    User {UPLOADER}
    StrictHostKeyChecking accept-new
    LogLevel ERROR
"""

VHOST = """
<VirtualHost *:80>
    ServerName {name}
    DocumentRoot {root}
    <Directory {root}>
        Require all granted
        Options FollowSymLinks
    </Directory>
</VirtualHost>
"""


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker as it was read over sftp."""

    outcome: str  # as its name says
    content: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.content[key]


@dataclass(slots=True)
class WebHost:
    """A host with Apache and an uploader, and swapd once it is installed."""

    host: Host

    def run(self, *command: str, **options: Any) -> str:
        """What a command on the host prints; see ``Host.run``."""
        return self.host.run(*command, **options).stdout

    def use_mpm(self, mpm: str) -> None:
        """Restarts Apache with the multi-processing module: prefork, worker or event."""
        self.run("a2dismod", "--quiet", "--force", *(f"mpm_{other}" for other in MPMS))
        self.run("a2enmod", "--quiet", f"mpm_{mpm}")
        self.run("systemctl", "restart", "apache2")
        assert f"Server MPM:     {mpm}" in self.run("apache2ctl", "-V")

    def install(self, package: Path, *, defaults: str = DEFAULTS) -> None:
        """Installs the package with apt, as its README says, writes the defaults for sites, and adds the uploader."""
        inside = f"/root/{package.name}"
        shutil.copyfile(package, self.host.path(inside))
        self.run("apt-get", "install", "--quiet", "--yes", inside, deadline=240)
        if defaults:
            self.host.write("/etc/swapd/swapd.toml", defaults)
        self._add_uploader()

    def _add_uploader(self) -> None:
        self.run("useradd", "--create-home", "--groups", "swapd", UPLOADER)
        self.run("useradd", "--create-home", AUTHOR)
        ssh = f"/home/{AUTHOR}/.ssh"
        self.run("install", "--directory", "--mode=700", f"--owner={AUTHOR}", f"--group={AUTHOR}", ssh)
        self.host.write(f"{ssh}/config", SSH_CONFIG)
        self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{ssh}/id_ed25519", user=AUTHOR)
        self.host.write(f"/home/{UPLOADER}/.ssh/authorized_keys", self.run("cat", f"{ssh}/id_ed25519.pub"))

    def add_vhost(self, site: str, root: str) -> None:
        """Makes Apache serve the directory, which need not be there yet, to visitors of SITE.test."""
        self.host.write(f"/etc/apache2/sites-available/{site}.conf", VHOST.format(name=f"{site}.test", root=root))
        self.run("a2ensite", "--quiet", site)
        self.run("systemctl", "reload", "apache2")

    def init(self, site: str, live: str) -> Site:
        """``swapd init`` as root, and nothing more."""
        self.run("swapd", "init", site, "--live", live)
        return Site(self, site, live)

    def new_site(self, site: str) -> Site:
        """A virtual host and its site below /var/www, whose live path is not there yet."""
        live = f"/var/www/{site}"
        self.add_vhost(site, live)
        return self.init(site, live)

    def unit(self, name: str) -> str:
        """A property of the unit swapd."""
        return self.run("systemctl", "show", "--value", f"--property={name}", "swapd").strip()

    def wake(self) -> None:
        """Has the daemon go round its loop, where it looks at its watches; by itself it does that every 15 seconds."""
        self.run("systemctl", "kill", "--kill-whom=main", "--signal=CHLD", "swapd")

    def status_line(self) -> str:
        """What ``systemctl status swapd`` shows as the status."""
        shown = self.host.run("systemctl", "status", "--no-pager", "--full", "swapd", check=False).stdout
        return next((line.strip() for line in shown.splitlines() if line.strip().startswith("Status:")), "")

    def send(self, way: Way, tarball: Path, target: str, *, resuming: bool = False) -> None:
        """The author uploads the file, or goes on with what was cut off; ``target`` is its path on the host."""
        with self._at_the_author(tarball) as source:
            command, stdin = way.resuming(source, target) if resuming else way.command(source, target)
            self.run(*command, user=AUTHOR, stdin=stdin, deadline=120)

    def send_slowly(
        self, way: Way, tarball: Path, target: str, *, seconds: float, cut_off: float | None = None
    ) -> None:
        """An upload that takes about so many seconds; ``cut_off``: the author's program is killed after so many."""
        kilobytes = tarball.stat().st_size / 1000 / seconds
        with self._at_the_author(tarball) as source:
            command, stdin = way.command(source, target)
            killed = ["timeout", "--signal=KILL", str(cut_off)] if cut_off else []
            self.run(*killed, *way.slowly(command, kilobytes), user=AUTHOR, stdin=stdin, check=not killed)

    @contextlib.contextmanager
    def _at_the_author(self, file: Path) -> Iterator[str]:
        """A copy of the file in the author's home directory."""
        source = f"/home/{AUTHOR}/{file.name}"
        shutil.copyfile(file, self.host.path(source))
        yield source
        self.host.path(source).unlink()

    def stopped_httpd(self) -> list[int]:
        """Apache's processes that are stopped at this moment."""
        return [pid for pid, name, state in self.host.processes() if name in ("apache2", "httpd") and state in "Tt"]

    def describe(self) -> str:
        """What somebody who looks for the reason of a failure wants to see."""
        commands = (
            ("systemctl", "status", "--no-pager", "--full", "--lines=0", "swapd"),
            ("journalctl", "--no-pager", "--output=short-precise", "--lines=60", "--unit=swapd"),
            ("swapd", "status"),
            ("sh", "-c", "ls -lA --time-style=full-iso /var/spool/swapd/* /var/www /var/www/*.releases"),
        )
        shown = [(command, self.host.run(*command, check=False)) for command in commands]
        return "\n".join(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}" for command, done in shown)


@dataclass(slots=True)
class Site:
    """A site on a host, as its author, its visitors and its administrator see it."""

    web: WebHost
    name: str
    live: str

    @property
    def incoming(self) -> str:
        return f"/var/spool/swapd/{self.name}"

    @property
    def releases(self) -> str:
        return f"{self.live}.releases"

    @property
    def domain(self) -> str:
        return f"{self.name}.test"

    def tree(self) -> Path:
        """The directory that is live, seen from outside, where the host's absolute links lead astray."""
        live = self.web.host.path(self.live)
        if not live.is_symlink():
            return live
        target = live.readlink()
        return self.web.host.path(target) if target.is_absolute() else live.parent / target

    def dropped(self, file_name: str) -> Path:
        """A file in the drop directory, seen from outside."""
        return self.web.host.path(self.incoming) / file_name

    def deploy(self, tarball: Path, way: Way = Way.SCP, *, name: str = "") -> Marker:
        """Uploads the tarball, waits for its outcome, and reads the marker over sftp."""
        file_name = name or tarball.name
        return self.outcome_after(lambda: self.web.send(way, tarball, f"{self.incoming}/{file_name}"), file_name)

    def outcome_after(
        self, action: Callable[[], object], file_name: str, *, deadline: float = DEPLOY_DEADLINE
    ) -> Marker:
        """What becomes of the file after the action: its new marker."""
        before = self._final_markers(file_name)
        action()
        self._wait_for(lambda: self._final_markers(file_name) - before, f"an outcome for {file_name!r}", deadline)
        return self.read_marker(file_name)

    def _final_markers(self, file_name: str) -> set[tuple[str, int, int]]:
        found = set()
        for outcome in OUTCOMES:
            try:
                status = self.dropped(f"{file_name}.{outcome}").stat()
            except FileNotFoundError:
                continue
            found.add((outcome, status.st_ino, status.st_mtime_ns))
        return found

    def _wait_for(self, condition: Callable[[], Any], what: str, deadline: float) -> None:
        wait_until(condition, what, deadline=deadline, explain=self.web.describe)

    def read_marker(self, file_name: str) -> Marker:
        """The one marker that stands beside the file, read over sftp by its author."""
        markers = [name for name in self.list_incoming() if _is_marker_of(name, file_name)]
        assert len(markers) == 1, f"{file_name!r} has {len(markers)} markers: {markers}"
        copy = f"/home/{AUTHOR}/marker"
        self.sftp(f'get "{self.incoming}/{markers[0]}" "{copy}"')
        content = tomllib.loads(self.web.host.path(copy).read_text())
        return Marker(markers[0].removeprefix(f"{file_name}."), content)

    def list_incoming(self) -> list[str]:
        """What the author sees in the drop directory, dotfiles left out."""
        lines = self.sftp(f'ls -1 "{self.incoming}"').splitlines()
        return [line.removeprefix(f"{self.incoming}/") for line in lines if not line.startswith("sftp>")]

    def sftp(self, *batch: str) -> str:
        """The author's sftp session."""
        stdin = "".join(f"{line}\n" for line in batch)
        return self.web.run("sftp", "-q", "-b", "-", "web", user=AUTHOR, stdin=stdin)

    def assert_serves(self, tree: Path) -> None:
        """Visitors get every file of the tree, byte for byte."""
        differences = served_differences(self.web.host, self.domain, tree)
        assert not differences, f"{len(differences)} files are not served as they are: {differences[:10]}"

    def assert_live(self, packed: Packed, marker: Marker) -> None:
        """The release is served byte for byte and complete on the disk, and its upload has made room for the marker."""
        assert marker.outcome == "live", marker.content
        self.assert_serves(packed.tree)
        assert describe_tree(self.tree()) == describe_tree(packed.tree)
        assert exact_modes(self.tree()) <= {"directory 755", "file 644", "file 755"}
        assert self.list_incoming().count(f"{packed.tarball.name}.live") == 1
        assert not self.dropped(packed.tarball.name).exists()

    def records(self, *, after: int = 0) -> list[journal.Record]:
        """The journal records about this site."""
        return journal.records(self.web.host, "--unit=swapd", f"SWAPD_SITE={self.name}", after=after)

    def kept_releases(self) -> list[str]:
        """The names in the directory of releases, those that begin with a dot among them."""
        return sorted(path.name for path in self.web.host.path(self.releases).iterdir())


def assert_one_story(found: Sequence[journal.Record], deployment: str, outcome_id: str) -> journal.Record:
    """A deployment has one start record, then exactly one outcome record, of that kind; the latter is returned."""
    story = journal.of_deployment(found, deployment)
    told = [record["MESSAGE_ID"] for record in story]
    (start,) = (kind for kind in told if kind in journal.STARTS)
    outcomes = [record for record in story if record["MESSAGE_ID"] in journal.OUTCOMES]
    assert [record["MESSAGE_ID"] for record in outcomes] == [outcome_id], [journal.describe(record) for record in story]
    assert told.index(start) < told.index(outcome_id)
    return outcomes[0]


def _is_marker_of(name: str, file_name: str) -> bool:
    return name in {f"{file_name}.{outcome}" for outcome in (*OUTCOMES, "pending")}

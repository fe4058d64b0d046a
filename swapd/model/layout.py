"""Where everything is on a host, and under ``--root DIR`` where it is below DIR."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swapd.model.config import Route


@dataclass(frozen=True, slots=True)
class Layout:
    """swapd's default paths. ``root`` is ``/`` on a host; all of swapd then runs below it, without root's rights."""

    root: Path = Path("/")

    @property
    def is_host(self) -> bool:
        """Whether this is the machine itself and not a scratch directory."""
        return self.root == Path("/")

    @property
    def configuration(self) -> Path:
        return self.root / "etc/swapd"

    @property
    def defaults_file(self) -> Path:
        return self.configuration / "swapd.toml"

    @property
    def sites(self) -> Path:
        return self.configuration / "sites"

    def site_file(self, site: str) -> Path:
        return self.sites / f"{site}.toml"

    @property
    def allowed_signers(self) -> Path:
        return self.configuration / "allowed_signers"

    @property
    def spool(self) -> Path:
        return self.root / "var/spool/swapd"

    @property
    def state(self) -> Path:
        return self.root / "var/lib/swapd"

    @property
    def run(self) -> Path:
        return self.root / "run/swapd"

    @property
    def pause_lock(self) -> Path:
        """Held by whoever pauses: one pause at a time on a host."""
        return self.run / "pause.lock"

    @property
    def pause_record(self) -> Path:
        """Written before the first SIGSTOP, removed after the last SIGCONT."""
        return self.run / "pause.toml"

    @property
    def lost_records(self) -> Path:
        """When each record was lost of which the journal is still to be told that it was."""
        return self.run / "lost-records"

    @property
    def daemon_lock(self) -> Path:
        """Held by the daemon as long as it runs."""
        return self.run / "daemon.lock"

    def progress(self, site: str) -> Path:
        """How far the deployment of the site is that is under way."""
        return self.run / f"progress-{site}.json"

    def site_lock(self, site: str) -> Path:
        """Held by whoever deploys to the site: the daemon's worker or a command."""
        return self.run / f"site-{site}.lock"

    @property
    def users_socket(self) -> Path:
        """Where ``swapd users`` answers who uses what, to those who may not see it themselves."""
        return self.run / "users.sock"

    def sweep_lock(self, site: str) -> Path:
        """Held by whoever removes what is on its way out; a deployment need not wait for it."""
        return self.run / f"sweep-{site}.lock"

    def site_state(self, site: str) -> Path:
        return self.state / site

    def site_record(self, site: str) -> Path:
        return self.site_state(site) / "site.toml"

    def totals(self, site: str) -> Path:
        """What all deployments add up to, where metrics are asked for; only the daemon writes it."""
        return self.site_state(site) / "totals.json"

    def route(self, site: str) -> Route:
        """The files of a pinned site's route."""
        return Route(
            map=self.site_state(site) / "route.map",
            apache=self.configuration / "apache" / f"{site}.conf",
            nginx=self.configuration / "nginx" / f"{site}.conf",
            root=self.root,
        )

    def deployments(self, site: str) -> Path:
        return self.site_state(site) / "deployments"

    def kept_records(self, site: str) -> Path:
        """Records of deployments that cannot be written where they belong, until they can."""
        return self.run / f"kept-{site}"

    def claims(self, site: str) -> Path:
        """Private copies of tarballs; mode 0700."""
        return self.site_state(site) / "claims"

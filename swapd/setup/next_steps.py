"""What is left to do once a site is configured, as commands to copy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swapd.host.asking import find_program
from swapd.host.vhosts import APACHE
from swapd.model.config import Site
from swapd.model.layout import Layout
from swapd.model.release import printable
from swapd.model.vhosts import ServedDirectory
from swapd.setup.access import describe_confinement, find_access


def describe_next_steps(layout: Layout, site: Site, served: Sequence[ServedDirectory]) -> list[str]:
    """The lines to print last; ``served`` is what visitors get from the site."""
    if not layout.is_host:
        return [f"  cp {site.name}-1.tar.gz {site.incoming}/"]
    access = find_access(site, [name for item in served for name in item.names])
    hosts = [printable(item.place) for item in served if item.server == APACHE]
    unit = "apache2" if Path("/etc/apache2").exists() else "httpd"
    routed = [
        f"  in the <VirtualHost>:      IncludeOptional {site.route.apache}",
        *([f"                             (of {', '.join(dict.fromkeys(hosts))})"] if hosts else []),
        f"  take it in:                apachectl configtest && systemctl reload {unit}",
        f"  see that it is in force:   swapd check {site.name}",
    ]
    allowed = f"  let a user drop tarballs:  adduser USER {site.group}      (or: usermod -aG {site.group} USER)"
    confined = [
        "",
        "A user who may do that and nothing else (sftp, and scp from OpenSSH 9 on), in a shell of root's:",
        "",
        *describe_confinement(site, access),
    ]
    return [
        *(routed if site.route.apache.exists() else []),
        *([] if access.user else [allowed]),
        f"  deploy, from anywhere:     {access.line(f'{site.name}-1.tar.gz')}",
        f"  see what happened:         swapd status {site.name}; journalctl -u swapd",
        *([] if access.is_confined or find_program(["sshd"]) is None else confined),
    ]

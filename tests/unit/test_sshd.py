"""What sshd says of a user, and what it is told for one who does nothing but upload."""

from __future__ import annotations

from pathlib import Path

import pytest

from swapd.model.sshd import SshSettings, choose_host_name, format_match, parse_settings, place_in_chroot, scp_line
from swapd.setup.access import find_unfit_for_chroot

# `sshd -T -C user=deploy,…` of Debian 12, most lines left out.
PLAIN = """\
port 22
addressfamily any
listenaddress [::]:22
listenaddress 0.0.0.0:22
usepam yes
chrootdirectory none
forcecommand none
subsystem sftp /usr/lib/openssh/sftp-server
"""
CONFINED = """\
port 22
port 2222
listenaddress 192.0.2.1:2222
allowgroups admins
allowgroups swapd
chrootdirectory /var/spool/swapd
forcecommand internal-sftp -u 0027
"""


def test_what_a_user_may() -> None:
    plain = parse_settings(PLAIN)
    assert plain == SshSettings(22)
    assert not plain.is_sftp_only
    confined = parse_settings(CONFINED)
    assert (confined.port, confined.chroot, confined.is_sftp_only) == (2222, "/var/spool/swapd", True)
    assert confined.only == ("allowgroups admins swapd",)
    assert parse_settings("") == SshSettings()


@pytest.mark.parametrize(
    ("chroot", "place"),
    [
        ("", "/var/spool/swapd/shop/"),
        ("/var/spool/swapd", "/shop/"),
        ("/var/spool/swapd/shop", "/"),
        ("/var/spool", "/swapd/shop/"),
        ("/srv", None),
        ("%h", None),
        ("/var/spool/%u", "/shop/"),
        ("/100%%", None),
    ],
)
def test_what_the_drop_directory_is_called_by_a_user(chroot: str, place: str | None) -> None:
    settings = SshSettings(chroot=chroot)
    assert place_in_chroot(Path("/var/spool/swapd/shop"), settings, "swapd", "/home/swapd") == place


def test_a_user_who_only_uploads() -> None:
    lines = format_match("deploy", Path("/var/spool/swapd"))
    assert lines[0] == "Match User deploy"
    words = {line.split()[0] for line in lines[1:]}
    assert words == {"ChrootDirectory", "ForceCommand", "DisableForwarding", "PermitTTY"}
    assert not any("Chroot" in line for line in format_match("deploy", None))


@pytest.mark.parametrize(("port", "option"), [(22, ""), (2222, "-P 2222 ")])
def test_the_line_that_uploads(port: int, option: str) -> None:
    line = scp_line("shop-1.tar.gz", "deploy", "web.example.org", port, "/shop/")
    assert line == f"scp {option}shop-1.tar.gz deploy@web.example.org:/shop/"


@pytest.mark.parametrize(
    ("names", "host"),
    [
        (["web.example.org", "shop.example.org"], "web.example.org"),
        (["web", "shop.example.org"], "shop.example.org"),
        (["ip-10-0-0-5.compute.internal", "*.example.org", "www.example.org"], "www.example.org"),
        (["localhost.localdomain", "192.0.2.1", "::1", ""], "otherwise"),
        # A name server may say anything, and the line is for a shell.
        (["a.b;reboot", "$(reboot).example.org", "-oProxyCommand=x.y z", "\x1b.org"], "otherwise"),
    ],
)
def test_the_name_by_which_a_host_is_found(names: list[str], host: str) -> None:
    assert choose_host_name(names, "otherwise") == host


def test_where_sshd_would_not_change_its_root_to(tmp_path: Path) -> None:
    assert find_unfit_for_chroot(Path("/usr/bin")) is None
    tmp_path.chmod(0o775)
    assert find_unfit_for_chroot(tmp_path) == tmp_path

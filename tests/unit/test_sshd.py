"""What sshd says of a user, and what it is told for one who does nothing but upload."""

from __future__ import annotations

from pathlib import Path

import pytest

from swapd.model.sshd import SshSettings, format_match, parse_settings, place_in_chroot, scp_line

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

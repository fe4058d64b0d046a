"""What the journal and systemd show an administrator, and what happens while the journal takes nothing.

The journal is the host's own: explained by ``journalctl -x`` from the installed catalog; stopped with its socket full;
dead with its sockets; its disk full. Deployments go on, and what was lost is counted and said.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host import journal
from tests.host.conftest import Expected
from tests.host.looks import unit_pids
from tests.host.machine import wait_until
from tests.host.releases import pack
from tests.host.webhost import Site, WebHost

LOST = "447a8a77c8ad4dedb7f08a3c69253c40"
# What a record of each of these kinds has, as the interface says.
ALWAYS = {"MESSAGE_ID", "PRIORITY", "SWAPD_SITE", "SWAPD_DEPLOYMENT", "SWAPD_OUTCOME", "SWAPD_STAGE"}
TIMED = {"SWAPD_DURATION_USEC"}
UPLOADED = {"SWAPD_UPLOADER"}
KNOWN = {"SWAPD_RELEASE", "SWAPD_DIGEST"}
PAUSED = {"SWAPD_PAUSE_USEC", "SWAPD_PAUSED", "SWAPD_DROPPED"}
UNITS = [f"systemd-journald{end}" for end in (".socket", "-dev-log.socket", "-audit.socket", ".service")]


@pytest.fixture(scope="module")
def shop(web: WebHost) -> Site:
    """A site that removes no release amid a test: each deployment has as much to say as the one before."""
    site = web.new_site("shop")
    configuration = web.host.path("/etc/swapd/sites/shop.toml")
    configuration.write_text(f"{configuration.read_text()}keep = 50\n")
    web.run("systemctl", "reload", "swapd")
    return site


def drop(site: Site, directory: Path, name: str) -> None:
    """A release goes live that was put into the drop directory with nobody's help: sshd writes to the journal, too."""
    packed = pack(directory, name)
    temporary = site.dropped(f".{packed.tarball.name}")
    temporary.write_bytes(packed.tarball.read_bytes())
    # With its digest, so that it is taken up at once.
    site.dropped(f"{packed.tarball.name}.sha256").write_text(f"{packed.digest}  {packed.tarball.name}\n")
    temporary.rename(site.dropped(packed.tarball.name))
    wait_until(site.dropped(f"{packed.tarball.name}.live").exists, f"{name} is live", explain=site.web.describe)
    wait_until(lambda: not site.dropped(packed.tarball.name).exists(), "its upload is gone")
    site.assert_serves(packed.tree)


def own(web: WebHost, after: int) -> list[journal.Record]:
    """What swapd said, but of what was lost."""
    found = journal.records(web.host, "SYSLOG_IDENTIFIER=swapd", after=after)
    return [record for record in found if record.get("MESSAGE_ID") != LOST]


def lost(web: WebHost, after: int) -> int:
    """How many records are reported as lost."""
    found = journal.records(web.host, f"MESSAGE_ID={LOST}", "SYSLOG_IDENTIFIER=swapd", after=after)
    assert all(record["PRIORITY"] == "4" and "_PID" in record for record in found)
    return sum(int(record["SWAPD_RECORDS_DROPPED"]) for record in found)


@pytest.fixture(scope="module")
def ordinary(web: WebHost, shop: Site, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many records an ordinary deployment has."""
    directory = tmp_path_factory.mktemp("ordinary")
    drop(shop, directory, "ordinary-1")  # the first one has more to say
    mark = journal.mark(web.host)
    drop(shop, directory, "ordinary-2")
    assert len(own(web, mark)) >= 3
    return len(own(web, mark))


def wait_told(web: WebHost, mark: int, sent: int) -> int:
    """Until all that was sent has arrived, or is reported as lost; how much of it was lost."""
    wait_until(
        lambda: lost(web, mark) + len(own(web, mark)) >= sent,
        f"{sent} records, or a report of those that are lost",
        explain=lambda: f"{lost(web, mark)} lost\n{web.describe()}",
    )
    assert lost(web, mark) + len(own(web, mark)) == sent, "\n".join(map(journal.describe, own(web, mark)))
    return lost(web, mark)


def test_journalctl_explains_what_became_of_each_deployment(web: WebHost, expected: Expected, tmp_path: Path) -> None:
    expected.warning(SWAPD_OUTCOME="rejected", SWAPD_SITE="blog")
    expected.warning(SWAPD_OUTCOME="failed", SWAPD_SITE="blog")
    blog = web.new_site("blog")
    mark = journal.mark(web.host)
    drop(blog, tmp_path, "first")
    drop(blog, tmp_path, "second")
    blog.dropped("bad.tar.gz").write_bytes(b"no archive")
    wait_until(blog.dropped("bad.tar.gz.rejected").exists, "the rejection", explain=web.describe)
    web.run("swapd", "rollback", "blog", "--wait", "30")
    web.run("mount", "-t", "tmpfs", "elsewhere", blog.releases)
    blog.dropped("good.tar.gz").write_bytes(pack(tmp_path, "good").tarball.read_bytes())
    wait_until(blog.dropped("good.tar.gz.failed").exists, "the failure", explain=web.describe)
    web.run("umount", blog.releases)
    kinds = {
        journal.DEPLOYMENT_LIVE: (ALWAYS | TIMED | UPLOADED | KNOWN | PAUSED, "Release second@"),
        journal.DEPLOYMENT_REJECTED: (ALWAYS | TIMED | UPLOADED, "A tarball for site blog was rejected"),
        journal.DEPLOYMENT_FAILED: (ALWAYS | TIMED | UPLOADED | KNOWN, "A deployment to site blog failed"),
        journal.ROLLBACK_LIVE: (ALWAYS | TIMED | KNOWN | PAUSED, "Site blog was rolled back to release first@"),
    }
    for kind, (fields, subject) in kinds.items():
        record = journal.records(web.host, f"MESSAGE_ID={kind}")[-1]
        assert fields <= record.keys(), f"{record['MESSAGE']} lacks {sorted(fields - record.keys())}"
        shown = web.run("journalctl", "--catalog", "--no-pager", "--lines=1", f"MESSAGE_ID={kind}")
        said, *explained = shown.splitlines()
        assert said.endswith(record["MESSAGE"])
        assert all(line.startswith("░░") for line in explained)
        text = "\n".join(line.removeprefix("░░").strip() for line in explained)
        assert text.startswith(f"Subject: {subject}"), text
        assert record["MESSAGE"] in " ".join(text.split())
        for part in ("\n\nStill safe: ", "\n\nTo do: ", "Support: man:swapd"):
            assert part in text, text
        assert not re.search("@[A-Z_]+@", text)
        if "journalctl" in text:  # what it says to run gives the whole story
            (command,) = re.findall(r"journalctl (-u swapd SWAPD_DEPLOYMENT=\S+)", text)
            story = journal.records(web.host, *command.split())
            assert [item["MESSAGE_ID"] for item in story if item["MESSAGE_ID"] in journal.STARTS] != []
            assert record["MESSAGE"] in [item["MESSAGE"] for item in story]
    loud = [record for record in own(web, mark) if int(record["PRIORITY"]) <= 4]
    assert [record["SWAPD_OUTCOME"] for record in loud] == ["rejected", "failed"]
    for name in ("bad.tar.gz", "good.tar.gz"):
        blog.dropped(name).unlink()
    wait_until(lambda: "good.tar.gz" not in web.status_line(), "nobody is told of what is gone", explain=web.describe)
    web.run("rm", "/etc/swapd/sites/blog.toml")


def test_a_start_that_is_refused_says_why_where_one_looks(web: WebHost, shop: Site, expected: Expected) -> None:
    for message in ("Failed with result 'exit-code'", "Failed to start swapd.service"):
        expected.warning(MESSAGE=message)
    expected.warning(MESSAGE="swapd does not start with this configuration: ", PRIORITY="3")
    file = web.host.path(f"/etc/swapd/sites/{shop.name}.toml")
    good = file.read_text()
    file.write_text(f"keeep = 3\n{good}")
    mark = journal.mark(web.host)
    try:
        web.host.run("systemctl", "restart", "swapd", check=False)
        assert (web.unit("ActiveState"), web.unit("ExecMainStatus")) == ("failed", "78")
    finally:
        file.write_text(good)
        web.run("systemctl", "start", "swapd")
    (record,) = [item for item in own(web, mark) if item["PRIORITY"] == "3"]
    assert f"/etc/swapd/sites/{shop.name}.toml:1: keeep: " in record["MESSAGE"]
    shown = web.run("journalctl", "-x", "--no-pager", "--priority=err", "--lines=1", "--identifier=swapd")
    assert "Still safe: the web server goes on serving what is live" in shown
    assert "`systemctl start swapd`" in shown


@contextlib.contextmanager
def stopped_journal(web: WebHost) -> Iterator[None]:
    """journald is stopped, and its native socket takes nothing more."""
    (journald,) = unit_pids(web.host, "systemd-journald")
    os.kill(journald, signal.SIGSTOP)
    try:
        fill(web.host.path("/run/systemd/journal/socket"))
        yield
    finally:
        os.kill(journald, signal.SIGCONT)


def fill(path: Path) -> None:
    """As somebody does who has a lot to say."""
    sent = 1
    while sent:  # a sender's own room may be less than the receiver's
        sent = 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(BlockingIOError):
            while True:
                sender.sendto(b"MESSAGE=noise\nSYSLOG_IDENTIFIER=noise\n", socket.MSG_DONTWAIT, os.fspath(path))
                sent += 1


def test_a_journal_that_is_stopped_and_full_holds_up_nothing(
    web: WebHost, shop: Site, ordinary: int, expected: Expected, tmp_path: Path
) -> None:
    expected.warning(MESSAGE_ID=LOST)
    mark = journal.mark(web.host)
    with stopped_journal(web):
        drop(shop, tmp_path, "unheard-1")
        # A command loses its records, and ends.
        packed = pack(tmp_path, "unheard-2")
        web.host.write("/root/unheard-2.tar.gz", packed.tarball.read_bytes())
        web.run("swapd", "deploy", "shop", "/root/unheard-2.tar.gz", "--wait", "30")
        shop.assert_serves(packed.tree)
        wait_until(lambda: "the journal takes no records (" in web.status_line(), "the status says so")
        assert web.status_line().startswith('Status: "the journal takes no records'), "it comes first"
    # With nobody's help, and nothing else to say: the daemon tells it.
    assert wait_told(web, mark, 2 * ordinary) > ordinary, "hardly anything was lost"
    wait_until(lambda: "takes no records" not in web.status_line(), "the status is as before")


def test_a_journal_that_is_dead_with_its_sockets_holds_up_nothing(
    web: WebHost, shop: Site, ordinary: int, expected: Expected, tmp_path: Path
) -> None:
    expected.warning(MESSAGE_ID=LOST)
    mark = journal.mark(web.host)
    web.run("systemctl", "stop", *UNITS)
    try:
        web.run("systemctl", "restart", "swapd")  # which has nowhere to speak to from its start on
        drop(shop, tmp_path, "dead")
    finally:
        web.run("systemctl", "start", *UNITS)
    # That it stopped, and that it started, too.
    assert wait_told(web, mark, ordinary + 2) == ordinary + 2
    mark = journal.mark(web.host)
    drop(shop, tmp_path, "heard")
    assert len(own(web, mark)) == ordinary
    assert all("SWAPD_SITE" in record for record in own(web, mark)), "with their fields"


def test_a_journal_whose_disk_is_full_holds_up_nothing(
    web: WebHost, shop: Site, ordinary: int, expected: Expected, tmp_path: Path
) -> None:
    """journald keeps in /run what it can, and takes it to the disk once there is room."""
    expected.warning(MESSAGE_ID=LOST)
    web.run("mkdir", "-p", "/var/log/journal")
    web.run("mount", "-t", "tmpfs", "-o", "size=16M,mode=755", "journal", "/var/log/journal")
    web.run("systemctl", "restart", "systemd-journald")
    web.run("journalctl", "--flush")
    mark = journal.mark(web.host)
    web.host.run("dd", "if=/dev/zero", "of=/var/log/journal/fill", "bs=64k", check=False)
    # More than fits into the file that journald has open.
    fill(web.host.path("/run/systemd/journal/socket"))
    web.run("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x | fold -w 1000 | systemd-cat -t noise")
    drop(shop, tmp_path, "full")
    web.run("rm", "/var/log/journal/fill")
    wait_told(web, mark, ordinary)


SANDBOXED = """
import mmap, socket, subprocess
try:
    socket.create_connection(("127.0.0.1", 80)).close()
    print("probed")
except OSError as error:
    print(error.strerror)
print(subprocess.run(["/bin/sh", "-c", "echo hook of $(id -un)"], capture_output=True, text=True).stdout.strip())
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    print("compiled")
except OSError as error:
    print(error.strerror)
"""


def test_a_probe_and_a_hook_have_what_they_need_by_the_drop_in_that_the_unit_names(web: WebHost, shop: Site) -> None:
    """In a unit that differs from ours in what it executes; and the exposure of ours with that drop-in."""
    unit = web.host.path("/lib/systemd/system/swapd.service").read_text()
    comments = " ".join(line.lstrip("# ") for line in unit.splitlines() if line.startswith("#"))
    probe, hook = (
        re.findall(f"`({setting})`", comments)[0]
        for setting in ("RestrictAddressFamilies=AF_INET AF_INET6", "MemoryDenyWriteExecute=no")
    )
    unit = re.sub("(?m)^(ExecStopPost|ExecReload|WatchdogSec)=.*\n", "", unit)
    unit = re.sub("(?m)^(RuntimeDirectory|StateDirectory)=swapd$", r"\1=swapd-probe", unit)
    unit = unit.replace("Type=notify", "Type=oneshot").replace("Restart=on-failure", "Restart=no")
    unit = unit.replace("/usr/bin/swapd run", "/usr/bin/python3 /usr/local/lib/sandboxed.py")
    web.host.write("/usr/local/lib/sandboxed.py", SANDBOXED)
    web.host.write("/etc/systemd/system/swapd-probe.service", f"{unit}\n[Service]\nStandardOutput=file:/run/probe\n")
    found = []
    for more in ("", f"[Service]\n{probe}\n{hook}\n"):
        web.host.write("/etc/systemd/system/swapd-probe.service.d/probe.conf", more)
        web.run("systemctl", "daemon-reload")
        web.run("systemctl", "start", "swapd-probe")
        found.append(web.host.path("/run/probe").read_text().splitlines())
        web.host.path("/run/probe").unlink()
    assert found == [
        ["Address family not supported by protocol", "hook of root", "Operation not permitted"],
        ["probed", "hook of root", "compiled"],
    ]
    web.host.write(f"/etc/systemd/system/swapd.service.d/{shop.name}-probe.conf", f"[Service]\n{probe}\n")
    web.run("systemctl", "daemon-reload")
    shown = web.run("systemd-analyze", "security", "--no-pager", "swapd.service")
    web.run("rm", f"/etc/systemd/system/swapd.service.d/{shop.name}-probe.conf")
    web.run("systemctl", "daemon-reload")
    match = re.search(r"exposure level for swapd.service: ([0-9.]+)", shown)
    assert match
    assert f"an exposure of {match[1]}" in comments, "what the unit says of it"


def test_systemctl_status_tells_of_one_of_three_and_of_a_hundred_sites(
    web: WebHost, ordinary: int, expected: Expected
) -> None:
    del ordinary
    expected.warning(MESSAGE_ID=journal.DROP_DIRECTORY_LOST)
    expected.warning(MESSAGE_ID=journal.WATCH_REBUILT)
    mark = journal.mark(web.host)

    def shown_with(count: int) -> str:
        for number in range(1, count):
            web.host.write(f"/etc/swapd/sites/more{number}.toml", f'live = "/var/www/more/more{number}"\n')
            web.host.path(f"/var/spool/swapd/more{number}").mkdir(exist_ok=True)
        at = journal.mark(web.host)
        web.run("systemctl", "reload", "swapd")
        wait_until(lambda: journal.records(web.host, f"MESSAGE_ID={journal.RELOADED}", after=at), "the reload")
        return wait_until(lambda: told_of(count), f"a status with {count} sites", explain=web.describe)

    def told_of(count: int) -> str:
        line = web.status_line()
        return (
            line if len(re.findall("no release yet|live since", line)) == count or "without a release" in line else ""
        )

    assert re.fullmatch(r'Status: "shop: \S+@\w{12} live since [\d:]{8}(, paused [\d.]+ \ws)?"', shown_with(1))
    assert shown_with(3).count("no release yet") == 2
    line = shown_with(100)
    assert line.endswith('1 site live; 99 without a release yet"'), line
    web.run("rmdir", "/var/spool/swapd/more7")
    web.wake()
    line = wait_until(lambda: told_lost(web), "the lost one", explain=web.describe)
    assert line.startswith('Status: "more7: its drop directory is lost: '), line
    assert line.endswith('1 other site live; 98 without a release yet"'), line
    pid1 = journal.records(web.host, "_PID=1", after=mark)
    assert not [record["MESSAGE"] for record in pid1 if "otification message" in record["MESSAGE"]]


def told_lost(web: WebHost) -> str:
    line = web.status_line()
    return line if "is lost" in line else ""

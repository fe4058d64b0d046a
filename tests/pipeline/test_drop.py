"""What somebody with nothing but scp or sftp does and sees: tarballs in, markers out."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from swapd.model.release import Outcome
from tests.support.httpd import name_of
from tests.support.sites import Scratch, leftovers
from tests.support.tarballs import (
    digest_of,
    drop,
    pack,
    release_of,
    site_content,
    touch,
    write_sidecar,
    write_tarball,
)
from tests.support.trees import texts
from tests.support.waiting import wait_until

Plot = Callable[..., Scratch]
ONE, TWO = site_content("one"), site_content("two")


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_tarball(tmp_path / "shop-1.tar.gz", ONE)


def test_a_dropped_tarball_goes_live_and_everybody_is_told(plot: Plot, one: Path) -> None:
    scratch = plot()
    incoming, daemon = scratch.incoming, scratch.daemon
    drop(one, incoming)
    marker = scratch.wait_marker("shop-1.tar.gz.live")
    release = release_of(one)
    scratch.wait_live(release)

    assert texts(scratch.live()) == ONE
    wait_until(lambda: os.listdir(incoming) == ["shop-1.tar.gz.live"], "the tarball to go, and its marker to stay")
    (record,) = scratch.deployments()
    assert (record.outcome, record.release, record.digest) == (Outcome.LIVE, release, digest_of(one))
    assert record.is_dropped
    assert record.ended is not None
    assert (marker["outcome"], marker["site"], marker["release"]) == ("live", scratch.site, release)
    assert (marker["deployment"], marker["digest"], marker["started"]) == (record.id, record.digest, record.started)
    assert daemon.wait_status(f"{release} live since")

    (site,) = scratch.json("status", scratch.site)["sites"]
    assert site["live"]["release"] == release
    assert site["live"]["deployment"] == record.id
    assert (site["under_way"], site["waiting"]) == (None, [])
    (item,) = scratch.json("history", scratch.site)["deployments"]
    assert (item["id"], item["outcome"], item["uploader"]) == (record.id, "live", record.uploader)
    assert leftovers(scratch.releases()) == []
    log = daemon.log()
    assert log.count(f"deploying {release}") == 1
    assert log.count(f"{release} is live") == 1


@pytest.mark.parametrize("suffix", [".tar", ".tgz", ".tar.xz", ".tar.bz2"])
def test_every_compression(plot: Plot, tmp_path: Path, suffix: str) -> None:
    scratch = plot()
    incoming = scratch.incoming
    drop(write_tarball(tmp_path / f"shop-1{suffix}", ONE, top="shop-1"), incoming)
    scratch.wait_marker(f"shop-1{suffix}.live")
    assert texts(scratch.live()) == ONE


def test_the_next_release_follows(plot: Plot, tmp_path: Path, one: Path) -> None:
    scratch = plot()
    incoming = scratch.incoming
    drop(one, incoming)
    scratch.wait_marker("shop-1.tar.gz.live")
    two = drop(write_tarball(tmp_path / "shop-2.tar.gz", TWO), incoming)
    scratch.wait_live(f"shop-2@{digest_of(tmp_path / two.name)[:12]}")
    assert texts(scratch.live()) == TWO
    assert scratch.state().previous == (release_of(one),)
    assert texts(scratch.releases() / release_of(one)) == ONE


def test_the_same_again_changes_nothing(plot: Plot, one: Path) -> None:
    scratch = plot()
    incoming = scratch.incoming
    drop(one, incoming)
    scratch.wait_marker("shop-1.tar.gz.live")
    inode = scratch.live().stat().st_ino
    drop(one, incoming)
    scratch.wait_marker("shop-1.tar.gz.unchanged")
    wait_until(lambda: os.listdir(incoming) == ["shop-1.tar.gz.unchanged"], "the tarball to go, and one marker to stay")
    assert scratch.live().stat().st_ino == inode
    assert [item.outcome for item in scratch.deployments()] == [Outcome.UNCHANGED, Outcome.LIVE]


def test_a_slow_upload_waits_until_it_is_closed(plot: Plot, one: Path) -> None:
    scratch = plot()
    incoming, daemon = scratch.incoming, scratch.daemon
    content = one.read_bytes()
    with (incoming / one.name).open("wb", buffering=0) as upload:
        for part in (content[:10], content[10:100], content[100:200]):
            upload.write(part)
            marker = scratch.wait_marker("shop-1.tar.gz.pending")
            assert marker["outcome"] == "pending"
        # It was looked at after it had been quiet for `settle`, and somebody has it open.
        wait_until(lambda: "open" in scratch.markers()["shop-1.tar.gz.pending"]["reason"], "the reason to wait")
        assert daemon.wait_status("1 waiting")
        upload.write(content[200:])
        assert scratch.deployments() == []
    scratch.wait_marker("shop-1.tar.gz.live")
    assert texts(scratch.live()) == ONE
    assert len(scratch.deployments()) == 1


def test_an_upload_that_was_cut_off_is_rejected_until_it_is_whole(plot: Plot, one: Path) -> None:
    scratch = plot()
    incoming = scratch.incoming
    content = one.read_bytes()
    (incoming / one.name).write_bytes(content[: len(content) // 2])
    marker = scratch.wait_marker("shop-1.tar.gz.rejected")
    assert marker["problem"]
    assert marker["hint"]
    assert not scratch.live().exists()
    assert (incoming / one.name).read_bytes() == content[: len(content) // 2], "it stays where it is, untouched"
    with (incoming / one.name).open("ab") as upload:
        upload.write(content[len(content) // 2 :])
    scratch.wait_marker("shop-1.tar.gz.live")
    assert texts(scratch.live()) == ONE
    wait_until(lambda: os.listdir(incoming) == ["shop-1.tar.gz.live"], "one marker, and nothing else")


class TestSidecars:
    """With a digest there is nothing to wait for: ``settle`` is an hour here."""

    def test_before_the_tarball(self, plot: Plot, one: Path) -> None:
        scratch = plot(settle="1h")
        incoming = scratch.incoming
        (incoming / f"{one.name}.sha256").write_text(f"{digest_of(one)}  {one.name}\n")
        drop(one, incoming)
        scratch.wait_marker("shop-1.tar.gz.live")
        wait_until(lambda: os.listdir(incoming) == ["shop-1.tar.gz.live"], "the sidecar to go with its tarball")

    def test_after_the_tarball(self, plot: Plot, one: Path) -> None:
        scratch = plot(settle="1h")
        incoming = scratch.incoming
        upload = drop(one, incoming)
        marker = scratch.wait_marker("shop-1.tar.gz.pending")
        assert "quiet" in marker["reason"]
        write_sidecar(upload)
        scratch.wait_marker("shop-1.tar.gz.live")
        wait_until(lambda: os.listdir(incoming) == ["shop-1.tar.gz.live"], "the sidecar to go with its tarball")

    def test_one_that_is_asked_for(self, plot: Plot, one: Path) -> None:
        scratch = plot(verify={"require": "digest"})
        incoming = scratch.incoming
        upload = drop(one, incoming)
        wait_until(
            lambda: "sidecar" in scratch.markers().get("shop-1.tar.gz.pending", {}).get("reason", ""), "the reason"
        )
        assert scratch.deployments() == []
        write_sidecar(upload)
        scratch.wait_marker("shop-1.tar.gz.live")

    def test_a_tarball_that_grows_into_its_digest(self, plot: Plot, one: Path) -> None:
        scratch = plot(settle="1h")
        incoming = scratch.incoming
        content = one.read_bytes()
        (incoming / one.name).write_bytes(content[:100])
        write_sidecar(incoming / one.name, digest_of(one))
        wait_until(
            lambda: "digest" in scratch.markers().get("shop-1.tar.gz.pending", {}).get("reason", ""), "a first look"
        )
        with (incoming / one.name).open("ab") as upload:
            upload.write(content[100:])
        scratch.wait_marker("shop-1.tar.gz.live")
        assert [item.outcome for item in scratch.deployments()] == [Outcome.LIVE]

    def test_a_wrong_one_is_rejected_until_it_is_right(self, plot: Plot, one: Path) -> None:
        scratch = plot()
        incoming = scratch.incoming
        upload = drop(one, incoming)
        write_sidecar(upload, "0" * 64)
        marker = scratch.wait_marker("shop-1.tar.gz.rejected")
        assert marker["problem"] == "digest-mismatch"
        write_sidecar(upload)
        scratch.wait_marker("shop-1.tar.gz.live")


def test_one_bad_file_holds_up_no_other_file_and_no_other_site(scratch: Scratch, one: Path) -> None:
    shop, blog = scratch.add_site("shop"), scratch.add_site("blog")
    daemon = scratch.start_daemon()
    (shop / "bad.tar.gz").write_bytes(b"no tarball at all")
    os.mkfifo(shop / "fifo.tar.gz")
    (shop / "link.tar.gz").symlink_to("/etc/passwd")
    (shop / "directory.tar.gz").mkdir()
    (shop / "notes.txt").write_text("no tarball either")
    drop(one, shop)
    drop(one, blog, "blog-1.tar.gz")
    for name in ("bad.tar.gz", "fifo.tar.gz", "link.tar.gz", "directory.tar.gz", "notes.txt"):
        assert scratch.wait_marker(f"{name}.rejected")["hint"]
    scratch.wait_marker("shop-1.tar.gz.live")
    scratch.wait_marker("blog-1.tar.gz.live", "blog")
    assert texts(scratch.live("shop")) == texts(scratch.live("blog")) == ONE
    problems = {item.file_name: item.problem for item in scratch.deployments()}
    assert problems == {
        "bad.tar.gz": "wrong-format",
        "fifo.tar.gz": "not-a-regular-file",
        "link.tar.gz": "not-a-regular-file",
        "directory.tar.gz": "not-a-regular-file",
        "notes.txt": "not-a-tarball",
        "shop-1.tar.gz": "",
    }
    assert daemon.is_alive()


def test_what_was_rejected_is_looked_at_again_only_when_it_changes(scratch: Scratch, one: Path) -> None:
    incoming = scratch.add_site()
    daemon = scratch.start_daemon()
    (incoming / "bad.tar.gz").write_bytes(b"no tarball at all")
    scratch.wait_marker("bad.tar.gz.rejected")
    daemon.wait_status("bad.tar.gz rejected")
    daemon.stop()
    daemon = scratch.start_daemon()
    daemon.wait_status("shop: bad.tar.gz rejected: ")
    drop(one, incoming)
    scratch.wait_marker("shop-1.tar.gz.live")
    assert "bad.tar.gz" not in daemon.wait_status("shop: shop-1@")
    assert [item.outcome for item in scratch.deployments()] == [Outcome.LIVE, Outcome.REJECTED]
    touch(incoming / "bad.tar.gz")
    wait_until(lambda: len(scratch.deployments()) == 3, "another look after it was touched")
    daemon.wait_status("shop: bad.tar.gz rejected: ")
    (incoming / "bad.tar.gz").unlink()
    wait_until(lambda: "bad.tar.gz.rejected" not in scratch.markers(), "its marker to go with it")
    wait_until(lambda: "bad.tar.gz" not in daemon.status_lines()[-1], "nobody to be told of it any more")


def test_what_waits_for_its_sidecar_is_in_the_status_with_its_name_and_since_when(plot: Plot, one: Path) -> None:
    scratch = plot(verify={"require": "digest"})
    for name in ("second.tar.gz", "first.tar.gz"):
        drop(one, scratch.incoming, name)
        os.utime(scratch.incoming / name, (0, 0))
    line = scratch.daemon.wait_status(f"{scratch.site}: 2 waiting (second.tar.gz waits for its sidecar second.tar.gz.")
    since = datetime.fromtimestamp((scratch.incoming / "second.tar.gz").stat().st_ctime).astimezone()
    assert f" second.tar.gz.sha256 since {since:%H:%M:%S})" in line
    (scratch.incoming / "second.tar.gz").unlink()
    scratch.daemon.wait_status(f"{scratch.site}: 1 waiting (first.tar.gz waits for its sidecar first.tar.gz.sha256 ")
    (scratch.incoming / "first.tar.gz").unlink()
    scratch.daemon.wait_status(f"{scratch.site}: no release yet")


STRANGE = [
    "new\nline.tar.gz",
    "\x1b[2J.tar.gz",
    "b\udcff\udcfe.tar.gz",
    "\u202egz.rat.tar.gz",
    "-rf.tar.gz",
    "a b.tar.gz",
]
LONG = ["x" * 235 + f"-{number}.tar.gz" for number in (1, 2)]  # the same in their first 200 characters


def test_names_that_no_release_may_have_break_nothing(scratch: Scratch, one: Path) -> None:
    incoming = scratch.add_site()
    daemon = scratch.start_daemon()
    for name in (*STRANGE, *LONG):
        drop_strange(one, incoming, name)

    def problems() -> list[str]:
        return [marker["problem"] for marker in scratch.markers().values()]

    wait_until(lambda: problems() == ["bad-release-name"] * len(STRANGE + LONG), "a marker for each")
    drop(one, incoming)
    scratch.wait_marker("shop-1.tar.gz.live")
    daemon.stop()
    scratch.start_daemon()
    drop(one, incoming, "shop-2.tar.gz")
    scratch.wait_marker("shop-2.tar.gz.live")
    # One deployment for each: long names are told apart, and nothing is taken up again.
    assert len(scratch.deployments()) == len(STRANGE + LONG) + 2
    lines = (scratch.root / "daemon.log").read_text().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d (info|notice|warning) ", line) for line in lines), lines
    assert all(line.isprintable() for line in lines)


def drop_strange(tarball: Path, incoming: Path, name: str) -> None:
    """By rename, from a short temporary name."""
    (incoming / ".upload").write_bytes(tarball.read_bytes())
    os.rename(incoming / ".upload", incoming / name)


def test_releases_and_markers_past_keep_go(plot: Plot, tmp_path: Path) -> None:
    scratch = plot(keep=2)
    incoming = scratch.incoming
    releases = []
    for number in range(1, 5):
        tarball = write_tarball(tmp_path / f"shop-{number}.tar.gz", site_content(str(number)))
        drop(tarball, incoming)
        scratch.wait_live(release_of(tarball))
        releases.append(release_of(tarball))
    expected = [f"shop-{number}.tar.gz.live" for number in (3, 4)]
    wait_until(lambda: sorted(os.listdir(incoming)) == expected, "the markers of what is kept")
    wait_until(lambda: sorted(os.listdir(scratch.releases())) == sorted(releases[2:]), "the releases that are kept")
    assert scratch.state().previous == (releases[2],)


def test_what_uploads_do_that_gives_no_event_of_a_close(plot: Plot, tmp_path: Path, one: Path) -> None:
    # sftp's rename is a link and an unlink; mv from elsewhere on the filesystem is one event.
    scratch = plot()
    incoming = scratch.incoming
    os.link(one, incoming / one.name)
    scratch.wait_marker("shop-1.tar.gz.live")
    two = write_tarball(tmp_path / "shop-2.tar.gz", TWO)
    os.rename(two, incoming / two.name)
    scratch.wait_marker("shop-2.tar.gz.live")


def test_what_lay_there_at_the_start_is_taken_up_oldest_first(scratch: Scratch, tmp_path: Path) -> None:
    incoming = scratch.add_site()
    for name in ("b.tar.gz", "a.tar.gz"):
        drop(write_tarball(tmp_path / name, site_content(name)), incoming)
        # The kernel's clock for files goes in steps.
        wait_until(lambda name=name: _is_older(incoming / name, tmp_path / "clock"), "the next tick")  # type: ignore[misc]
    scratch.start_daemon()
    scratch.wait_marker("a.tar.gz.live")
    scratch.wait_marker("b.tar.gz.live")
    assert [item.file_name for item in scratch.deployments()] == ["a.tar.gz", "b.tar.gz"], "newest first"
    assert texts(scratch.live()) == site_content("a.tar.gz")


def _is_older(path: Path, clock: Path) -> bool:
    clock.write_text("tick")
    return path.stat().st_ctime_ns < clock.stat().st_ctime_ns


def test_unfinished_uploads_of_clients_are_left_alone(plot: Plot, one: Path) -> None:
    scratch = plot()
    incoming = scratch.incoming
    for name in (".shop-9.tar.gz.Xy12", "shop-9.tar.gz.part", "shop-9.tar.gz.filepart", "shop-9.tmp", "shop-9.tar.gz~"):
        (incoming / name).write_bytes(pack(ONE, "x.tar.gz")[:100])
    drop(one, incoming)
    scratch.wait_marker("shop-1.tar.gz.live")
    assert len(scratch.deployments()) == 1
    assert set(scratch.markers()) == {"shop-1.tar.gz.live"}


class TestWriting:
    """Uploads that take their time."""

    def test_a_sidecar_that_came_first_starts_nothing_before_the_end(self, plot: Plot, one: Path) -> None:
        scratch = plot()
        incoming, daemon = scratch.incoming, scratch.daemon
        data = one.read_bytes()
        sidecar = write_sidecar(one)
        (incoming / sidecar.name).write_bytes(sidecar.read_bytes())
        with (incoming / one.name).open("wb") as upload:
            seen = set[int]()
            for at in range(len(data)):
                upload.write(data[at : at + 1])
                upload.flush()
                touch(incoming / f".{at}.part")  # an event, for a look at each state of the upload
                # Of this site only: the reload that brought it has others try again what failed.
                seen |= {pid for pid in daemon.workers() if name_of(pid) == f"swapd {scratch.site}"}
            marker = scratch.wait_marker(f"{one.name}.pending")
            assert "still open for writing" in marker["reason"]
            assert not seen, "nobody works on what is not there yet"
        scratch.wait_marker(f"{one.name}.live")

    def test_one_that_is_closed_late_is_taken_up_at_its_close(self, plot: Plot, one: Path) -> None:
        """Not when it has been quiet for long enough: its sidecar tells that it is whole."""
        scratch = plot(settle="1h")
        sidecar = write_sidecar(one)
        (scratch.incoming / sidecar.name).write_bytes(sidecar.read_bytes())
        with (scratch.incoming / one.name).open("wb") as upload:
            upload.write(one.read_bytes())
            upload.flush()
            scratch.wait_marker(f"{one.name}.pending")
        scratch.wait_marker(f"{one.name}.live")

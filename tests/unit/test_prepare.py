"""From an extracted tree to one that is fit to be live."""

from __future__ import annotations

import grp
import os
import pwd
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swapd.host.disks import Disks
from swapd.model.config import Site
from swapd.model.errors import Failed, Interrupted, Rejected
from swapd.model.release import (
    Compression,
    Digest,
    ExtractedTree,
    Fingerprint,
    StagedRelease,
    Tarball,
    Tree,
    Upload,
    VerifiedTarball,
)
from swapd.model.room import NoRoom
from swapd.stages.prepare import places, prepare
from tests.support.mounts import tmpfs
from tests.support.sites import make_site
from tests.support.trees import snapshot, texts, write_tree

CONTENT = {"index.php": "new", "sub/page.html": "new"}
DIGEST = Digest("9f86d081884c" + "0" * 52)


def go_on() -> None:
    """Nobody interrupts."""


def extracted(site: Site, content: dict[str, str] | None = None) -> ExtractedTree:
    """As the stage before leaves it: private, and ours."""
    tree = write_tree(site.releases / ".staging-x", CONTENT if content is None else content)
    tree.chmod(0o700)
    upload = Upload(site.incoming, "shop-2.tar.gz", True)
    tarball = Tarball(upload, "shop-2", Compression.GZIP, DIGEST, 1, -1, Fingerprint(1, 2, 3, 4, 5), None, "somebody")
    return ExtractedTree(VerifiedTarball(tarball), Tree(tree), 2, 6)


def prepared(tree: ExtractedTree, site: Site, keep_going: Callable[[], None] = go_on) -> StagedRelease:
    """With disks that are held since before anything else is written."""
    with Disks() as disks:
        disks.hold(places(site))
        return prepare(tree, site, disks, keep_going)


def staged(site: Site, content: dict[str, str] | None = None) -> StagedRelease:
    site.live.parent.mkdir(parents=True, exist_ok=True)
    return prepared(extracted(site, content), site)


def tree_of(site: Site) -> Path:
    return site.releases / ".staging-x"


def problem(site: Site, kind: type[Any], content: dict[str, str] | None = None) -> str:
    with pytest.raises(kind) as caught:
        staged(site, content)
    assert caught.value.message
    found: str = caught.value.problem
    return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


def test_a_tree_that_is_fit_to_be_live(site: Site) -> None:
    release = staged(site)
    assert release.release == "shop-2@9f86d081884c"
    assert release.trees[0].path == tree_of(site)
    assert texts(tree_of(site)) == CONTENT
    assert tree_of(site).stat().st_mode & 0o7777 == 0o755
    assert (tree_of(site) / "sub").stat().st_mode & 0o7777 == 0o755


class TestContent:
    def test_what_must_be_there_is(self, tmp_path: Path) -> None:
        staged(make_site(tmp_path, must_contain=["index.php", "sub", "sub/page.html"]))

    def test_all_that_is_missing_is_told(self, tmp_path: Path) -> None:
        site = make_site(tmp_path, must_contain=["index.php", "missing.php", "sub/missing", "sub"])
        with pytest.raises(Rejected) as caught:
            staged(site)
        assert caught.value.problem == "missing-content"
        assert "missing.php, sub/missing" in caught.value.message
        assert "index.php" not in caught.value.message


class TestTimes:
    def times(self, root: Path) -> list[int]:
        return [entry.mtime_ns for entry in snapshot(root).values()]

    def test_every_file_is_later_than_all_that_is_live(self, site: Site) -> None:
        write_tree(site.live, {"index.php": "old", "a/b/c.php": "old"})
        staged(site)
        assert min(self.times(tree_of(site))) > max(self.times(site.live))

    def test_also_when_the_live_ones_are_of_the_future(self, site: Site) -> None:
        # The clock was set back, or people copied files from a machine that is ahead.
        write_tree(site.live, {"index.php": "old", "a/b/c.php": "old"})
        ahead = time.time_ns() + 86_400 * 10**9
        os.utime(site.live, ns=(ahead, ahead))
        staged(site)
        assert min(self.times(tree_of(site))) > ahead

    def test_also_when_only_a_file_of_the_live_tree_is_of_the_future(self, site: Site) -> None:
        write_tree(site.live, {"index.php": "old", "a/b/c.php": "old"})
        ahead = time.time_ns() + 86_400 * 10**9
        os.utime(site.live / "a/b/c.php", ns=(ahead, ahead))
        staged(site, {"index.php": "new", "a/b/c.php": "new"})
        assert min(self.times(tree_of(site))) > ahead

    def test_two_releases_of_one_second_have_different_seconds(self, site: Site) -> None:
        # HTTP's times are whole seconds.
        write_tree(site.live, {"index.php": "old"})
        now = time.time_ns()
        os.utime(site.live, ns=(now, now))
        staged(site)
        assert all(mtime // 10**9 > now // 10**9 for mtime in self.times(tree_of(site)))

    def test_those_of_the_archive_where_they_are_asked_for(self, tmp_path: Path) -> None:
        site = make_site(tmp_path, mtime="archive")
        site.live.parent.mkdir()
        tree = extracted(site)
        os.utime(tree.tree.path / "index.php", ns=(5, 5))
        prepared(tree, site)
        assert (tree_of(site) / "index.php").stat().st_mtime_ns == 5

    def test_links_have_times_too_and_are_not_followed(self, site: Site, tmp_path: Path) -> None:
        (tmp_path / "victim").write_text("precious")
        before = (tmp_path / "victim").stat()
        site.live.parent.mkdir()
        tree = extracted(site)
        (tree.tree.path / "link").symlink_to(tmp_path / "victim")
        (tree.tree.path / "sub/directory").symlink_to(tmp_path)
        prepared(tree, site)
        after = (tmp_path / "victim").stat()
        assert (after.st_mtime_ns, after.st_ctime_ns, after.st_uid) == (
            before.st_mtime_ns,
            before.st_ctime_ns,
            before.st_uid,
        )
        assert (tree_of(site) / "link").lstat().st_mtime_ns == tree_of(site).stat().st_mtime_ns


class TestOwner:
    def owners(self, root: Path) -> set[tuple[int, int]]:
        return {entry.owner for entry in snapshot(root).values()}

    def test_our_own_without_root(self, site: Site) -> None:
        staged(site)
        status = site.live.parent.stat()
        assert self.owners(tree_of(site)) == {(status.st_uid, status.st_gid)}

    def test_by_name(self, tmp_path: Path) -> None:
        user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
        site = make_site(tmp_path, owner=f"{user}:{group}")
        staged(site)
        assert self.owners(tree_of(site)) == {(os.geteuid(), os.getegid())}

    @pytest.mark.parametrize("owner", ["nobody-has-this:root", "root:nobody-has-this"])
    def test_one_that_is_unknown(self, tmp_path: Path, owner: str) -> None:
        assert problem(make_site(tmp_path, owner=owner), Failed) == "unknown-owner"

    @pytest.mark.root
    @pytest.mark.parametrize("kind", ["directory", "link", "missing"])
    def test_that_of_the_live_path(self, site: Site, kind: str, tmp_path: Path) -> None:
        site.live.parent.mkdir()
        place = site.live.parent
        if kind == "directory":
            place = write_tree(site.live, {"x": "y"})
        elif kind == "link":
            place = write_tree(tmp_path / "elsewhere", {"x": "y"})
            site.live.symlink_to(place)
        os.chown(place, 1234, 4321)
        tree = extracted(site)
        (tree.tree.path / "link").symlink_to("index.php")
        prepared(tree, site)
        assert self.owners(tree_of(site)) == {(1234, 4321)}

    @pytest.mark.root
    def test_by_number(self, tmp_path: Path) -> None:
        site = make_site(tmp_path, owner="1234:4321")
        staged(site)
        assert self.owners(tree_of(site)) == {(1234, 4321)}

    @pytest.mark.root
    def test_one_that_only_root_may_give(self, tmp_path: Path) -> None:
        for path in (tmp_path, *tmp_path.parents[:2]):
            path.chmod(0o755)
        site = make_site(tmp_path, owner="1234:4321")
        site.live.parent.mkdir()
        tree = extracted(site)
        for path in (site.releases, tree.tree.path, *tree.tree.path.rglob("*")):
            os.chown(path, 65534, 65534)
        os.seteuid(65534)
        try:
            with pytest.raises(Failed) as caught:
                prepared(tree, site)
        finally:
            os.seteuid(0)
        assert caught.value.problem == "cannot-give-owner"


class TestShared:
    """What outlives releases."""

    @pytest.fixture
    def site(self, tmp_path: Path) -> Site:
        return make_site(tmp_path, shared=["uploads", "var/cache", ".env"])

    def shared(self, site: Site, inner: str) -> Path:
        return site.shared_directory / inner

    def test_what_is_live_is_carried_over(self, site: Site) -> None:
        write_tree(site.live, {"uploads/2024/photo.jpg": "precious", ".env": "SECRET=1", "var/other": "x"})
        (site.live / "uploads").chmod(0o750)
        (site.live / ".env").chmod(0o600)
        os.utime(site.live / "uploads/2024/photo.jpg", ns=(5, 5))
        live = snapshot(site.live)
        staged(site, {**CONTENT, "uploads/from-the-tarball": "x"})
        assert texts(tree_of(site) / "uploads") == {"2024/photo.jpg": "precious"}
        assert texts(tree_of(site) / "var/cache") == {}
        assert (tree_of(site) / ".env").read_text() == "SECRET=1"
        for inner in site.shared:
            assert os.readlink(tree_of(site) / inner) == str(self.shared(site, inner))
        uploads = snapshot(self.shared(site, "uploads"))
        assert uploads == snapshot(site.live / "uploads")
        assert self.shared(site, ".env").stat().st_mode & 0o777 == 0o600
        assert snapshot(site.live) == live, "the live tree is only read"

    def test_else_what_the_release_brings(self, site: Site) -> None:
        staged(site, {"uploads/README": "brought", "index.php": "x"})
        assert texts(self.shared(site, "uploads")) == {"README": "brought"}
        assert texts(tree_of(site) / "uploads") == {"README": "brought"}

    def test_else_an_empty_directory(self, site: Site) -> None:
        staged(site)
        assert self.shared(site, "var/cache").is_dir()
        assert os.listdir(self.shared(site, "var/cache")) == []

    def test_what_is_shared_already_stays_as_it_is(self, site: Site) -> None:
        write_tree(self.shared(site, "uploads"), {"photo.jpg": "precious"})
        self.shared(site, ".env").write_text("SECRET=1")
        before = snapshot(self.shared(site, "uploads"))
        write_tree(site.live, {"uploads/other.jpg": "of the live tree", ".env": "other"})
        staged(site, {**CONTENT, "uploads/photo.jpg": "of the tarball", ".env": "of the tarball"})
        assert snapshot(self.shared(site, "uploads")) == before
        assert self.shared(site, ".env").read_text() == "SECRET=1"
        assert texts(tree_of(site) / "uploads") == {"photo.jpg": "precious"}

    def test_a_shared_path_below_a_directory_of_the_release(self, site: Site) -> None:
        staged(site, {**CONTENT, "var/log/x": "kept"})
        assert (tree_of(site) / "var/log/x").read_text() == "kept"
        assert (tree_of(site) / "var/cache").is_symlink()

    def test_no_link_of_the_release_is_followed(self, site: Site) -> None:
        # Else what outlives releases would be replaced by the link of a tarball.
        write_tree(self.shared(site, "var/cache"), {"precious": "1"})
        site.live.parent.mkdir(exist_ok=True)
        tree = extracted(site)
        (tree.tree.path / "elsewhere").mkdir()
        (tree.tree.path / "elsewhere/cache").mkdir()
        (tree.tree.path / "elsewhere/cache/kept").touch()
        (tree.tree.path / "var").symlink_to("elsewhere")
        with pytest.raises(Rejected) as caught:
            prepared(tree, site)
        assert caught.value.problem == "shared-path-blocked"
        assert (tree.tree.path / "elsewhere/cache/kept").exists()
        assert texts(self.shared(site, "var/cache")) == {"precious": "1"}

    def test_no_link_of_the_live_tree_is_followed(self, site: Site, tmp_path: Path) -> None:
        # A web application that was broken into could have swapd copy what only root may read.
        write_tree(tmp_path / "secret", {"cache/key": "private", "file": "private"})
        write_tree(site.live, {"index.php": "old"})
        (site.live / "var").symlink_to(tmp_path / "secret")
        (site.live / "uploads").symlink_to(tmp_path / "secret")
        staged(site)
        assert texts(self.shared(site, "var/cache")) == {}
        assert self.shared(site, "uploads").is_symlink(), "a link is carried over as a link"

    def test_a_file_where_a_directory_must_be(self, site: Site) -> None:
        assert problem(site, Rejected, {**CONTENT, "var": "a file"}) == "shared-path-blocked"

    def test_sockets_and_fifos_are_left_to_those_who_made_them(self, site: Site) -> None:
        write_tree(site.live, {"uploads/photo.jpg": "precious"})
        os.mkfifo(site.live / "uploads/fifo")
        staged(site)
        assert os.listdir(self.shared(site, "uploads")) == ["photo.jpg"]

    def test_a_copy_that_a_crash_cut_short_is_begun_anew(self, site: Site) -> None:
        write_tree(site.live, {"uploads/a": "1", "uploads/b": "2"})
        write_tree(site.shared_directory, {".beginning-uploads/a": "1"})
        staged(site)
        assert texts(self.shared(site, "uploads")) == {"a": "1", "b": "2"}
        assert ".beginning-uploads" not in os.listdir(site.shared_directory)

    @pytest.mark.root
    def test_owners_are_carried_over(self, site: Site) -> None:
        write_tree(site.live, {"uploads/2024/photo.jpg": "precious", "uploads/other": "x"})
        for number, name in enumerate(["uploads", "uploads/2024", "uploads/2024/photo.jpg"], 1001):
            os.chown(site.live / name, number, number)
        staged(site)
        assert snapshot(self.shared(site, "uploads")) == snapshot(site.live / "uploads")

    @pytest.mark.root
    def test_what_the_release_brings_gets_the_trees_owner(self, tmp_path: Path) -> None:
        site = make_site(tmp_path, shared=["uploads"], owner="1234:4321")
        staged(site, {"uploads/a/b": "brought"})
        assert {entry.owner for entry in snapshot(self.shared(site, "uploads")).values()} == {(1234, 4321)}
        assert (tree_of(site) / "uploads").lstat().st_uid == 1234, "SymLinksIfOwnerMatch"

    @pytest.mark.root
    def test_no_room_for_the_copy(self, site: Site) -> None:
        with tmpfs(site.live.parent, "size=1m"):
            write_tree(site.live, {"uploads/large": "x" * 600_000})
            with pytest.raises(NoRoom) as caught:
                staged(site)
            assert re.search(r"has in uploads needs at least 585\.9 KiB; \S+ KiB are free", caught.value.message)
            assert texts(site.live) == {"uploads/large": "x" * 600_000}
            assert os.listdir(site.shared_directory) == []

    def test_a_copy_that_is_given_up_leaves_nothing(self, site: Site) -> None:
        write_tree(site.live, {f"uploads/{at}": "x" * 100_000 for at in range(30)})

        def stop() -> None:
            if os.listdir(site.shared_directory / ".beginning-uploads"):
                raise Interrupted("prepare")

        site.live.parent.mkdir(exist_ok=True)
        with pytest.raises(Interrupted):
            prepared(extracted(site), site, stop)
        assert os.listdir(site.shared_directory) == []


@pytest.mark.root
def test_no_room_for_a_part_on_another_filesystem(tmp_path: Path) -> None:
    """The one that is full is named, and not that of the main part."""
    with tmpfs(tmp_path / "other", "size=1m") as other:
        site = make_site(tmp_path, path=[{"live": str(other / "cgi"), "part": "cgi-bin"}])
        (other / "cgi.releases").mkdir()
        site.live.parent.mkdir()
        with pytest.raises(Failed) as caught:
            staged(site, {"index.php": "new", "cgi-bin/large": "x" * 2_000_000})
        copied = os.listdir(other / "cgi.releases")
    assert caught.value.problem == "no-space"
    assert caught.value.message.startswith(f"{other}/cgi.releases: cgi-bin of release shop-2@")
    assert "needs at least 1.9 MiB; 1.0 MiB are free" in caught.value.message
    assert not copied


def test_it_can_be_interrupted(site: Site) -> None:
    site.live.parent.mkdir()

    def stop() -> None:
        raise Interrupted("prepare")

    with pytest.raises(Interrupted):
        prepared(extracted(site), site, stop)


def test_a_tree_that_is_gone(site: Site) -> None:
    site.live.parent.mkdir()
    tree = extracted(site)
    tree.tree.path.rename(site.releases / "away")
    with pytest.raises(Failed) as caught:
        prepared(tree, site)
    assert caught.value.problem == "cannot-write"


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """As every process of swapd's that deploys begins."""
    old = os.umask(0o022)
    yield
    os.umask(old)


def test_what_the_extraction_made_is_not_trusted(site: Site) -> None:
    tree = extracted(site, {"open.txt": "x", "run.sh": "x", "setuid": "x"})
    for name, mode in {"open.txt": 0o666, "run.sh": 0o777, "setuid": 0o4711}.items():
        (tree.tree.path / name).chmod(mode)
    release = prepared(tree, site)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in release.trees[0].path.iterdir()}
    assert modes == {"open.txt": 0o644, "run.sh": 0o755, "setuid": 0o755}


def test_what_no_archive_may_hold_is_a_failure(site: Site) -> None:
    tree = extracted(site, {"index.html": "x"})
    os.mkfifo(tree.tree.path / "fifo")
    with pytest.raises(Failed) as caught:
        prepared(tree, site)
    assert caught.value.problem == "strange-file"

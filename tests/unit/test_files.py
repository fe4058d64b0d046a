"""Files, locks and the removal of trees."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from swapd.host.files import closing_descriptor, identify, is_tree, locked, remove_tree, write_document, write_durably
from swapd.model.errors import Busy, ExitStatus
from tests.support.httpd import PROJECT
from tests.support.mounts import tmpfs
from tests.support.trees import snapshot, write_tree


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    """A descriptor of the test's own directory."""
    with closing_descriptor(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)) as descriptor:
        yield descriptor


class TestWriting:
    def test_a_file_is_replaced_as_a_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "file.toml"
        write_durably(path, b"one")
        old = path.open("rb")
        write_durably(path, b"two", 0o640)
        with old:
            assert old.read() == b"one", "whoever has it open sees the old one"
        assert path.read_bytes() == b"two"
        assert path.stat().st_mode & 0o777 == 0o640
        assert os.listdir(tmp_path) == ["file.toml"]

    def test_a_link_is_replaced_and_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "victim").write_text("precious")
        (tmp_path / "file").symlink_to("victim")
        write_durably(tmp_path / "file", b"new")
        assert (tmp_path / "victim").read_text() == "precious"
        assert not (tmp_path / "file").is_symlink()

    def test_a_failure_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        (tmp_path / "file").mkdir()
        (tmp_path / "file/full").touch()
        with pytest.raises(OSError, match="directory"):
            write_durably(tmp_path / "file", b"new")
        assert os.listdir(tmp_path) == ["file"]

    @pytest.mark.root
    def test_a_full_disk_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        with tmpfs(tmp_path / "small", "size=64k") as small:
            write_durably(small / "file", b"old")
            with pytest.raises(OSError, match="No space"):
                write_durably(small / "file", b"x" * (1 << 20))
            assert os.listdir(small) == ["file"]
            assert (small / "file").read_bytes() == b"old"

    def test_a_document_is_toml(self, tmp_path: Path) -> None:
        write_document(tmp_path / "a.toml", {"text": "ä\n", "table": {"n": 1}})
        assert tomllib.loads((tmp_path / "a.toml").read_text("utf-8")) == {"text": "ä\n", "table": {"n": 1}}


class TestLock:
    def test_only_one_at_a_time(self, tmp_path: Path) -> None:
        with locked(tmp_path / "lock", "a deployment of shop"):
            with pytest.raises(Busy) as caught, locked(tmp_path / "lock", "a deployment of shop"):
                pass
            assert caught.value.exit_status is ExitStatus.BUSY
            assert "a deployment of shop" in caught.value.message
        with locked(tmp_path / "lock", "anything"):
            pass

    def test_a_patient_one_waits(self, tmp_path: Path) -> None:
        release, taken = threading.Event(), threading.Event()

        def hold() -> None:
            with locked(tmp_path / "lock", "first"):
                taken.set()
                release.wait()

        holder = threading.Thread(target=hold)
        holder.start()
        taken.wait()
        waiting = threading.Timer(0.1, release.set)
        waiting.start()
        with locked(tmp_path / "lock", "second", patience=30):
            assert release.is_set()
        holder.join()
        waiting.join()

    def test_one_that_is_told_to_stop_gives_up(self, tmp_path: Path) -> None:
        with (
            locked(tmp_path / "lock", "first"),
            pytest.raises(Busy),
            locked(tmp_path / "lock", "second", 3600, lambda: True),
        ):
            pass

    def test_a_crash_of_its_holder_releases_it(self, tmp_path: Path) -> None:
        program = (
            "import sys, time; from pathlib import Path; from swapd.host.files import locked\n"
            "with locked(Path(sys.argv[1]), 'x'): print(flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, tmp_path / "lock"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=PROJECT,
        ) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            with pytest.raises(Busy), locked(tmp_path / "lock", "x"):
                pass
            holder.kill()
            holder.wait()
        with locked(tmp_path / "lock", "x"):
            pass

    def test_a_lock_is_no_link(self, tmp_path: Path) -> None:
        (tmp_path / "lock").symlink_to(tmp_path / "victim")
        with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "lock", "x"):
            pass
        assert not (tmp_path / "victim").exists()

    def test_children_do_not_inherit_it(self, tmp_path: Path) -> None:
        with locked(tmp_path / "lock", "x"):
            child = subprocess.Popen(["sleep", "infinity"], close_fds=False)
        try:
            with locked(tmp_path / "lock", "x"):
                pass
        finally:
            child.kill()
            child.wait()


class TestRemoval:
    def test_a_tree(self, tmp_path: Path, directory: int) -> None:
        write_tree(tmp_path / "tree", {"a/b/c.txt": "1", "a/d.txt": "2", "e.txt": "3"})
        (tmp_path / "tree/empty/empty").mkdir(parents=True)
        os.mkfifo(tmp_path / "tree/fifo")
        remove_tree(directory, "tree")
        assert os.listdir(tmp_path) == []

    def test_a_file_a_link_or_nothing(self, tmp_path: Path, directory: int) -> None:
        write_tree(tmp_path / "kept", {"file": "1"})
        (tmp_path / "link").symlink_to("kept")
        (tmp_path / "file").touch()
        for name in ("link", "file", "missing"):
            remove_tree(directory, name)
        assert os.listdir(tmp_path) == ["kept"]
        assert (tmp_path / "kept/file").exists()

    def test_no_link_is_followed(self, tmp_path: Path, directory: int) -> None:
        write_tree(tmp_path / "precious", {"a/b": "1"})
        write_tree(tmp_path / "tree", {"x": "1"})
        (tmp_path / "tree/link").symlink_to("../precious")
        (tmp_path / "tree/deeper").mkdir()
        (tmp_path / "tree/deeper/link").symlink_to(tmp_path / "precious/a")
        before = snapshot(tmp_path / "precious")
        remove_tree(directory, "tree")
        assert os.listdir(tmp_path) == ["precious"]
        assert snapshot(tmp_path / "precious") == before

    def test_a_tree_deeper_than_recursion_and_descriptors_go(self, tmp_path: Path, directory: int) -> None:
        depth = 3000
        assert depth > sys.getrecursionlimit()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        here = os.open(tmp_path, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        try:
            remove_tree(directory, "d")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert os.listdir(tmp_path) == []


class TestIdentity:
    def test_a_directory_is_known_again_after_a_rename(self, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        identity = identify(tmp_path / "one")
        (tmp_path / "one").rename(tmp_path / "two")
        assert is_tree(tmp_path / "two", identity)
        assert not is_tree(tmp_path / "one", identity)
        (tmp_path / "one").symlink_to("two")
        assert is_tree(tmp_path / "one", identity), "through a link, as httpd sees it"
        (tmp_path / "two").rename(tmp_path / "three")
        assert not is_tree(tmp_path / "one", identity)

    def test_another_directory_is_another(self, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        assert not is_tree(tmp_path / "two", identify(tmp_path / "one"))
        (tmp_path / "file").touch()
        assert not is_tree(tmp_path / "file/below", identify(tmp_path / "one"))

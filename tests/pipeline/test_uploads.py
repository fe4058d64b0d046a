"""How a tarball comes into a drop directory by the programs of this machine, is broken off, and is gone on with.

What comes through sshd is in the host ring.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swapd.model.release import Outcome
from tests.support.sites import Scratch
from tests.support.tarballs import digest_of, release_of, site_content, write_sidecar, write_tarball
from tests.support.trees import texts
from tests.support.waiting import wait_until

Plot = Callable[..., Scratch]
ONE = site_content("one")
CURL = ["curl", "--silent", "--show-error"]

# SOURCE and TARGET are paths; TARGET's name is the tarball's.
WAYS = {
    "cp": ["cp", "SOURCE", "TARGET"],
    "install": ["install", "-m", "640", "SOURCE", "TARGET"],
    "mv": ["mv", "SOURCE", "TARGET"],
    "ln": ["ln", "SOURCE", "TARGET"],
    "dd": ["dd", "if=SOURCE", "of=TARGET", "bs=1k", "status=none"],
    "curl": [*CURL, "--upload-file", "SOURCE", "file://TARGET"],
    "rsync": ["rsync", "--times", "SOURCE", "TARGET"],
    "rsync --partial": ["rsync", "--times", "--partial", "SOURCE", "TARGET"],
    "rsync --inplace": ["rsync", "--times", "--inplace", "SOURCE", "TARGET"],
}
# What goes on with a part of SOURCE that is at TARGET.
RESUMED = {
    "curl -C -": [*CURL, "--continue-at", "-", "--upload-file", "SOURCE", "file://TARGET"],
    "rsync --append": ["rsync", "--append", "SOURCE", "TARGET"],
    "rsync --append-verify": ["rsync", "--append-verify", "SOURCE", "TARGET"],
    "rsync --inplace": ["rsync", "--inplace", "--no-whole-file", "SOURCE", "TARGET"],
    "rsync --partial": ["rsync", "--partial", "--no-whole-file", "SOURCE", "TARGET"],
    "dd": ["dd", "if=SOURCE", "of=TARGET", "bs=1k", "conv=notrunc", "status=none"],
}


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_tarball(tmp_path / "shop-1.tar.gz", ONE)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another filesystem than the drop directories."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        if os.stat(directory).st_dev == tmp_path.stat().st_dev:
            pytest.skip("the scratch directory is on /dev/shm itself")
        yield Path(directory)


def run(command: list[str], source: Path, target: Path) -> None:
    """As somebody at a shell."""
    places = {"SOURCE": str(source), "TARGET": str(target)}
    for place, path in places.items():
        command = [word.replace(place, path) for word in command]
    subprocess.run(command, check=True)


def assert_live_once(scratch: Scratch, tarball: str, release: str) -> None:
    scratch.wait_marker(f"{tarball}.live")
    scratch.wait_live(release)
    assert texts(scratch.live()) == ONE
    wait_until(lambda: os.listdir(scratch.incoming) == [f"{tarball}.live"], "one marker, and nothing else")


@pytest.mark.parametrize("way", WAYS)
def test_every_program(plot: Plot, one: Path, way: str) -> None:
    scratch = plot()
    release = release_of(one)
    run(WAYS[way], one, scratch.incoming / one.name)
    assert_live_once(scratch, one.name, release)
    assert len(scratch.deployments()) == 1


def test_mv_from_another_filesystem(plot: Plot, one: Path, elsewhere: Path) -> None:
    """Which is a copy, and then takes the owner and times of what it copied."""
    scratch = plot()
    shutil.copy(one, elsewhere)
    run(WAYS["mv"], elsewhere / one.name, scratch.incoming / one.name)
    assert_live_once(scratch, one.name, release_of(one))
    assert len(scratch.deployments()) == 1


@pytest.mark.parametrize("way", RESUMED)
def test_an_upload_that_was_cut_off_is_gone_on_with(plot: Plot, one: Path, way: str) -> None:
    scratch = plot()
    content, upload = one.read_bytes(), scratch.incoming / one.name
    upload.write_bytes(content[: len(content) // 2])
    assert scratch.wait_marker(f"{one.name}.rejected")["problem"] == "truncated"
    run(RESUMED[way], one, upload)
    assert_live_once(scratch, one.name, release_of(one))
    assert [item.outcome for item in scratch.deployments()] == [Outcome.LIVE, Outcome.REJECTED]


@pytest.mark.parametrize("way", ["curl -C -", "rsync --append"])
def test_one_whose_digest_is_there_is_not_even_rejected_before(plot: Plot, one: Path, way: str) -> None:
    scratch = plot(settle="1h")
    content, upload = one.read_bytes(), scratch.incoming / one.name
    write_sidecar(upload, digest_of(one))
    upload.write_bytes(content[: len(content) // 2])
    wait_until(
        lambda: "digest" in scratch.markers().get(f"{one.name}.pending", {}).get("reason", ""), "a look at the part"
    )
    run(RESUMED[way], one, upload)
    assert_live_once(scratch, one.name, release_of(one))
    assert [item.outcome for item in scratch.deployments()] == [Outcome.LIVE]


MAPPED = """
import mmap, os, sys
source, target = sys.argv[1:]
content = open(source, "rb").read()
descriptor = os.open(target, os.O_RDWR | os.O_CREAT, 0o640)
os.ftruncate(descriptor, len(content))
mapped = mmap.mmap(descriptor, len(content))
os.closerange(3, descriptor + 10)  # Python keeps a copy of it; what maps it is a writer all the same
print("mapped", flush=True)
sys.stdin.readline()
mapped[:] = content
mapped.flush()
print("written", flush=True)
sys.stdin.readline()
"""


def test_a_writer_that_has_it_mapped(plot: Plot, one: Path) -> None:
    scratch = plot()
    name = one.name
    program = [sys.executable, "-c", MAPPED, str(one), str(scratch.incoming / name)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "mapped\n"
        wait_until(lambda: "open" in scratch.markers().get(f"{name}.pending", {}).get("reason", ""), "it to wait")
        writer.stdin.write("go on\n")
        assert writer.stdout.readline() == "written\n"
        assert scratch.deployments() == [], "it may still be written to"
    assert_live_once(scratch, name, release_of(one))
    assert len(scratch.deployments()) == 1

"""Filesystems that a test mounts for itself, as root."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.waiting import wait_until

HERE = Path(__file__).parent


@contextlib.contextmanager
def tmpfs(place: Path, options: str = "size=16m") -> Iterator[Path]:
    """A tmpfs on ``place``, which is made."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "swapd-test", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@contextlib.contextmanager
def fuse(place: Path, uid: int) -> Iterator[Path]:
    """A mount by FUSE on ``place``, which is made, as a user makes it with fusermount: nobody else may look at it."""
    place.mkdir(parents=True, exist_ok=True)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = f"fd={device},rootmode=40000,user_id={uid},group_id={uid}"
        command = ["mount", "--internal-only", "-t", "fuse", "-o", options, "swapd-test", place]
        subprocess.run(command, check=True, pass_fds=[device])
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)
    finally:
        os.close(device)


@contextlib.contextmanager
def bind(source: Path, place: Path) -> Iterator[Path]:
    """A bind mount of ``source`` on ``place``, which is made."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", source, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@contextlib.contextmanager
def overlay(lower: Path, place: Path, options: str = "") -> Iterator[Path]:
    """An overlay filesystem on ``place``, which is made: what is in ``lower``, and whatever is changed beside it."""
    upper, work = (place.with_name(f"{place.name}.{kind}") for kind in ("upper", "work"))
    for directory in (lower, place, upper, work):
        directory.mkdir(parents=True, exist_ok=True)
    layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "-o", ",".join(filter(None, (layers, options))), "o", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


class Faults:
    """What a filesystem fails by; a call, an error's number, and a pattern for the paths below its mount point."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mend()

    def set(self, *faults: tuple[str, int, str]) -> None:
        """These and no others, from now on: calls by the names that ``through.c`` has for them."""
        temporary = self.path.with_suffix(".new")
        temporary.write_text("".join(f"{call} {error} {pattern}\n" for call, error, pattern in faults))
        temporary.rename(self.path)

    def mend(self) -> None:
        self.set()


@contextlib.contextmanager
def failing(place: Path) -> Iterator[Faults]:
    """A FUSE filesystem on ``place``, which is made, that fails whenever it is told to."""
    place.mkdir(parents=True)
    faults = Faults(place.with_name(f"{place.name}.faults"))
    with _through("honest", place, faults.path):
        yield faults


@contextlib.contextmanager
def lying(kind: str, place: Path) -> Iterator[Path]:
    """A FUSE filesystem on ``place``, which is made, that lies about exchanges: see ``through.c`` for the kinds."""
    with _through(kind, place):
        yield place


@contextlib.contextmanager
def _through(kind: str, place: Path, *faults: Path) -> Iterator[None]:
    source, program = place.with_name(f"{place.name}.source"), place.with_name("through")
    for directory in (source, place):
        directory.mkdir(parents=True, exist_ok=True)
    command = ["cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-I/usr/include/fuse3", HERE / "through.c", "-lfuse3"]
    subprocess.run([*command, "-o", program], check=True)
    with subprocess.Popen([program, kind, source, place, *faults]) as server:
        wait_until(lambda: os.path.ismount(place) or server.poll() is not None, "the filesystem to be mounted")
        assert server.poll() is None
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)

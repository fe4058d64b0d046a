"""Release trees, the tarballs made of them by GNU tar, and trees compared."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import random
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tgz": gzip.compress,
    ".tar.xz": lambda data: lzma.compress(data, preset=1),
    ".tar.bz2": bz2.compress,
}
MARK = "release.txt"  # every release has this file, with the release's name in it


def mark_text(name: str) -> str:
    """What the mark says, as long in each release.

    httpd looks at a file's size before it opens it, and a swap may come between, whatever pauses it or not: then a
    visitor gets so much of the other release's file. Seven of 25,097 did in 150 swaps at 500 requests a second.
    """
    return f"{name:<40}\n"


@dataclass(frozen=True, slots=True)
class Packed:
    """A release as its author has it: a tree, and the tarball of it."""

    name: str
    tree: Path
    tarball: Path

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.tarball.read_bytes()).hexdigest()

    @property
    def release(self) -> str:
        return f"{self.name}@{self.digest[:12]}"


def make_tree(directory: Path, name: str, *, small_files: int = 20) -> Path:
    """A site with what sites have: names in need of quoting, deep paths, binaries, empty files, links."""
    directory.mkdir(parents=True)
    noise = random.Random(name)
    files: dict[str, bytes] = {
        MARK: mark_text(name).encode(),
        "index.html": f"<!doctype html><title>{name}</title>\n".encode(),
        "assets/app.0f3e.js": noise.randbytes(70_000),
        "assets/leer.css": b"",
        "bilder/größe & maß 100%.txt": f"{name} ä\n".encode(),
        "bilder/photo #1?.jpg": noise.randbytes(300_000),
        "a/" * 20 + "deep.txt": b"deep\n",
        "bin/cron.sh": b"#!/bin/sh\n",
        "l" * 180 + ".txt": b"a name too long for the classic header\n",
    }
    files |= {
        f"pages/{number % 7}/{number}.html": noise.randbytes(noise.randrange(9000)) for number in range(small_files)
    }
    for path, content in files.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (directory / "bin/cron.sh").chmod(0o755)
    (directory / "uploads").mkdir()
    (directory / "start.html").symlink_to("index.html")
    (directory / "assets/latest.js").symlink_to("../assets/app.0f3e.js")
    return directory


def pack(directory: Path, name: str, suffix: str = ".tar.gz", *, wrapped: bool = True, small_files: int = 20) -> Packed:
    """Makes a release called ``name`` and its tarball in ``directory``; ``wrapped`` in a single directory, or not."""
    tree = make_tree(directory / "trees" / name, name, small_files=small_files)
    return Packed(name, tree, pack_tree(tree, directory / f"{name}{suffix}", suffix, wrapped=wrapped))


def pack_tree(tree: Path, tarball: Path, suffix: str, *, wrapped: bool = True) -> Path:
    """Writes GNU tar's archive of the tree, compressed as the suffix says."""
    what = ["-C", str(tree.parent), tree.name] if wrapped else ["-C", str(tree), "."]
    owner = ["--owner=someone:12345", "--group=somegroup:12345"]
    archive = subprocess.run(["tar", "-c", *owner, *what], capture_output=True, check=True).stdout
    tarball.write_bytes(COMPRESSORS[suffix](archive))
    return tarball


def file_paths(tree: Path) -> list[str]:
    """The relative paths of the tree's regular files, and of the links to them that stay within it."""
    return sorted(
        os.path.relpath(os.path.join(directory, name), tree)
        for directory, _, names in os.walk(tree)
        for name in names
        if os.path.isfile(os.path.join(directory, name))
    )


def describe_tree(tree: Path) -> dict[str, str]:
    """Every entry of the tree: its kind, its mode as a release has it (644 or 755), and its content's digest.

    Where a release keeps only whether a file is executable, so does this.
    """
    entries: dict[str, str] = {}
    for directory, directories, names in os.walk(tree):
        for name in directories + names:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            relative = os.path.relpath(path, tree)
            if stat.S_ISLNK(status.st_mode):
                entries[relative] = f"link to {os.readlink(path)}"
            elif stat.S_ISDIR(status.st_mode):
                entries[relative] = "directory 755"
            else:
                mode = "755" if status.st_mode & stat.S_IXUSR else "644"
                entries[relative] = f"file {mode} {hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
    return entries


def exact_modes(tree: Path) -> set[str]:
    """All modes that the tree's directories and files have."""
    return {
        f"{'directory' if stat.S_ISDIR(status.st_mode) else 'file'} {stat.S_IMODE(status.st_mode):o}"
        for directory, directories, names in os.walk(tree)
        for name in directories + names
        if not stat.S_ISLNK((status := os.lstat(os.path.join(directory, name))).st_mode)
    }

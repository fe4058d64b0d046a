"""Tarballs as people make and upload them."""

from __future__ import annotations

import hashlib
import io
import os
import random
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Content = Mapping[str, str | bytes]
Mode = Literal["w", "w:gz", "w:xz", "w:bz2"]

_MODES: dict[str, Mode] = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.xz": "w:xz", ".tar.bz2": "w:bz2"}


def site_content(mark: str, files: int = 3) -> dict[str, str]:
    """A small site whose every file bears the mark of its release."""
    pages = {f"page{number}.html": f"<p>{mark}</p>\n" for number in range(files - 1)}
    return {"index.html": f"<h1>{mark}</h1>\n", **pages}


def large_content(megabytes: int, mark: str = "large") -> dict[str, bytes]:
    """Files that no compression makes smaller; with a mark of their own, as ``site_content``'s have."""
    source = random.Random(mark)
    return {"index.html": f"<h1>{mark}</h1>\n".encode()} | {
        f"data/{number:04}.bin": source.randbytes(1 << 18) for number in range(megabytes * 4)
    }


def pack(content: Content, file_name: str, *, top: str = "", mtime: int = 1_600_000_000) -> bytes:
    """A tarball's bytes, compressed as its file name says; ``top`` wraps everything in one directory."""
    mode = _MODES[next(suffix for suffix in sorted(_MODES, key=len, reverse=True) if file_name.endswith(suffix))]
    buffer = io.BytesIO()
    level = {"compresslevel": 1} if mode in ("w:gz", "w:bz2") else {}
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.PAX_FORMAT, **level) as archive:  # type: ignore[call-overload]
        for name, text in content.items():
            data = text.encode() if isinstance(text, str) else text
            member = tarfile.TarInfo(f"{top}/{name}" if top else name)
            member.size, member.mtime = len(data), mtime
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def write_tarball(path: Path, content: Content, *, top: str = "") -> Path:
    """Writes the tarball in place, as ``cp`` and ``scp`` do."""
    path.write_bytes(pack(content, path.name, top=top))
    return path


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def release_of(path: Path) -> str:
    """The id of the release that the tarball holds."""
    name = path.name
    for suffix in sorted(_MODES, key=len, reverse=True):
        if name.endswith(suffix):
            name = name.removesuffix(suffix)
            break
    return f"{name}@{digest_of(path)[:12]}"


def write_sidecar(path: Path, digest: str = "") -> Path:
    """The sidecar, as ``sha256sum`` prints it."""
    sidecar = path.with_name(f"{path.name}.sha256")
    sidecar.write_text(f"{digest or digest_of(path)}  {path.name}\n")
    return sidecar


def drop(tarball: Path, incoming: Path, name: str = "") -> Path:
    """Puts a copy into the drop directory as rsync does: under a temporary name, then renamed. Returns its path."""
    target = incoming / (name or tarball.name)
    temporary = incoming / f".{target.name}.upload"
    temporary.write_bytes(tarball.read_bytes())
    os.rename(temporary, target)
    return target


def touch(path: Path) -> None:
    """As touch(1) does, and as the hints of a marker say: the file is opened, and gets the present time."""
    with path.open("ab"):
        os.utime(path)

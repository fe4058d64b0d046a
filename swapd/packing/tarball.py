"""A source written as a tarball with its digest and signature: the same members, the same bytes.

That is so for one version of the compressor: another zlib, xz or zstd may write other bytes of the same tar, and the
release has another digest then. ``.tar`` itself is the same everywhere.

Members belong to nobody, are 644 or 755, and bear one time. They lie below one top-level directory, which the receiver
unwraps: the only directory of a site is then never mistaken for such a wrapping.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import secrets
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from swapd.model.errors import Failed, Rejected, UsageError
from swapd.model.release import SIDECAR_SUFFIXES, Compression, Digest, parse_tarball_name, printable
from swapd.model.sshsig import NAMESPACE
from swapd.packing.sources import Member, Source

SUFFIXES = {
    Compression.GZIP: ".tar.gz",
    Compression.ZSTD: ".tar.zst",
    Compression.XZ: ".tar.xz",
    Compression.NONE: ".tar",
}
GZIP_LEVEL = 9
ZSTD = ("zstd", "--quiet", "-10", "-T1", "--stdout")  # both win over the environment: nobody's settings decide


@dataclass(frozen=True, slots=True)
class Packed:
    """A tarball that was written, and its sidecars."""

    tarball: Path
    sidecars: tuple[Path, ...]
    digest: Digest
    size: int
    files: int


def pack(
    source: Source, output: Path, key: Path | None = None, *, is_forced: bool = False, namespace: str = NAMESPACE
) -> Packed:
    """Writes the tarball, named and compressed as ``output`` says, then its sidecars.

    With ``key``, a signature for ``namespace`` is one of them.

    Each appears whole or not at all, the tarball before its sidecars, and never beside a sidecar of another tarball.
    Raises ``UsageError`` where one of them is there already (unless ``is_forced``) or the name is no tarball's, and
    ``Failed`` where reading, compressing, signing or writing fails.
    """
    name, compression = parse_output_name(output.name)
    sidecars = [output.with_name(output.name + suffix) for suffix in (*SIDECAR_SUFFIXES, ".sha256.sig")]
    if not is_forced and (existing := [path for path in (output, *sidecars) if os.path.lexists(path)]):
        raise UsageError("output-exists", f"{existing[0]} exists", "--force replaces it, --output writes elsewhere.")
    try:
        with _new_file(output) as file:
            write_tar(source, name, compression, file)
            size = file.seek(0, os.SEEK_END)  # which flushes it, too, for those who read it by its name
            file.seek(0)
            digest = Digest(hashlib.file_digest(file, "sha256").hexdigest())
            contents = {".sha256": f"{digest}  {output.name}\n".encode()}
            if key is not None:
                contents[".sig"] = sign(Path(file.name), key, namespace)
            for sidecar in sidecars:
                sidecar.unlink(missing_ok=True)
        for suffix, content in contents.items():
            with _new_file(output.with_name(output.name + suffix)) as file:
                file.write(content)
    except OSError as error:
        raise Failed("cannot-write", f"cannot write {output}: {error.strerror}") from error
    files = sum(member.type == tarfile.REGTYPE for member in source.members)
    return Packed(output, tuple(output.with_name(output.name + suffix) for suffix in contents), digest, size, files)


def parse_output_name(file_name: str) -> tuple[str, Compression]:
    """The release's name and the compression that a tarball's file name asks for; ``UsageError`` where it has none."""
    try:
        name, compression = parse_tarball_name(file_name)
    except Rejected as error:
        raise UsageError(error.problem, error.message, error.hint) from None
    if compression not in SUFFIXES:
        known = ", ".join(SUFFIXES.values())
        raise UsageError("bad-compression", f"{file_name}: swapd reads this compression, but writes only {known}")
    return name, compression


def write_tar(source: Source, top: str, compression: Compression, file: IO[bytes]) -> None:
    """Writes the members below a directory called ``top``, followed by the archive's end, to an empty file."""
    with (
        _compressed(file, compression) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        archive.addfile(_header(Member("", tarfile.DIRTYPE), top, source.mtime))
        for member in source.members:
            with member.open() if member.open else nullcontext() as content:
                archive.addfile(_header(member, f"{top}/{member.path}", source.mtime), content)


def sign(tarball: Path, key: Path, namespace: str = NAMESPACE) -> bytes:
    """The signature of the file's bytes, made and checked by ssh-keygen; ``key`` may be one that an agent holds.

    On a terminal ssh-keygen asks there for the key's passphrase, or for a touch of its token. Raises ``Failed`` with
    what it said.
    """
    with tempfile.TemporaryDirectory(prefix="swapd-pack-") as directory:
        # A name in a new directory: beside an old signature ssh-keygen would ask, or without a terminal keep that one.
        # Not from standard input: a passphrase is asked for only where that is the terminal.
        link = os.path.join(directory, "tarball")
        os.symlink(os.path.abspath(tarball), link)
        _ssh_keygen("sign", "-q", "-n", namespace, "-f", str(key), link)
        with open(tarball, "rb") as file, open(f"{link}.sig", "rb") as made:
            _ssh_keygen("check-novalidate", "-n", namespace, "-s", made.name, stdin=file)
            return made.read()


def _ssh_keygen(operation: str, *arguments: str, stdin: IO[bytes] | None = None) -> None:
    """Runs ``ssh-keygen -Y``. What it has to say to somebody at a terminal it says there."""
    asks = stdin is None and sys.stdin is not None and sys.stdin.isatty() and os.isatty(2)
    try:
        done = subprocess.run(
            ["ssh-keygen", "-Y", operation, *arguments],
            stdin=stdin or (None if asks else subprocess.DEVNULL),
            stdout=subprocess.DEVNULL,
            stderr=None if asks else subprocess.PIPE,
            check=False,
        )
    except FileNotFoundError:
        raise Failed("no-ssh-keygen", "ssh-keygen is not installed", "Install openssh-client.") from None
    if done.returncode:
        reason = printable(os.fsdecode(done.stderr or b"").strip()) or f"exit status {done.returncode}"
        raise Failed(
            "cannot-sign",
            f"ssh-keygen -Y {operation}: {reason}",
            "--sign takes a key of ssh-keygen's. One with a passphrase needs a terminal or an agent: ssh-add KEY.",
        )


def _header(member: Member, path: str, mtime: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.size, info.linkname, info.mtime = member.type, member.size, member.target, mtime
    if member.type == tarfile.SYMTYPE:
        info.mode = 0o777
    else:
        info.mode = 0o755 if member.is_executable or member.type == tarfile.DIRTYPE else 0o644
    return info


@contextmanager
def _compressed(file: IO[bytes], compression: Compression) -> Iterator[IO[bytes]]:
    match compression:
        case Compression.GZIP:  # without the name and the time that gzip's header may hold
            with gzip.GzipFile(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=file, mtime=0) as stream:
                yield cast(IO[bytes], stream)
        case Compression.XZ:
            with lzma.open(file, "wb") as stream:
                yield stream
        case Compression.ZSTD:
            with _zstd(file) as stream:
                yield stream
        case _:
            yield file


@contextmanager
def _zstd(file: IO[bytes]) -> Iterator[IO[bytes]]:
    try:
        process = subprocess.Popen(ZSTD, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.PIPE)
    except FileNotFoundError:
        raise Failed("no-zstd", "zstd is not installed", "Install zstd, or use --compress gzip.") from None
    with process:
        assert process.stdin is not None and process.stderr is not None  # noqa: S101, PT018 - both are pipes
        try:
            yield process.stdin
            process.stdin.close()
        except BrokenPipeError:
            pass  # its exit status and its words say why
        except BaseException:
            process.kill()
            raise
        said = os.fsdecode(process.stderr.read()).strip()
    if process.returncode:
        raise Failed("cannot-compress", f"zstd: {printable(said) or f'exit status {process.returncode}'}")


@contextmanager
def _new_file(path: Path) -> Iterator[io.BufferedRandom]:
    """A file that takes its name when the context ends well, and is gone when it does not."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "x+b") as file:
            yield file
        os.rename(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise

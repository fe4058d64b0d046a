"""Debian roots to boot, made once and kept in a cache outside the checkout.

mmdebstrap takes half a minute, an overlay on its result nothing: so a root is built once for each set of packages,
under a temporary name, and renamed when it is complete. A lock keeps two test runs from building the same one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SUITE = "bookworm"  # the oldest Debian that swapd promises to run on
CACHE = Path(os.environ.get("SWAPD_TEST_CACHE", "/var/cache/swapd-tests"))
KEPT = 30 * 86400  # seconds since a root was last used
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Timers that would start work of their own in the middle of a test.
NOISY_UNITS = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer")


@dataclass(frozen=True, slots=True)
class Archive:
    """A place that this machine's own apt knows to have the suite."""

    uri: str
    release: str
    component: str

    def line(self, kind: str) -> str:
        signed_by = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        return f"{kind} {signed_by}{self.uri} {self.release} {self.component}"


def find_archives() -> list[Archive]:
    """The archives of the suite as this machine's apt is configured, so that a mirror is taken over; else none."""
    wanted = ("Created-By: Packages", "--format", "$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)")
    listed = subprocess.run(
        ["apt-get", "indextargets", "--no-release-info", *wanted], text=True, capture_output=True, check=True
    ).stdout
    found = dict.fromkeys(Archive(*line.split("\t")) for line in listed.splitlines() if line.count("\t") == 2)
    suites = (SUITE, f"{SUITE}-updates", f"{SUITE}-security")
    archives = [archive for archive in found if archive.release in suites and archive.component == "main"]
    return archives if any(archive.release == SUITE for archive in archives) else []


def transport_options() -> list[str]:
    """How this machine's apt reaches its archives (proxies, certificates), as ``Name "value"`` settings."""
    dump = subprocess.run(["apt-config", "dump"], text=True, capture_output=True, check=True).stdout
    settings = re.findall(r'^(Acquire::(?:http|https)(?:::[^" ]+)?) "([^"]+)";$', dump, re.MULTILINE)
    return [f'{name} "{value}"' for name, value in settings]


@contextmanager
def cache_lock() -> Iterator[None]:
    """Held by whoever builds something into the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def debian_root(packages: Iterable[str], *, variant: str = "minbase") -> Path:
    """A root that has the packages; built where the cache has none. Read-only to its users: mount an overlay on it."""
    names = sorted(set(packages))
    recipe = "\n".join([SUITE, variant, *names, *NOISY_UNITS])
    root = CACHE / f"root-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with cache_lock():
        if not root.is_dir():
            _remove_old_roots()
            building = root.with_suffix(".building")
            _bootstrap(building, names, variant)
            building.rename(root)
        os.utime(root)  # in use: see _remove_old_roots
    return root


def _remove_old_roots() -> None:
    """Makes room for a new root: those that a crash left half built, and those that nobody has used for weeks."""
    for root in CACHE.glob("root-*"):
        if root.suffix == ".building" or time.time() - root.stat().st_mtime > KEPT:
            shutil.rmtree(root)


def _bootstrap(root: Path, packages: Sequence[str], variant: str) -> None:
    command = ["mmdebstrap", f"--variant={variant}", "--format=directory", f"--include={','.join(packages)}"]
    command += [f"--aptopt={option}" for option in transport_options()]
    if "systemd" in packages:
        command.append(f'--customize-hook=chroot "$1" systemctl --quiet mask {" ".join(NOISY_UNITS)}')
    if "man-db" in packages:  # it would renew its database at each installation, which takes a second of the test
        command.append('--customize-hook=rm -f "$1/var/lib/man-db/auto-update"')
    if {"apache2", "nginx-light"} <= set(packages):  # both want port 80
        command.append('--customize-hook=chroot "$1" systemctl --quiet disable nginx.service')
    sources = "".join(f"{archive.line('deb')}\n" for archive in find_archives())
    # Without sources of its own, mmdebstrap takes Debian's.
    done = subprocess.run(
        [*command, SUITE, str(root), *(["-"] if sources else [])],
        input=sources,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        shutil.rmtree(root, ignore_errors=True)
        raise RuntimeError(f"mmdebstrap ended with {done.returncode}:\n{done.stdout}")


def published_source(package: str, pattern: str) -> Path:
    """The file of a Debian source package that matches the pattern, such as its upstream tarball; kept in the cache.

    It goes through apt, which checks signature and digest, with sources and state of its own: this machine's
    configuration has perhaps no source archives, and is not touched.
    """
    kept = CACHE / "sources" / package
    with cache_lock():
        if not (files := list(kept.glob(pattern))):
            shutil.rmtree(kept, ignore_errors=True)
            _download_source(package, kept)
            files = list(kept.glob(pattern))
    if len(files) != 1:
        raise RuntimeError(f"{package}: expected one {pattern}, found {[file.name for file in files]}")
    return files[0]


def published_program(package: str, path: str) -> Path:
    """A single program of a Debian package, without what the package would install and start; kept in the cache."""
    kept = CACHE / "programs" / path.rpartition("/")[2]
    with cache_lock():
        if not kept.exists():
            building = kept.with_suffix(".building")
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir(parents=True)
            download = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package]
            if subprocess.run(download, cwd=building, capture_output=True).returncode:
                subprocess.run(["apt-get", "-qq", "update"], check=True)  # a new machine has no lists
                subprocess.run(download, cwd=building, check=True)
            (deb,) = building.glob("*.deb")
            with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as opened:
                subprocess.run(["tar", "-x", "-C", building, f".{path}"], stdin=opened.stdout, check=True)
            (building / path.lstrip("/")).rename(kept)
            shutil.rmtree(building)
    return kept


def _download_source(package: str, into: Path) -> None:
    building = into.with_suffix(".building")
    shutil.rmtree(building, ignore_errors=True)
    state = building / "apt"
    for directory in ("lists/partial", "archives/partial"):
        (state / directory).mkdir(parents=True)
    archives = find_archives()
    if not archives:
        raise RuntimeError(f"apt on this machine has no {SUITE} in its sources: {package} cannot be had")
    (state / "sources.list").write_text("".join(f"{archive.line('deb-src')}\n" for archive in archives))
    apt = [
        *("apt-get", "-q", "-o", f"Dir::Etc::sourcelist={state}/sources.list", "-o", "Dir::Etc::sourceparts=/dev/null"),
        *("-o", f"Dir::State::lists={state}/lists", "-o", f"Dir::Cache={state}", "-o", "APT::Sandbox::User=root"),
    ]
    for arguments in (["update"], ["source", "--download-only", package]):
        done = subprocess.run(
            [*apt, *arguments], cwd=building, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if done.returncode:
            raise RuntimeError(f"apt-get {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}")
    shutil.rmtree(state)
    building.rename(into)

"""The built package: made by ``make deb`` where ``dist/`` has none that is newer than its sources."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.host.roots import cache_lock

CHECKOUT = Path(__file__).resolve().parents[2]
# What the package is made of; a change in any of them makes a package in dist/ too old.
SOURCES = ("swapd", "systemd", "packaging", "pyproject.toml", "Makefile", "README.md", "CHANGELOG.md", "LICENSE")


def built_package() -> Path:
    """The .deb of this checkout, built if there is none or an older one."""
    with cache_lock():  # two test runs would build into the same directory
        newest = max(path.stat().st_mtime_ns for path in _source_files())
        package = _find_package()
        if package is None or package.stat().st_mtime_ns < newest:
            done = subprocess.run(["make", "-C", str(CHECKOUT), "deb"], text=True, capture_output=True)
            if done.returncode:
                raise RuntimeError(f"make deb ended with {done.returncode}:\n{done.stdout}{done.stderr}")
            package = _find_package()
    if package is None:
        raise RuntimeError(f"make deb has put no swapd_*.deb into {CHECKOUT / 'dist'}")
    return package


LATER = {"python3-isal"}  # recommended, and not packaged before Debian 13


def dependencies(package: Path) -> list[str]:
    """The packages that it names as its dependencies, the first of each choice."""
    fields = ("Pre-Depends", "Depends", "Recommends")
    control = subprocess.run(
        ["dpkg-deb", "--showformat", "".join(f"${{{name}}}," for name in fields), "--show", str(package)],
        text=True,
        capture_output=True,
        check=True,
    ).stdout
    names = {name[0] for entry in control.split(",") if (name := re.match(r"[a-z0-9][a-z0-9.+-]+", entry.strip()))}
    return sorted(names - LATER)


def _find_package() -> Path | None:
    packages = (CHECKOUT / "dist").glob("swapd_*.deb")
    return max(packages, key=lambda path: path.stat().st_mtime_ns, default=None)


def _source_files() -> Iterator[Path]:
    for source in map(CHECKOUT.joinpath, SOURCES):
        yield from (path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        if source.is_file():
            yield source

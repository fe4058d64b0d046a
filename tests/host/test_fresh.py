"""What a newcomer does: a fresh Debian with git, make and Python and nothing else, a clone, `make demo`.

An ordinary user does it, with the network that the machine around has, and reaches package archives the way that
machine does (its apt sources, pip's settings, certificates), because nobody else knows how.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.host.machine import CONTAINED, MOUNT_ROOT, make_scratch, remove_scratch
from tests.host.package import CHECKOUT
from tests.host.roots import debian_root

NEWCOMER = "newcomer"
PACKAGES = ("git", "make", "python3", "ca-certificates")
# Variables by which programs are told how to reach the network.
NETWORK_VARIABLE = re.compile(r"PIP_\w+|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|\w+_proxy", re.IGNORECASE)

# Nothing boots: a shell is all that a newcomer has. What follows $2 are more arguments for nspawn.
ENTER_SCRIPT = f"""
{MOUNT_ROOT}
root="$2/root"
shift 2
exec systemd-nspawn --quiet --directory="$root" --machine="$name" --register=no --keep-unit --as-pid2 --console=pipe \
    --resolv-conf=copy-host "$@"
"""

# $1: the user, the rest: what the user types.
AS_NEWCOMER = """
set -e
useradd --home-dir "/home/$1" "$1"
chown -R "$1:" "/home/$1"
cd "/home/$1/swapd"
unset NOTIFY_SOCKET
export HOME="/home/$1" USER="$1" PATH=/usr/local/bin:/usr/bin:/bin
user=$1
shift
exec /sbin/runuser -u "$user" -- "$@"
"""


@pytest.fixture
def scratch() -> Iterator[Path]:
    """An empty directory outside the checkout, to mount on."""
    scratch = make_scratch()
    yield scratch
    remove_scratch(scratch)


@pytest.mark.timeout(900)  # a root and an environment are built
def test_make_demo_works_for_an_ordinary_user(scratch: Path, tmp_path: Path) -> None:
    done = as_newcomer(scratch, tmp_path, "make", "demo", "DEMO=once")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(" is live") >= 2, done.stdout


def test_make_test_says_which_ring_an_ordinary_user_leaves_out(scratch: Path, tmp_path: Path) -> None:
    done = as_newcomer(scratch, tmp_path, "make", "--dry-run", "test")
    assert done.returncode == 0, done.stdout
    assert "the host ring (tests/host)" in done.stdout


def as_newcomer(scratch: Path, tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in the checkout's top directory in a fresh root; what it says is all in its standard output."""
    root = debian_root(PACKAGES)
    network = network_settings()
    arguments = [f"--setenv={key}={value}" for key, value in network.items()]
    arguments += [f"--bind-ro={path}" for path in sorted(local_paths(network))]
    arguments.append(f"--bind={copy_of_checkout(tmp_path / 'swapd')}:/home/{NEWCOMER}/swapd")
    inside = ["sh", "-c", AS_NEWCOMER, "as-newcomer", NEWCOMER, *command]
    return subprocess.run(
        [*CONTAINED, "sh", "-c", ENTER_SCRIPT, "enter", str(root), str(scratch), *arguments, *inside],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )


def copy_of_checkout(target: Path) -> Path:
    """What a clone would have, and what is not committed yet; of an unpacked sdist, all but what was made in it."""
    if not (CHECKOUT / ".git").exists():
        made = shutil.ignore_patterns(".venv", "dist", "build", ".demo", ".*_cache", "__pycache__")
        return shutil.copytree(CHECKOUT, target, symlinks=True, ignore=made)
    git = ["git", "-C", str(CHECKOUT), "-c", f"safe.directory={CHECKOUT}"]
    listed = subprocess.run(
        [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True, check=True
    ).stdout
    for name in filter(None, os.fsdecode(listed).split("\0")):
        if (CHECKOUT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target / name, follow_symlinks=False)
    return target


def network_settings() -> dict[str, str]:
    """The environment by which programs in the fresh root reach what programs out here do."""
    pip = [sys.executable, "-m", "pip"] if _has_pip(sys.executable) else [shutil.which("pip3") or "pip"]
    shown = subprocess.run([*pip, "config", "list"], text=True, capture_output=True).stdout
    settings = dict(re.findall(r"^(?:global|install)\.([a-z-]+)=(.*)$", shown, re.MULTILINE))
    environment = {f"PIP_{key.upper().replace('-', '_')}": ast.literal_eval(value) for key, value in settings.items()}
    environment |= {key: value for key, value in os.environ.items() if NETWORK_VARIABLE.fullmatch(key)}
    return {key: " ".join(value.split()) for key, value in environment.items()}


def local_paths(environment: dict[str, str]) -> set[Path]:
    """The files and directories that the settings name, such as certificates and local package indexes."""
    words = (urlsplit(word).path for value in environment.values() for word in value.split())
    paths = {Path(word) for word in words if word.startswith("/")}
    # An index is named by a directory beside which its files may lie, as `../../packages/…`.
    paths |= {path.parent for path in paths if path.name == "simple"}
    return {path for path in paths if path.exists() and path != Path("/")}


def _has_pip(python: str) -> bool:
    return subprocess.run([python, "-c", "import pip"], capture_output=True).returncode == 0

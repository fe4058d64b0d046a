"""What systemd knows of a unit, which files it is made of, and a program that is run as a service of ours would be.

Facts that this rests on:

- `systemctl show` says which files systemd has read. What was written since is not among them, and after the next
  reload it is; so drop-ins are looked for on the disk as well, where systemd looks (systemd.unit(5)).
- A unit that systemd does not know yet is read from /run/systemd/system when it is started, without a daemon-reload:
  that would take in what somebody else is still writing.
- A prefix of a unit's name that ends with a dash has drop-ins, too (foo-.service.d). Ours has no dash.
- A drop-in adds to what comes before it, or empties it; so the sections in their order, one after the other in one
  file, mean the same as the files.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

BOOTED = Path("/run/systemd/system")  # sd_booted(3)
# systemd.unit(5), the first wins.
PLACES = tuple(map(Path, ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system")))
PATIENCE = 10.0  # seconds for a question
RUN_PATIENCE = 60  # seconds for a program that is run like a service
SCRATCH = "swapdcheck"  # what the names of such units and of their directories in /run begin with
_SECTION = re.compile(r"\s*\[([^\]]+)\]\s*")
_PID = re.compile(rf"{SCRATCH}([0-9]+)")
_SPECIFIER = re.compile("%([%nNp])")


def is_booted() -> bool:
    """Whether systemd is this machine's init, and can be asked."""
    return BOOTED.is_dir() and shutil.which("systemctl") is not None


def show(unit: str, *properties: str) -> dict[str, str]:
    """Properties of a unit as ``systemctl show`` prints them; ``OSError`` or ``SubprocessError`` where it cannot."""
    command = ["systemctl", "show", f"--property={','.join(properties)}", "--", unit]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def find_files(unit: str, fragment: str, known: str) -> list[Path]:
    """The unit's file and its drop-ins, in the order in which they count, as they are on the disk now.

    ``fragment`` and ``known`` are its FragmentPath and its DropInPaths.
    """
    drop_ins = {Path(path).name: Path(path) for path in shlex.split(known)}
    for place in reversed(PLACES):
        drop_ins |= {path.name: path for path in (place / f"{unit}.d").glob("*.conf")}
    there = [path for _, path in sorted(drop_ins.items()) if path.exists()]
    return [*([Path(fragment)] if fragment else []), *there]


def service_section(text: str) -> str:
    """The lines of [Service] as they stand, remarks and continued lines among them."""
    kept, is_in, is_continued = [], False, False
    for line in text.splitlines():
        section = None if is_continued else _SECTION.fullmatch(line)
        if section:
            is_in = section[1] == "Service"
        elif is_in:
            kept.append(line)
        if not line.lstrip().startswith(("#", ";")):
            is_continued = line.endswith("\\")
    return "\n".join([*kept, ""])


def find_lines(files: Iterable[Path], keys: Sequence[str]) -> list[str]:
    """Where one of these settings stands, as ``FILE (LINE, LINE)``, in the order in which they count."""
    pattern = re.compile(rf"\s*({'|'.join(keys)})\s*=")
    found = []
    for path in files:
        lines = service_section(path.read_text("utf-8", "replace")).splitlines()
        if settings := [line.strip() for line in lines if pattern.match(line)]:
            found.append(f"{path} ({', '.join(settings)})")
    return found


def started_at(monotonic_usec: str) -> float:
    """Seconds since the epoch of a ``…TimestampMonotonic``, by the clock as it is now."""
    return time.time() - (time.monotonic() - int(monotonic_usec) / 1e6)


@dataclass(frozen=True, slots=True)
class Run:
    """How a program that was run like a service ended."""

    is_good: bool
    output: str
    complaint: str  # what it wrote to standard error
    result: str = ""  # where it did not start, or failed: systemd's word for it


def run_like(unit: str, files: Iterable[Path], command: Sequence[str]) -> Run:
    """Runs a program to its end with every setting of [Service] that the unit has: sandbox, rights, limits, user.

    The unit itself is not touched, and nothing is left. ``OSError`` or ``SubprocessError`` where systemd cannot be
    asked. For root.
    """
    _sweep()
    name = f"{SCRATCH}{os.getpid()}"
    with _directory(name) as directory:
        place = BOOTED / f"{name}.service"
        place.write_text(_format(unit, files, command, directory))
        try:
            started = ["systemctl", "start", "--", place.name]
            done = subprocess.run(started, capture_output=True, text=True, timeout=RUN_PATIENCE + PATIENCE, check=False)
            result = _describe_end(place.name) if done.returncode else ""
        finally:
            place.unlink()
            subprocess.run(["systemctl", "reset-failed", "--", place.name], capture_output=True, check=False)
        output, complaint = (_read(directory / part) for part in ("output", "complaint"))
        return Run(done.returncode == 0, output, complaint, result)


def _sweep() -> None:
    """Removes what runs have left that were killed."""
    for path in (*BOOTED.glob(f"{SCRATCH}*.service"), *BOOTED.parents[1].glob(f"{SCRATCH}*-*")):
        pid = _PID.match(path.name)
        if pid and not Path(f"/proc/{pid[1]}").exists():
            if path.suffix == ".service":
                path.unlink(missing_ok=True)
            else:
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _directory(name: str) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir="/run"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _format(unit: str, files: Iterable[Path], command: Sequence[str], directory: Path) -> str:
    named = {"n": unit, "N": unit.removesuffix(".service"), "p": unit.removesuffix(".service"), "%": "%%"}
    settings = [
        _SPECIFIER.sub(lambda match: named[match[1]], service_section(path.read_text("utf-8", "surrogateescape")))
        for path in files
    ]
    words = " ".join('"' + word.replace("%", "%%").replace("$", "$$").replace('"', '\\"') + '"' for word in command)
    python_path = os.environ.get("PYTHONPATH", "").replace("%", "%%")
    return "\n".join(
        [
            "[Unit]",
            f"Description=What the sandbox of {unit} lets it do (swapd check)",
            "DefaultDependencies=no",
            "StartLimitIntervalSec=0",
            "[Service]",
            *settings,
            "# What it runs, how it ends, and where that goes; all else is as above.",
            *(f"Exec{kind}=" for kind in ("StartPre", "Start", "StartPost", "Reload", "Stop", "StopPost", "Condition")),
            f"ExecStart={words}",
            *([f'Environment="PYTHONPATH={python_path}"'] if python_path else []),
            "Type=oneshot",
            "NotifyAccess=none",
            "WatchdogSec=0",
            "Restart=no",
            "RestartForceExitStatus=",
            "SuccessExitStatus=",
            "RemainAfterExit=no",
            "KillMode=control-group",
            f"TimeoutStartSec={RUN_PATIENCE}",
            "PIDFile=",
            # Its end must not take the real one's locks with it.
            "RuntimeDirectoryPreserve=yes",
            "StandardInput=null",
            f"StandardOutput=truncate:{directory}/output",
            f"StandardError=truncate:{directory}/complaint",
            # Of its start and end, nobody needs to read in the journal.
            "LogLevelMax=notice",
            "",
        ]
    )


def _describe_end(name: str) -> str:
    """Why it did not start or failed, as systemd has it."""
    shown = show(name, "Result", "ExecMainStatus")
    # What the process that was to become it could not do, it says in the journal alone, and with which path.
    done = subprocess.run(
        ["journalctl", "--quiet", "--no-pager", "--output=cat", "--priority=err", "--lines=2", f"_SYSTEMD_UNIT={name}"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    said = "; ".join(line.removeprefix(f"{name}: ").strip() for line in done.stdout.splitlines())
    return said.replace("/run/systemd/unit-root/", "/") or f"{shown['Result']}, status {shown['ExecMainStatus']}"

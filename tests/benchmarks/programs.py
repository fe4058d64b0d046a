"""The benchmarks' C programs, compiled here and run on a host of another Debian: hence static."""

from __future__ import annotations

import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent


def compile_program(name: str, directory: Path) -> Path:
    """Compiles NAME.c of this directory into ``directory``; what the compiler says is an error when it fails."""
    program = directory / name
    command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static"]
    done = subprocess.run([*command, "-o", str(program), str(HERE / f"{name}.c")], text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{name}.c cannot be compiled:\n{done.stderr}")
    return program

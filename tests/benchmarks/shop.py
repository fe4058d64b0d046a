"""The shop that is deployed again and again: as many files, of such sizes, as a shop of PHP has."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

FILES, BYTES = 30_000, 400 << 20
QUICK_FILES, QUICK_BYTES = 3_000, 40 << 20
DIRECTORIES = 1_500
WORDS = 4_000
COMPRESSORS = {"gzip": (".tar.gz", ["gzip", "-6"]), "zstd": (".tar.zst", ["zstd", "-q", "-3", "-T1"])}


@dataclass(frozen=True, slots=True)
class Shop:
    """The tree as tarballs, by compression, and as a list for the floor that only creates its files."""

    tarballs: dict[str, Path]
    listing: str
    files: int
    bytes: int


def make_shop(directory: Path, *, is_quick: bool) -> Shop:
    """Makes the shop in ``directory``: texts that pack to about a third, with some pictures that do not pack."""
    source = random.Random(30_000)
    words = ["".join(source.choices("etaoinshrdlu_$ (){};", k=source.randrange(3, 12))) for _ in range(WORDS)]
    files, size = (QUICK_FILES, QUICK_BYTES) if is_quick else (FILES, BYTES)
    tree = directory / "shop"
    tree.mkdir()
    paths = [f"d{number % 40}/e{number}" for number in range(DIRECTORIES)]
    for path in paths:
        (tree / path).mkdir(parents=True)
    weights = [source.paretovariate(1.2) for _ in range(files)]
    scale = size / sum(weights)
    lines = [*(f"d d{number}" for number in range(40)), *(f"d {path}" for path in paths)]
    for number, weight in enumerate(weights):
        length = min(round(weight * scale), 8 << 20)
        path = f"{source.choice(paths)}/f{number}.php"
        (tree / path).write_bytes(_content(source, words, length, is_picture=number % 20 == 0))
        lines.append(f"f {length} {path}")
    tarballs = {
        name: _pack(tree, directory / f"shop{suffix}", program) for name, (suffix, program) in COMPRESSORS.items()
    }
    total = sum(int(line.split()[1]) for line in lines if line.startswith("f"))
    return Shop(tarballs, "".join(f"{line}\n" for line in lines), files, total)


def _content(source: random.Random, words: list[str], length: int, *, is_picture: bool) -> bytes:
    if is_picture:
        return source.randbytes(length)
    text = "\n".join(source.choices(words, k=length // 8 + 1)).encode()
    return (text * 2)[:length]


def _pack(tree: Path, tarball: Path, program: list[str]) -> Path:
    with tarball.open("wb") as file:
        tar = subprocess.Popen(["tar", "-c", "-C", tree, "."], stdout=subprocess.PIPE)
        subprocess.run(program, stdin=tar.stdout, stdout=file, check=True)
        if tar.wait():
            raise SystemExit("tar cannot pack the shop")
    return tarball

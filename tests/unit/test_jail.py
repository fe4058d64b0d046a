"""The jail seen from inside: what a child that was taken over by the bytes it reads could do, under each setting."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swapd.archive import decompressor, jailed
from swapd.archive.jailed import Jailed, find_layers
from swapd.host import jail, landlock, ssh_keygen
from swapd.host.child import Child
from swapd.model.release import Compression
from tests.unit.archives import Site, compress, file, nothing_left_behind, opened, symlink, tar
from tests.unit.archives_benign import SITE
from tests.unit.attempts import (
    ATTEMPTS_OF_THE_EXTRACTOR,
    BY_SECCOMP,
    SAME,
    Attempts,
    Others,
    attempts_on_files,
    attempts_on_others,
    others_at,
    outcome,
)
from tests.unit.jails import (
    SETTINGS,
    Setting,
    as_in_the_unit,
    as_nobody,
    as_we_are,
    in_the_unit_of_debian_12,
    is_root,
    without_landlock,
    without_seccomp,
)


def abi() -> int:
    try:
        return landlock.abi()
    except OSError:
        return 0


def look_from_inside(site: Site, find: Callable[[], jail.Confinement], attempts: Attempts) -> dict[str, str]:
    """What became of each attempt in such a jail: the error's name, or ``done``."""

    def work(_: int) -> dict[str, str]:
        jail.forbid_processes()
        return {name: outcome(attempt) for name, attempt in attempts.items()}

    with opened(site.staging, os.O_DIRECTORY) as into:
        os.dup2(into, SAME)
        confinement = find()
        try:
            with contextlib.closing(Jailed(work, {SAME, *confinement.rights}, confinement)) as child:
                return child.listen(lambda _: None)
        finally:
            for descriptor in (SAME, *confinement.rights):
                os.close(descriptor)


@pytest.fixture
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Others]:
    path = tmp_path_factory.mktemp("services") / "service"
    for above in (path.parent, path.parent.parent, path.parent.parent.parent):
        above.chmod(above.stat().st_mode | stat.S_IXOTH)  # what holds is the jail, not a mode on the way
    with others_at(path) as there:
        yield there


def done(found: dict[str, str]) -> set[str]:
    return {name for name, became in found.items() if became == "done"}


@pytest.mark.parametrize("setting", SETTINGS)
def test_nothing_can_be_done_in_it(
    setting: Setting, others: Others, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path)
    tmp_path.chmod(0o755)
    (site.canary / "file").chmod(0o666)
    site.canary.chmod(0o777)
    attempts = {**attempts_on_files(site), **attempts_on_others(others), **ATTEMPTS_OF_THE_EXTRACTOR}
    if setting is without_seccomp:
        if abi() == 0:
            del attempts["fifo"], attempts["socket"]
        attempts = {name: attempt for name, attempt in attempts.items() if name not in BY_SECCOMP}
    setting(monkeypatch)

    found = look_from_inside(site, lambda: jailed._confine(SAME, 1 << 20), attempts)

    assert done(found) == set()
    assert found.keys() == attempts.keys()
    assert sorted(os.listdir(site.canary)) == ["below", "file", "link"]
    assert sorted(os.listdir(tmp_path)) == ["canary", "staging"]


JAILS = {
    "decoder": decompressor.confine_decoder,
    "zstd": lambda: decompressor.confine_zstd(shutil.which("zstd") or ""),
    "ssh-keygen": lambda: ssh_keygen.confine(shutil.which("ssh-keygen") or ""),
}


@is_root
@pytest.mark.parametrize("setting", [as_in_the_unit, in_the_unit_of_debian_12])
@pytest.mark.parametrize("name", JAILS)
def test_nothing_can_be_done_to_others_in_the_other_jails(
    name: str, setting: Setting, others: Others, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting(monkeypatch)
    attempts = attempts_on_others(others)
    if name == "zstd":
        del attempts["thread"]  # it has some
    found = look_from_inside(Site(tmp_path), JAILS[name], attempts)
    assert done(found) == set()
    assert found.keys() == attempts.keys()


def test_the_attempts_succeed_outside_of_it(others: Others, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is never possible would prove nothing."""
    monkeypatch.chdir(tmp_path)  # and back: some of them go elsewhere
    site = Site(tmp_path)
    attempts = {**attempts_on_files(site), **attempts_on_others(others), **ATTEMPTS_OF_THE_EXTRACTOR}
    # Nothing would be left of us, or another: with these.
    without = {"execute", "execute own", "remove outside", "rename outside", "make above"}
    without |= {"character device", "block device"}  # a sandbox around us may not have them
    without |= {"setuid", "setgid", "chroot", "raise a limit", "core"}
    without |= set() if os.geteuid() == 0 else {"ptrace parent", "ptrace other", "chown"}

    def work() -> None:
        found = {name: outcome(attempt) for name, attempt in attempts.items() if name not in without}
        os.write(2, json.dumps(found).encode())

    with opened(site.staging, os.O_DIRECTORY) as into:
        os.dup2(into, SAME)
        try:
            with contextlib.closing(Child("free", work, keep={SAME})) as child:
                child.wait()
                found = json.loads(child.words())
        finally:
            os.close(SAME)
    assert found.keys() == attempts.keys() - without
    # Kernels may be built or told not to have these, and containers to forbid them.
    assert found.keys() - done(found) <= {"user namespace", "ring", "keys"}


@is_root
@pytest.mark.parametrize(
    ("setting", "missing"),
    [
        (as_we_are, set()),
        (as_in_the_unit, {"network", "chroot", "uid", "bounding-set"}),
        (without_landlock, {"landlock"}),
        (without_seccomp, {"system-calls"}),
        (as_nobody, {"network", "chroot", "uid", "bounding-set"}),
    ],
)
def test_says_which_layers_are_in_force(
    setting: Setting, missing: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if abi() < 2:
        missing = missing | {"landlock"}
    setting(monkeypatch)
    with opened(tmp_path, os.O_DIRECTORY) as into, nothing_left_behind():
        layers = find_layers(into)
    assert {name for name, why_not in layers.items() if why_not} == missing
    assert all(name in str(layers) for name in missing)
    assert layers.is_confined


def test_warns_when_nothing_confines_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    as_in_the_unit(monkeypatch)
    without_landlock(monkeypatch)
    Site(tmp_path).extract(SITE, jailed=True)
    assert any(
        "nothing but its own rules" in record.message for record in caplog.records if record.levelname == "WARNING"
    )


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("compression", Compression)
def test_extracts_with_whatever_layers_there_are(
    setting: Setting, compression: Compression, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links and renames between directories included, which Landlock treats apart."""
    setting(monkeypatch)
    site = Site(tmp_path)
    content = tar(file(b"top/a/b", b"x"), file(b"top/c/d"), symlink(b"top/e/f", b"../a/b"))
    with nothing_left_behind():
        site.extract(compress(content, compression), compression, strip=None, jailed=True)
    assert (site.staging / "e" / "f").read_bytes() == b"x"
    site.assert_nothing_outside_changed()

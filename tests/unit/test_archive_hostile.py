"""Every archive of ``archives_hostile`` is refused for its own reason, and nothing beside the staging tree changes."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from swapd.archive import decoders
from swapd.model.errors import Rejected
from swapd.model.release import Compression
from tests.unit.archives import Site, nothing_left_behind
from tests.unit.archives_hostile import CASES, Hostile
from tests.unit.jails import ROOTS, Setting, as_nobody, as_we_are, is_root


def without_a_jail(_: pytest.MonkeyPatch) -> None:
    pass


# By root and by a user; whatever else is around it in the long runs.
BOTH = [without_a_jail, as_we_are, pytest.param(as_nobody, marks=is_root)]
REST = [pytest.param(each, marks=[is_root, pytest.mark.soak]) for each in ROOTS if each is not as_nobody]


@pytest.mark.parametrize("setting", [*BOTH, *REST])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_is_refused(case: Hostile, setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path)
    data = case.build(bytes(site.canary))
    jailed = setting is not without_a_jail
    setting(monkeypatch)

    with nothing_left_behind(), pytest.raises(Rejected) as refusal:
        site.extract(data, case.compression, strip=case.strip, limits=case.limits, jailed=jailed)

    assert refusal.value.problem == case.problem, refusal.value.message
    assert len(refusal.value.issues) == 1
    assert refusal.value.hint
    assert not any(unicodedata.category(each) == "Cc" for each in refusal.value.message)
    site.assert_nothing_outside_changed()
    site.assert_tree_is_tame()


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.compression is Compression.GZIP], ids=lambda case: case.name
)
def test_is_refused_without_isal(case: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above, isal decompresses where it is installed."""
    monkeypatch.setattr(decoders, "igzip", None)
    site = Site(tmp_path)
    with nothing_left_behind(), pytest.raises(Rejected) as refusal:
        site.extract(case.build(bytes(site.canary)), case.compression, strip=case.strip, limits=case.limits)
    assert refusal.value.problem == case.problem, refusal.value.message


def test_each_case_has_a_name_of_its_own() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    assert len(names) >= 100

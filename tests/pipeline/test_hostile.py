"""Hostile archives, dropped: each is refused for its own reason in marker, record and journal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swapd.model.release import TARBALL_SUFFIXES
from tests.support.sites import Scratch, leftovers
from tests.support.tarballs import drop, site_content, write_tarball
from tests.support.trees import snapshot, write_tree
from tests.support.waiting import PATIENCE, wait_until
from tests.unit.archives import LIMITS
from tests.unit.archives_hostile import CASES, Hostile

Plot = Callable[..., Scratch]
SUFFIXES = {compression: suffix for suffix, compression in TARBALL_SUFFIXES.items() if suffix != ".tgz"}


FIRST_BYTES = ("empty-archive", "not-a-tarball", "truncated", "unknown-format", "wrong-compression")


def is_deployable(case: Hostile) -> bool:
    """Those that need no configuration of their own."""
    return case.limits == LIMITS and case.strip == 0


def one_of_each_problem() -> list[Hostile]:
    return list({case.problem: case for case in reversed(CASES) if is_deployable(case)}.values())


@pytest.mark.parametrize(
    "chosen", [one_of_each_problem(), pytest.param(CASES, marks=pytest.mark.soak)], ids=["each problem", "every case"]
)
def test_a_hostile_archive_is_rejected_for_its_own_reason(plot: Plot, tmp_path: Path, chosen: list[Hostile]) -> None:
    limits = {"max_extracted": f"{LIMITS.max_extracted}B", "max_entries": LIMITS.max_entries}
    scratch = plot(strip_components=0, verify=limits)
    live, canary = write_tree(scratch.live(), {"index.html": "by hand"}), tmp_path / "canary"
    write_tree(canary, {"file": "canary", "below/program": "canary"})
    before = snapshot(live), snapshot(canary)
    cases = {f"{case.name}{SUFFIXES[case.compression]}": case for case in chosen if is_deployable(case)}
    assert len(cases) >= 40
    contents = {name: case.build(bytes(canary)) for name, case in cases.items()}
    for name, content in contents.items():
        (tmp_path / "upload").write_bytes(content)
        drop(tmp_path / "upload", scratch.incoming, name)
    drop(write_tarball(tmp_path / "good-1.tar", site_content("good")), scratch.incoming)

    def all_answered() -> dict[str, dict[str, Any]]:
        answers = {name: marker for name, marker in scratch.markers().items() if marker["outcome"] != "pending"}
        return answers if len(answers) == len(cases) + 1 else {}

    found = wait_until(all_answered, "an answer to each", patience=5 * PATIENCE)
    problems = {name: marker["problem"] for name, marker in found.items()}
    expected = {f"{name}.rejected": case.problem for name, case in cases.items()} | {"good-1.tar.live": ""}
    # Some are found out by their first bytes, before the reader that the cases are made for sees them.
    assert {
        name: expected[name] if problem in ("wrong-format", "empty-file") and expected[name] in FIRST_BYTES else problem
        for name, problem in problems.items()
    } == expected
    assert (snapshot(scratch.live()).keys(), snapshot(canary)) == (site_content("good").keys() | {"."}, before[1])
    assert leftovers(scratch.releases()) == []
    assert all((scratch.incoming / name).read_bytes() == content for name, content in contents.items())
    records = {record.file_name: record.problem for record in scratch.deployments() if record.outcome.value != "live"}
    assert records
    assert all(problem == problems[f"{name}.rejected"] for name, problem in records.items())
    log = scratch.daemon.log()
    assert all(marker["reason"] in log for marker in found.values() if marker["outcome"] == "rejected")

"""Each finding that `check` has a code for is provoked by a test."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host import test_check as on_a_host
from tests.host import test_check_web as of_web_servers
from tests.unit import test_check_places as in_a_scratch_directory

CHECKS = Path(__file__).parents[2] / "swapd/checks"
CODE = re.compile("[a-z]+(-[a-z]+)+")
# What looks like a code and is none: programs, a command, states of units.
OTHER_WORDS = {"ssh-keygen", "swapd-check", "systemd-sysusers", "auto-restart", "enabled-runtime", "php-fpm"}
# Those that need more than a case of one of the two tables, and the test that provokes them.
ELSEWHERE = {
    "backlog-cut": "host/test_check_web.py",
    "cannot-write": "unit/test_choose.py",
    "check-broken-off": "unit/test_check_output.py",
    "clock-not-synchronised": "unit/test_check_places.py",
    "label-differs": "unit/test_check_places.py",
    "label-unknown": "unit/test_check_places.py",
    "left-stopped": "unit/test_check_web.py",
    "little-inodes": "pipeline/test_check_room.py",
    "little-space": "pipeline/test_check_room.py",
    "mapped-over-network": "unit/test_check_web.py",
    "may-not-signal": "unit/test_pause.py",
    "metrics-no-directory": "unit/test_check_metrics.py",
    "metrics-not-asked-for": "host/test_unit.py",
    "metrics-remote": "unit/test_check_metrics.py",
    "metrics-sandbox": "host/test_unit.py",
    "no-bzip2": "unit/test_check_places.py",
    "no-inodes": "pipeline/test_check_room.py",
    "no-isal": "unit/test_check_places.py",
    "no-space": "pipeline/test_check_room.py",
    "no-ssh-keygen": "unit/test_check_places.py",
    "no-uploader": "unit/test_check_places.py",
    "no-xz": "unit/test_check_places.py",
    "no-zstd": "unit/test_check_places.py",
    "not-looked-at": "unit/test_check_output.py",
    "not-tried": "pipeline/test_odd_filesystems.py",
    "opcache-looks": "host/test_check_web.py",
    "opcache-room": "host/test_check_web.py",
    "past-keep": "host/test_retention.py",
    "php-not-asked": "host/test_check_web.py",
    "pause-not-tried": "host/test_check_web.py",
    "route-astray": "host/test_pinned.py",
    "route-changed": "unit/test_route_in_force.py",
    "route-in-force": "host/test_pinned.py",
    "route-left-out": "unit/test_route_in_force.py",
    "route-outdated": "unit/test_route_in_force.py",
    "route-unknown": "host/test_pinned.py",
    "route-unreadable": "unit/test_route_in_force.py",
    "sandbox-differs": "host/test_pinned.py",
    "sandbox-unseen": "host/test_check.py",
    "server-configuration-broken": "host/test_check_web.py",
    "servers-not-asked": "host/test_check_web.py",
    "signers-unseen": "host/test_check.py",
    "volatile-filesystem": "pipeline/test_odd_filesystems.py",
    "window-without-pause": "pipeline/test_odd_filesystems.py",
}


def codes() -> Iterator[tuple[str, str]]:
    """Every code in the sources of the checks, with the file that has it."""
    for path in sorted(CHECKS.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
                yield path.name, node.value


FOUND = sorted(set(codes()) - {(file, word) for file, word in codes() if word in OTHER_WORDS})


@pytest.mark.parametrize(("file", "code"), FOUND)
def test_each_code_has_a_case(file: str, code: str) -> None:
    del file
    tables = [
        *(case.problems for case in on_a_host.CASES),
        *(tuple(case.expected) for case in of_web_servers.CASES.values()),
        *(problems for _, problems in (*in_a_scratch_directory.CASES, *in_a_scratch_directory.ROOT_CASES)),
    ]
    if any(code in problems for problems in tables):
        return
    place = ELSEWHERE.get(code)
    assert place, f"nothing provokes {code}"
    assert code in (CHECKS.parents[1] / "tests" / place).read_text("utf-8"), f"{place} does not name {code}"

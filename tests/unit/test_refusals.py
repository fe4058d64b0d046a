"""A refusal of the kernel's is explained whatever else is wrong by then."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from swapd.host.refusals import explain

PROBLEMS = {
    errno.ENOSPC: "no-space",
    errno.EDQUOT: "quota-exceeded",
    errno.EIO: "input-output-error",
    errno.EROFS: "read-only",
    errno.EACCES: "cannot-write",
}


@pytest.mark.parametrize("number", PROBLEMS)
@pytest.mark.parametrize("is_there", [True, False])
def test_every_refusal_has_its_problem_and_a_way_out(tmp_path: Path, number: int, is_there: bool) -> None:
    """Also where the directory went away, or its disk does not even say what is free."""
    directory = tmp_path if is_there else tmp_path / "gone"
    failed = explain(OSError(number, os.strerror(number)), directory)
    assert failed.problem == PROBLEMS[number]
    assert str(directory) in failed.message
    assert failed.hint.startswith("The live release and the upload are untouched.")
    if number in (errno.ENOSPC, errno.EDQUOT):
        assert ("are free" in failed.message) == is_there

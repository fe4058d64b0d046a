"""Whose turn it is in a site's queue."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapd.model.config import Queue
from swapd.model.release import Fingerprint, ReleaseId, Upload
from swapd.model.turns import Superseded, choose_turn, find_passed


def upload(name: str, came: int) -> Upload:
    return Upload(Path("/in"), name, True, fingerprint=Fingerprint(1, came, 1, 1, came))


def uploads(names: str) -> list[Upload]:
    return [upload("rollback" if name == "R" else f"{name}.tar", came) for came, name in enumerate(names.split())]


@pytest.mark.parametrize(
    ("queue", "policy", "chosen", "passed"),
    [
        ("a b c", Queue.ALL, "a", ""),
        ("a b c", Queue.LATEST, "c", "a b"),
        ("a", Queue.LATEST, "a", ""),
        ("a b R c", Queue.LATEST, "b", "a"),
        ("R a b", Queue.LATEST, "R", ""),
    ],
)
def test_whose_turn_it_is(queue: str, policy: Queue, chosen: str, passed: str) -> None:
    turn = choose_turn(uploads(queue), policy)
    assert turn.upload.file_name.removesuffix(".tar") == chosen.replace("R", "rollback")
    assert [item.file_name for item in turn.passed] == [f"{name}.tar" for name in passed.split()]


def test_the_time_counts_and_not_the_place_in_the_queue() -> None:
    late, early = upload("a.tar", 9), upload("b.tar", 3)
    assert choose_turn([late, early], Queue.LATEST).upload is late


@given(
    st.lists(st.sampled_from(["a.tar", "b.tgz", "notes", "rollback"]), min_size=1, max_size=6), st.sampled_from(Queue)
)
def test_nobody_is_lost(names: list[str], policy: Queue) -> None:
    queue = [upload(name, came) for came, name in enumerate(names)]
    turn = choose_turn(queue, policy)
    assert turn.upload in queue
    assert turn.upload not in turn.passed
    assert set(turn.passed) <= set(queue)
    assert all(item.fingerprint.ctime_ns < turn.upload.fingerprint.ctime_ns for item in turn.passed)  # type: ignore[union-attr]


def test_what_changed_since_is_not_superseded() -> None:
    passed = Superseded(ReleaseId("x@0123456789ab"), (upload("a.tar", 1),))
    assert passed.find([upload("b.tar", 2), upload("a.tar", 1)]) == upload("a.tar", 1)
    assert passed.find([upload("a.tar", 3)]) is None


def test_after_a_start_what_came_before_the_live_one_was_passed_over() -> None:
    queue = [upload("a.tar", 1), upload("rollback", 2), upload("c.tar", 9)]
    assert find_passed(queue, upload("b.tar", 5)) == (upload("a.tar", 1),)

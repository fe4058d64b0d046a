"""Pending markers: a few at a time, and each of them true at the moment at which it is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swapd.model.record import Marker, now
from swapd.model.release import Outcome, Upload
from swapd.notices import Notices
from swapd.stages.arrive import Arrivals, look
from swapd.stages.mark import write_marker
from tests.support.sites import make_site
from tests.support.tarballs import write_sidecar

CROWD = 7


class Board:
    """The drop directory of a site, with a crowd in it that is complete."""

    def __init__(self, root: Path) -> None:
        self.site = make_site(root)
        self.incoming = self.site.incoming
        self.incoming.mkdir(parents=True)
        self.names = [f"{number}.tar" for number in range(CROWD)]
        for name in self.names:
            self.put(name)
        self.arrivals = Arrivals({})
        self.notices = Notices()
        self.ready: dict[str, Upload] = {}

    def put(self, name: str) -> None:
        (self.incoming / name).write_text(name)
        write_sidecar(self.incoming / name)

    def take(self, name: str) -> None:
        for path in (self.incoming / name, self.incoming / f"{name}.sha256"):
            path.unlink()

    def look(self) -> None:
        ready, _, gone = look(self.arrivals, self.site)
        self.ready = {upload.file_name: upload for upload in ready}
        self.notices.gather(self.arrivals, gone)

    def write(self, most: int = CROWD, current: str | None = None) -> None:
        self.notices.write_some(self.site, self.arrivals, current, most)

    def answer(self, name: str, outcome: Outcome) -> None:
        """What a worker and the daemon do at an outcome."""
        write_marker(self.incoming, name, Marker(outcome, "", self.site.name, now()))
        self.arrivals.answer(self.ready[name])
        self.notices.write(self.site, self.arrivals, name)

    def marked(self, outcome: Outcome = Outcome.PENDING) -> list[str]:
        suffix = f".{outcome.value}"
        return sorted(name.removesuffix(suffix) for name in os.listdir(self.incoming) if name.endswith(suffix))


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def test_a_few_at_a_time_in_the_order_in_which_they_came(board: Board) -> None:
    board.look()
    assert board.marked() == []
    for done in (3, 6, CROWD):
        assert board.notices.are_due
        board.write(3)
        assert board.marked() == board.names[:done]
    assert not board.notices.are_due


def test_who_has_his_turn_meanwhile_is_not_said_to_wait(board: Board) -> None:
    board.look()
    board.write(1)
    board.answer(board.names[0], Outcome.LIVE)
    board.answer(board.names[1], Outcome.REJECTED)
    board.write(current=board.names[2])
    assert board.marked() == board.names[3:]
    assert board.marked(Outcome.LIVE) == board.names[:1]
    assert board.marked(Outcome.REJECTED) == board.names[1:2]


def test_what_went_away_is_not_said_to_wait(board: Board) -> None:
    board.look()
    board.write()
    board.take(board.names[4])
    board.look()
    board.write()
    assert board.marked() == [name for name in board.names if name != board.names[4]]


def test_one_that_comes_again_without_a_look_in_between_is_said_to_wait(board: Board) -> None:
    board.look()
    board.write()
    name = board.names[0]
    board.answer(name, Outcome.LIVE)
    board.put(name)
    board.look()
    board.write()
    assert board.marked() == board.names
    assert board.marked(Outcome.LIVE) == []


def test_what_is_said_of_one_that_comes_again_under_the_name_of_one_that_went_away_stays(board: Board) -> None:
    name = board.names[0]
    board.look()
    board.answer(name, Outcome.REJECTED)
    board.take(name)
    board.look()  # it is gone, and that is still to be told
    board.put(name)
    board.look()
    board.answer(name, Outcome.REJECTED)
    board.write()
    assert board.marked(Outcome.REJECTED) == [name]


def test_the_marker_of_an_answer_goes_with_its_upload(board: Board) -> None:
    name = board.names[0]
    board.look()
    board.answer(name, Outcome.REJECTED)
    board.take(name)
    board.look()
    board.write()
    assert board.marked(Outcome.REJECTED) == []


def test_after_an_error_not_before_the_next_look(board: Board) -> None:
    board.look()
    elsewhere = board.incoming.with_name("elsewhere")
    board.incoming.rename(elsewhere)
    with pytest.raises(FileNotFoundError):
        board.write()
    assert not board.notices.are_due, "the daemon would try without a rest"
    elsewhere.rename(board.incoming)
    board.look()
    assert board.notices.are_due
    board.write()
    assert not board.notices.are_due
    assert set(board.marked()) >= set(board.names[1:])

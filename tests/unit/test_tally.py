"""A site's totals only grow, and count each deployment once: over restarts, crashes, and records that are forgotten."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from swapd.host import records, tally
from swapd.host.tally import Tally
from swapd.model.errors import Failed
from swapd.model.layout import Layout
from swapd.model.record import Deployment, Kind, StageTime
from swapd.model.release import DeploymentId, Outcome, SiteName, Stage
from swapd.model.totals import Totals
from tests.support.waiting import wait_until

SHOP = SiteName("shop")
START = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    records.make_state_directories(layout, SHOP)
    return layout


def begun(number: int, kind: Kind = Kind.DEPLOYMENT) -> Deployment:
    return Deployment(DeploymentId(f"d{number}"), SHOP, Outcome.PENDING, START + timedelta(seconds=number), kind)


def ended(number: int, outcome: Outcome = Outcome.LIVE, stages: int = 2, *, is_closed: bool = True) -> Deployment:
    begin = begun(number)
    times = tuple(StageTime(stage, 1000) for stage in list(Stage)[:stages])
    end = begin.started + timedelta(seconds=1)
    return replace(begin, outcome=outcome, ended=end, stages=times, is_closed=is_closed)


def write(layout: Layout, *deployments: Deployment) -> None:
    for deployment in deployments:
        records.write_deployment(layout, deployment, through=False)


def add_up(layout: Layout, mine: Tally | None = None) -> Totals:
    """The totals once everything is in them, by a daemon that was just started unless one is given."""
    mine = mine or Tally(layout, SHOP)
    while mine.is_due() and not mine.count_some():
        pass
    return mine.totals


def lives(totals: Totals) -> int:
    return totals.count_of(Kind.DEPLOYMENT, Outcome.LIVE)


def test_records_are_counted_once_each(layout: Layout) -> None:
    write(layout, *(ended(number) for number in range(tally.AT_ONCE * 2 + 1)), ended(99, Outcome.FAILED), begun(100))
    for _ in range(3):
        totals = add_up(layout)
        assert lives(totals) == tally.AT_ONCE * 2 + 1
        assert totals.count_of(Kind.DEPLOYMENT, Outcome.FAILED) == 1
        assert sum(totals.deployments.counts) == lives(totals)


def test_what_is_new_is_seen_and_nothing_else_read(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    write(layout, ended(1), ended(2))
    mine = Tally(layout, SHOP)
    wait_until(lambda: lives(add_up(layout, mine)) == 2 and not mine.is_due(), "it to be settled")
    read: list[str] = []
    parse = records._parse
    monkeypatch.setattr(
        records, "_parse", lambda kind, path, content: read.append(path.name) or parse(kind, path, content)
    )  # type: ignore[func-returns-value]
    write(layout, ended(3))
    assert mine.is_due()
    assert lives(add_up(layout, mine)) == 3
    assert read == ["d3.toml"]
    read.clear()
    assert lives(add_up(layout)) == 3, "a restart"
    assert read == []


def test_two_changes_within_a_tick_are_both_seen(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "TICK", 60 * 10**9)
    write(layout, ended(1))
    times = layout.deployments(SHOP).stat()
    mine = Tally(layout, SHOP)
    assert mine.count_some()
    write(layout, ended(2))
    os.utime(layout.deployments(SHOP), ns=(times.st_atime_ns, times.st_mtime_ns))
    assert mine.is_due()
    assert mine.count_some()
    assert lives(mine.totals) == 2


def test_forgotten_records_stay_counted(layout: Layout) -> None:
    write(layout, *(ended(number) for number in range(records.HISTORY_LENGTH + 5)))
    assert lives(add_up(layout)) == records.HISTORY_LENGTH + 5
    records.forget_old_deployments(layout, SHOP)
    write(layout, ended(1000))
    totals = add_up(layout)
    assert lives(totals) == records.HISTORY_LENGTH + 6
    assert len(totals.counted) == records.HISTORY_LENGTH + 1, "it does not grow for ever"
    for path in layout.deployments(SHOP).iterdir():
        path.unlink()
    assert lives(add_up(layout)) == records.HISTORY_LENGTH + 6


def test_a_power_cut_may_bring_an_older_file_back(layout: Layout) -> None:
    write(layout, ended(1))
    add_up(layout)
    old = layout.totals(SHOP).read_bytes()
    write(layout, ended(2), ended(3))
    newer = add_up(layout)
    layout.totals(SHOP).write_bytes(old)
    assert add_up(layout).outcomes == newer.outcomes
    layout.totals(SHOP).unlink()
    assert add_up(layout).outcomes == newer.outcomes


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"version": 1, "outcomes": 3}', b'{"version": 9}'])
def test_counting_begins_at_zero_where_the_file_is_damaged(layout: Layout, content: bytes) -> None:
    write(layout, *(ended(number) for number in range(tally.AT_ONCE + 5)), ended(99, is_closed=False), begun(100))
    layout.totals(SHOP).write_bytes(content)
    assert lives(add_up(layout)) == 0, "and not as if all of them came at once"
    write(layout, ended(100), ended(101), ended(99))
    assert lives(add_up(layout)) == 2


def test_a_rollback_s_last_stage_comes_after_its_outcome(layout: Layout) -> None:
    write(layout, ended(1, stages=2, is_closed=False))
    mine = Tally(layout, SHOP)
    add_up(layout, mine)
    write(layout, ended(1, stages=3))
    for totals in (add_up(layout, mine), add_up(layout)):
        assert lives(totals) == 1
        assert [(item.stage, item.count) for item in totals.stages] == [(stage, 1) for stage in list(Stage)[:3]]


def test_what_cannot_be_read_or_is_not_closed_holds_up_nothing(layout: Layout) -> None:
    for number in range(tally.AT_ONCE * 2):
        (layout.deployments(SHOP) / f"bad{number}.toml").write_text("no record")
    write(layout, *(ended(number, is_closed=False) for number in range(tally.AT_ONCE * 2)))
    assert lives(add_up(layout)) == tally.AT_ONCE * 2


def test_records_that_are_out_of_sight_are_not_forgotten(layout: Layout) -> None:
    write(layout, ended(1))
    mine = Tally(layout, SHOP)
    add_up(layout, mine)
    place = layout.deployments(SHOP)
    place.rename(place.with_name("elsewhere"))
    assert lives(add_up(layout, mine)) == 1
    place.with_name("elsewhere").rename(place)
    mine.expect()
    assert lives(add_up(layout, mine)) == 1


def test_a_record_that_is_kept_for_later_counts(layout: Layout) -> None:
    write(layout, begun(1))
    records.keep_deployment(layout, ended(1))
    mine = Tally(layout, SHOP)
    assert lives(add_up(layout, mine)) == 1
    write(layout, ended(1))
    assert lives(add_up(layout, mine)) == 1


def test_what_goes_wrong_is_tried_again_when_something_changes(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    write(layout, ended(1))
    mine = Tally(layout, SHOP)
    with monkeypatch.context() as patch:
        patch.setattr(records, "_find_deployments", lambda *_: (_ for _ in ()).throw(Failed("cannot-read", "EIO")))
        with pytest.raises(Failed):
            mine.count_some()
        assert not mine.is_due(), "not each time that somebody looks"
    mine.expect()
    assert lives(add_up(layout, mine)) == 1


@pytest.mark.parametrize("seed", range(3))
def test_counters_only_grow_whatever_happens_in_between(layout: Layout, seed: int) -> None:
    """Deployments, restarts, power cuts and forgotten records in any order: the number is always the true one."""
    chance = random.Random(seed)
    mine, number, saved = Tally(layout, SHOP), 0, b""
    for _ in range(60):
        match chance.randrange(5):
            case 0 | 1:
                number += 1
                write(layout, ended(number, is_closed=chance.random() < 0.7))
            case 2:
                mine = Tally(layout, SHOP)
            case 3 if saved:
                layout.totals(SHOP).write_bytes(saved)
                mine = Tally(layout, SHOP)
            case 4:
                records.forget_old_deployments(layout, SHOP)
        mine.expect()
        assert lives(add_up(layout, mine)) == number
        if layout.totals(SHOP).exists() and chance.random() < 0.5:
            saved = layout.totals(SHOP).read_bytes()

"""The one line that systemd and people see of every site."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from swapd.model.record import LiveRelease, TreeIdentity
from swapd.model.release import DeploymentId, Outcome, PauseCost, ReleaseId, SiteName
from swapd.model.status import Failure, SiteStatus, Waiting, describe_site, describe_time, status_line

NOW = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)
SHOP = SiteName("shop")


def live(since: datetime = NOW, pause_usec: int | None = None, dropped: int = 0) -> LiveRelease:
    pause = PauseCost(pause_usec, 3, dropped=dropped) if pause_usec else None
    return LiveRelease(ReleaseId("shop-42@9f86d081884c"), None, DeploymentId("x"), since, TreeIdentity(1, 2), pause)


def line(**keys: Any) -> str:
    return describe_site(SiteStatus(SHOP, keys.pop("live", None), **keys), NOW)


def clock(instant: datetime) -> str:
    return f"{instant.astimezone():%H:%M:%S}"


def test_a_site_that_never_deployed() -> None:
    assert line() == "shop: no release yet"


def test_what_is_live_since_when_and_how_long_the_last_pause_was() -> None:
    assert line(live=live()) == f"shop: shop-42@9f86d081884c live since {clock(NOW)}"
    assert line(live=live(pause_usec=1700)).endswith(f"{clock(NOW)}, paused 1.7 ms")
    assert line(live=live(pause_usec=1700, dropped=2)).endswith("paused 1.7 ms, 2 connections dropped")


def test_which_stage_is_at_which_percentage() -> None:
    assert line(stage="extract shop-43", fraction=0.425).startswith("shop: extract shop-43 42%, no release yet")
    assert line(stage="prepare", fraction=None).startswith("shop: prepare, ")
    assert line(stage="extract", fraction=0.0).startswith("shop: extract 0%, ")


def test_what_is_wrong_comes_first_then_what_waits() -> None:
    failure = Failure.of("bad.tar", Outcome.REJECTED, "no", NOW)
    text = line(waiting=2, trouble="it is lost", failure=failure, live=live(), stage="extract")
    assert text == (
        f"shop: it is lost, bad.tar rejected: no ({clock(NOW)}), extract, 2 waiting, "
        f"shop-42@9f86d081884c live since {clock(NOW)}"
    )


def test_what_waits_the_longest_is_named_with_what_for_and_since_when() -> None:
    since = NOW - timedelta(minutes=5)
    lacks = Waiting("a.tar", "waits for its sidecar a.tar.sha256", since)
    shown = f"3 waiting (a.tar waits for its sidecar a.tar.sha256 since {clock(since)})"
    assert shown in line(waiting=3, longest=lacks)
    still_open = Waiting("a.tar", "a.tar is still open for writing", since)
    assert f"(a.tar is still open for writing since {clock(since)})" in line(waiting=1, longest=still_open)


def test_a_time_of_another_day_has_its_date() -> None:
    assert describe_time(NOW, NOW) == clock(NOW)
    other = NOW - timedelta(days=2)
    assert describe_time(other, NOW) == f"{other.astimezone():%Y-%m-%d %H:%M:%S}"


def test_all_sites_in_one_line_and_what_needs_attention_first() -> None:
    both = [SiteStatus(SHOP, None), SiteStatus(SiteName("blog"), live())]
    text = status_line(both, NOW, "bad configuration")
    assert text == f"bad configuration; shop: no release yet; blog: shop-42@9f86d081884c live since {clock(NOW)}"
    assert "\n" not in text
    assert status_line([], NOW) == "no site configured"


def many(count: int, **keys: Any) -> list[SiteStatus]:
    return [SiteStatus(SiteName(f"site{number}"), live(pause_usec=1700), **keys) for number in range(count)]


def test_sites_stand_in_the_order_in_which_somebody_should_see_them() -> None:
    late = Waiting("a.tar", "waits for its sidecar a.tar.sha256", NOW - timedelta(minutes=5))
    early = replace(late, since=NOW - timedelta(seconds=5))
    sites = [
        SiteStatus(SiteName("quiet"), live()),
        SiteStatus(SiteName("queued"), live(), waiting=1, longest=early),
        SiteStatus(SiteName("busy"), live(), stage="extract"),
        SiteStatus(SiteName("late"), live(), waiting=1, longest=late),
        SiteStatus(SiteName("bad"), live(), failure=Failure.of("x.tar", Outcome.FAILED, "no", NOW)),
        SiteStatus(SiteName("lost"), live(), trouble="its drop directory is lost"),
    ]
    names = [part.partition(":")[0] for part in status_line(sites, NOW).split("; ")]
    assert names == ["late", "bad", "lost", "busy", "queued", "quiet"]


def test_three_sites_are_all_told_and_of_a_hundred_the_quiet_ones_are_summed_up() -> None:
    assert status_line(many(3), NOW).count("live since") == 3
    assert status_line(many(100), NOW) == "100 sites live"
    lost = SiteStatus(SiteName("lost"), live(), trouble="its drop directory is lost")
    busy = SiteStatus(SiteName("busy"), None, stage="extract shop-43@0123456789ab", fraction=0.42)
    text = status_line([*many(97), busy, lost, SiteStatus(SiteName("new"), None)], NOW)
    assert text.startswith("lost: its drop directory is lost, shop-42@9f86d081884c live since ")
    assert text.endswith(
        "; busy: extract shop-43@0123456789ab 42%, no release yet; 97 other sites live; 1 without a release yet"
    )


@pytest.mark.parametrize("count", [1, 3, 20, 100, 1000])
@pytest.mark.parametrize("text", ["no", "x" * 5000, "ä" * 5000, "\x1b]8;;http://evil\x07\n" * 900, "\udcff" * 900])
def test_systemd_takes_the_line_whatever_is_wrong_with_however_many(count: int, text: str) -> None:
    bad = many(
        count,
        trouble=text,
        failure=Failure.of(text, Outcome.FAILED, text, NOW),
        waiting=9,
        longest=Waiting(text, f"waits for {text}", NOW),
    )
    line = status_line(bad, NOW, text)
    assert len(line.encode()) < 2048, "systemd ignores the whole of what is longer than PIPE_BUF"
    assert line.isprintable()
    assert "site0: " in line
    if count > 3:
        assert re.search(r"; \d+ more need attention or are busy: swapd status$", line)

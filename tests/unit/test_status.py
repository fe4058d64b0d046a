"""The one line that systemd and people see of every site."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from swapd.model.record import LiveRelease, TreeIdentity
from swapd.model.release import DeploymentId, PauseCost, ReleaseId, SiteName
from swapd.model.status import SiteStatus, describe_site, describe_time, status_line

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


def test_what_waits_and_what_is_wrong() -> None:
    assert line(waiting=2, trouble="bad.tar rejected: no").endswith("no release yet, 2 waiting, bad.tar rejected: no")


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

"""What the textfile for Prometheus says: its format, its names, and text from outside in it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapd.model.metrics import DaemonMetrics, SiteMetrics, format_metrics
from swapd.model.record import SUPERSEDED, Deployment, Kind, LiveRelease, StageTime, TreeIdentity
from swapd.model.release import DeploymentId, ListenerQueue, Outcome, PauseCost, ReleaseId, SiteName, Stage
from swapd.model.totals import Totals, count
from tests.support import exposition

SHOP = SiteName("shop")
START = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)
UP = DaemonMetrics("1.2", is_up=True, started=1.5, is_configuration_valid=True, loaded=2, records_lost=0)
PAUSE = PauseCost(1_500, 16, (ListenerQueue("[::]:80", 3, 511),), overflowed=1, dropped=2)
LIVE = LiveRelease(ReleaseId("shop-42@9f86d081884c"), None, DeploymentId("d1"), START, TreeIdentity(1, 2))


def ended(number: int = 1, outcome: Outcome = Outcome.LIVE, **more: Any) -> Deployment:
    """A deployment that took two seconds, and ended so many seconds after the first one."""
    begin = START + timedelta(seconds=number)
    values = {"ended": begin + timedelta(seconds=2), "is_closed": True, **more}
    return Deployment(DeploymentId(f"d{number}"), SHOP, outcome, begin, **values)


def site(*deployments: Deployment, **more: Any) -> SiteMetrics:
    totals = Totals()
    for deployment in deployments:
        totals = count(totals, deployment)
    values = {"live": None, "is_deploying": False, "waiting": 0, "oldest": None, "is_lost": False, "has_trouble": False}
    return SiteMetrics(SHOP, totals, **{**values, **more})


def read(*sites: SiteMetrics, daemon: DaemonMetrics = UP) -> exposition.Metrics:
    return exposition.parse(format_metrics(daemon, sites, 3.25))


def test_the_daemon() -> None:
    metrics = read()
    assert metrics.get("swapd_up") == 1
    assert metrics.get("swapd_build_info", version="1.2") == 1
    assert metrics.get("swapd_start_time_seconds") == 1.5
    assert metrics.get("swapd_heartbeat_timestamp_seconds") == 3.25
    assert metrics.get("swapd_configuration_valid") == 1
    assert metrics.get("swapd_configuration_loaded_timestamp_seconds") == 2
    assert metrics.get("swapd_journal_records_lost_total") == 0
    down = read(daemon=replace(UP, is_up=False, is_configuration_valid=False, records_lost=7))
    assert [down.get(f"swapd_{name}") for name in ("up", "configuration_valid", "journal_records_lost_total")] == [
        0,
        0,
        7,
    ]


def test_a_site_before_its_first_deployment_has_every_counter() -> None:
    metrics = read(site())
    for outcome in ("live", "unchanged", "rejected", "failed", "rolled-back"):
        for kind in ("deployment", "rollback"):
            assert metrics.get("swapd_deployments_total", site="shop", kind=kind, outcome=outcome) == 0
    assert set(metrics.counters.values()) == {0}
    for name in ("release_info", "last_deployment_info", "last_success_timestamp_seconds", "last_pause_processes"):
        assert not metrics.labels(f"swapd_{name}"), "nothing is said of what has not been"


def test_what_is_live_and_what_waits() -> None:
    first = ended(1, strategy="exchange")
    metrics = read(site(first, live=LIVE, waiting=2, oldest=1000.5, is_deploying=True, is_lost=True, has_trouble=True))
    assert metrics.get("swapd_release_info", site="shop", release=LIVE.release, strategy="exchange") == 1
    assert metrics.get("swapd_release_live_timestamp_seconds", site="shop") == pytest.approx(START.timestamp())
    assert metrics.get("swapd_uploads_waiting", site="shop") == 2
    assert metrics.get("swapd_oldest_upload_timestamp_seconds", site="shop") == 1000.5
    for name in ("deployment_under_way", "drop_directory_lost", "site_trouble"):
        assert metrics.get(f"swapd_{name}", site="shop") == 1
    another = replace(LIVE, deployment=DeploymentId("adoption"))
    assert (
        read(site(first, live=another)).get("swapd_release_info", site="shop", release=LIVE.release, strategy="") == 1
    )


def test_outcomes_and_the_last_ones() -> None:
    rejected = ended(5, Outcome.REJECTED, problem="digest-mismatch")
    passed = ended(4, Outcome.UNCHANGED, problem=SUPERSEDED)
    all_of_them = [ended(1), rejected, ended(3, kind=Kind.ROLLBACK), passed, ended(2)]
    metrics = read(site(*all_of_them))
    assert metrics.get("swapd_deployments_total", site="shop", kind="deployment", outcome="live") == 2
    assert metrics.get("swapd_deployments_total", site="shop", kind="rollback", outcome="live") == 1
    assert metrics.get("swapd_deployments_total", site="shop", kind="deployment", outcome="rejected") == 1
    what = {"kind": "deployment", "outcome": "rejected", "problem": "digest-mismatch"}
    assert metrics.get("swapd_last_deployment_info", site="shop", **what) == 1
    assert len(metrics.labels("swapd_last_deployment_info")) == 1
    last, success = (
        metrics.get(f"swapd_last_{name}_timestamp_seconds", site="shop") for name in ("deployment", "success")
    )
    assert last - START.timestamp() == pytest.approx(5 + 2)
    assert success - START.timestamp() == pytest.approx(3 + 2), "what was passed over did not succeed"
    assert metrics.get("swapd_deployment_duration_seconds_count", site="shop", kind="deployment") == 2
    assert metrics.get("swapd_deployment_duration_seconds_sum", site="shop", kind="rollback") == 2


def test_pauses() -> None:
    none, long = PauseCost(0, 0), PauseCost(700_000, 4)
    metrics = read(site(ended(2, pause=PAUSE), ended(1, pause=long), ended(3, pause=none), ended(4, Outcome.FAILED)))
    assert metrics.get("swapd_pause_duration_seconds_count", site="shop") == 2
    assert metrics.get("swapd_pause_duration_seconds_sum", site="shop") == pytest.approx(0.7015)
    assert metrics.get("swapd_pause_duration_seconds_bucket", site="shop", le="0.001") == 0
    assert metrics.get("swapd_pause_duration_seconds_bucket", site="shop", le="0.002") == 1
    assert metrics.get("swapd_pause_duration_seconds_bucket", site="shop", le="1") == 2
    assert metrics.get("swapd_paused_processes_total", site="shop") == 20
    assert metrics.get("swapd_pause_queued_connections_total", site="shop") == 3
    assert metrics.get("swapd_pause_overflowed_connections_total", site="shop") == 1
    assert metrics.get("swapd_pause_dropped_connections_total", site="shop") == 2
    assert metrics.get("swapd_last_pause_duration_seconds", site="shop") == pytest.approx(0.0015)
    assert metrics.get("swapd_last_pause_processes", site="shop") == 16
    assert metrics.get("swapd_last_pause_dropped_connections", site="shop") == 2


def test_stages() -> None:
    times = (StageTime(Stage.CLAIM, 10), StageTime(Stage.EXTRACT, 2_000_000))
    metrics = read(site(ended(1, stages=times), ended(2, stages=times)))
    assert metrics.get("swapd_stage_duration_seconds_sum", site="shop", stage="extract") == 4
    assert metrics.get("swapd_stage_duration_seconds_count", site="shop", stage="extract") == 2
    assert metrics.get("swapd_stage_duration_seconds_sum", site="shop", stage="claim") == pytest.approx(2e-5)
    assert metrics.get("swapd_stage_duration_seconds_count", site="shop", stage="refresh") == 0


HOSTILE = [
    'x"} 1\nswapd_up 0\n#',
    "back\\slash\\",
    "\\n and \r\n and \x00 and \x1b[2J",
    "\u2028\u202etxt\udcff\ud800",
    "ä日本" * 2000,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_outside_stays_in_its_label(text: str) -> None:
    live = replace(LIVE, release=ReleaseId(text))
    hostile = ended(1, Outcome.FAILED, problem=text, strategy=text)
    written = format_metrics(UP, [site(hostile, live=live)], 3.25)
    assert len(written.encode()) < 20_000
    metrics = exposition.parse(written)
    assert metrics.get("swapd_up") == 1
    assert (
        len(metrics.values) == len(exposition.parse(format_metrics(UP, [site(ended(1), live=LIVE)], 3.25)).values) - 1
    )


@given(st.text())
def test_any_text_in_a_label_can_be_read_back(text: str) -> None:
    metrics = read(daemon=replace(UP, version=text))
    assert len(metrics.labels("swapd_build_info")) == 1
    plain = replace(UP, version=f'a"{text}'.replace("\n", "") if text.isprintable() and len(text) < 100 else "a")
    assert metrics.types == read(daemon=plain).types
    if plain.version != "a":
        assert read(daemon=plain).has("swapd_build_info", version=plain.version)


def test_times_have_no_exponent() -> None:
    text = format_metrics(replace(UP, started=1.7e9 + 0.123456, loaded=1e-5), [], 4e9)
    assert "swapd_start_time_seconds 1700000000.123456\n" in text
    assert "swapd_configuration_loaded_timestamp_seconds 0.00001\n" in text
    assert "swapd_heartbeat_timestamp_seconds 4000000000\n" in text

"""What is said to the journal: which kind, how urgent, and with which fields."""

from __future__ import annotations

import inspect
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from swapd.model import events
from swapd.model.config import Pause, PauseMode
from swapd.model.errors import ConfigurationIssue
from swapd.model.events import Event
from swapd.model.message_ids import MessageId
from swapd.model.record import Deployment, Kind
from swapd.model.release import DeploymentId, Digest, ListenerQueue, Outcome, PauseCost, ReleaseId, SiteName

SHOP = SiteName("shop")
RELEASE = ReleaseId("shop-42@9f86d081884c")
BEGUN = Deployment(
    DeploymentId("0f580de4-d623-42a3-9f23-321ecc10983a"),
    SHOP,
    Outcome.PENDING,
    datetime(2026, 1, 2, tzinfo=UTC),
    file_name="shop-42.tar.gz",
    release=RELEASE,
    digest=Digest("9f86d081884c" + "0" * 52),
    uploader="alice",
    stage="swap",
    pause=PauseCost(1700, 5, (ListenerQueue("0.0.0.0:80", 3, 511), ListenerQueue("[::]:443", 0, 128)), 1, 2),
)


def ended(outcome: Outcome, **more: Any) -> Deployment:
    return replace(BEGUN, outcome=outcome, ended=BEGUN.started + timedelta(seconds=3), **more)


KINDS = {
    Outcome.LIVE: (MessageId.DEPLOYMENT_LIVE, events.NOTICE),
    Outcome.UNCHANGED: (MessageId.DEPLOYMENT_UNCHANGED, events.INFO),
    Outcome.REJECTED: (MessageId.DEPLOYMENT_REJECTED, events.WARNING),
    Outcome.FAILED: (MessageId.DEPLOYMENT_FAILED, events.ERROR),
    Outcome.ROLLED_BACK: (MessageId.DEPLOYMENT_ROLLED_BACK, events.WARNING),
}


@pytest.mark.parametrize("outcome", KINDS)
def test_an_outcome_has_a_kind_of_its_own(outcome: Outcome) -> None:
    event = events.deployment_ended(ended(outcome, problem="a-problem", reason="because", hint="do this"))
    assert (event.id, event.priority) == KINDS[outcome]
    assert event.message.startswith(f"shop: {RELEASE} ")
    fields = event.journal_fields
    assert fields["MESSAGE_ID"] == event.id.value
    assert fields["SWAPD_SITE"] == "shop"
    assert fields["SWAPD_DEPLOYMENT"] == BEGUN.id
    assert fields["SWAPD_RELEASE"] == RELEASE
    assert fields["SWAPD_DIGEST"] == BEGUN.digest
    assert fields["SWAPD_OUTCOME"] == outcome.value
    assert fields["SWAPD_STAGE"] == "swap"
    assert fields["SWAPD_UPLOADER"] == "alice"
    assert fields["SWAPD_DURATION_USEC"] == 3_000_000
    assert (fields["SWAPD_PAUSE_USEC"], fields["SWAPD_PAUSED"]) == (1700, 5)


ROLLBACK = replace(
    BEGUN, kind=Kind.ROLLBACK, file_name="rollback", previous=ReleaseId("shop-43@0123456789ab"), operator="bob"
)
ROLLBACKS = {
    Outcome.LIVE: (MessageId.ROLLBACK_LIVE, events.NOTICE),
    Outcome.UNCHANGED: (MessageId.ROLLBACK_UNCHANGED, events.INFO),
    Outcome.REJECTED: (MessageId.ROLLBACK_REJECTED, events.WARNING),
    Outcome.FAILED: (MessageId.ROLLBACK_FAILED, events.ERROR),
}


@pytest.mark.parametrize("outcome", ROLLBACKS)
def test_a_rollback_is_told_from_a_deployment(outcome: Outcome) -> None:
    event = events.deployment_ended(replace(ROLLBACK, outcome=outcome, ended=BEGUN.started, reason="because"))
    assert (event.id, event.priority) == ROLLBACKS[outcome]
    assert RELEASE in event.message
    assert (event.fields["SWAPD_RELEASE"], event.fields["SWAPD_OPERATOR"]) == (RELEASE, "bob")


def test_the_start_of_a_rollback_says_from_what_to_what_and_whose_wish_it_is() -> None:
    event = events.deployment_started(ROLLBACK)
    assert (event.id, event.priority) == (MessageId.ROLLBACK_STARTED, events.INFO)
    assert all(word in event.message for word in ("shop-43@0123456789ab", RELEASE, "bob"))


@pytest.mark.parametrize("outcome", [Outcome.REJECTED, Outcome.FAILED])
def test_a_bad_outcome_says_why_and_what_to_do(outcome: Outcome) -> None:
    message = events.deployment_ended(ended(outcome, reason="it is cut off", hint="Upload it again.")).message
    assert "it is cut off" in message
    assert "Upload it again." in message


def test_an_interruption_is_no_alarm() -> None:
    event = events.deployment_ended(ended(Outcome.FAILED, problem="interrupted"))
    assert (event.id, event.priority) == (MessageId.INTERRUPTED, events.NOTICE)
    assert event.journal_fields["SWAPD_OUTCOME"] == "failed"


def test_a_start_has_no_outcome() -> None:
    event = events.deployment_started(BEGUN)
    assert event.id is MessageId.DEPLOYMENT_STARTED
    assert "alice" in event.message
    assert not {"SWAPD_OUTCOME", "SWAPD_DURATION_USEC"} & event.journal_fields.keys()


def test_what_is_not_known_is_left_out() -> None:
    bare = Deployment(BEGUN.id, SHOP, Outcome.PENDING, BEGUN.started, file_name="x\n\x1b[2J.tar")
    event = events.deployment_started(bare)
    assert not {"SWAPD_RELEASE", "SWAPD_DIGEST", "SWAPD_UPLOADER", "SWAPD_PAUSED"} & event.journal_fields.keys()
    assert event.message.isprintable()
    assert all(value is not None for value in event.journal_fields.values())


@pytest.mark.parametrize(
    ("pause", "text"),
    [
        (None, "nothing was paused"),
        (PauseCost(900, 0), "nothing was paused"),
        (PauseCost(900, 1), "1 httpd process was paused for 900 µs, nothing was dropped"),
        (PauseCost(1700, 5), "5 httpd processes were paused for 1.7 ms, nothing was dropped"),
        (
            PauseCost(1700, 5, (ListenerQueue("0.0.0.0:80", 1, 511),)),
            "5 httpd processes were paused for 1.7 ms, 1 connection waited, nothing was dropped",
        ),
        (
            BEGUN.pause,
            "5 httpd processes were paused for 1.7 ms, 3 connections waited, 2 connections had to be tried again",
        ),
    ],
)
def test_what_a_pause_cost(pause: PauseCost | None, text: str) -> None:
    assert events.describe_pause(pause) == text


def test_what_a_pause_cost_for_programs() -> None:
    fields = events.deployment_ended(ended(Outcome.LIVE)).journal_fields
    assert {key: value for key, value in fields.items() if key.startswith(("SWAPD_PAUSE", "SWAPD_QUEUED"))} == {
        "SWAPD_PAUSE_USEC": 1700,
        "SWAPD_PAUSED": 5,
        "SWAPD_QUEUED": "0.0.0.0:80=3/511 [::]:443=0/128",
    }
    assert (fields["SWAPD_OVERFLOWED"], fields["SWAPD_DROPPED"]) == (1, 2)


def test_a_failure_says_what_its_pause_cost() -> None:
    event = events.deployment_ended(ended(Outcome.FAILED, reason="no", problem="pause-timed-out"))
    assert "5 httpd processes were paused for 1.7 ms" in event.message


def test_every_function_makes_an_event_for_people_and_programs() -> None:
    values: dict[str, Any] = {
        "sites": [SHOP],
        "busy": [SHOP],
        "version": "1.0",
        "reason": "a reason",
        "strategy": "symlink",
        "deployment": ended(Outcome.LIVE),
        "site": SHOP,
        "rules": Pause(PauseMode.AUTO, ("httpd", "apache2"), 1.0, "www-data", "apache2.service", "/usr/sbin/apache2"),
        "release": RELEASE,
        "releases": [RELEASE],
        "where": "/var/www/shop.releases",
        "message": "a message",
        "count": 3,
        "issues": [ConfigurationIssue("/etc/swapd/sites/shop.toml", 3, "key\n\x1b[2J", "is not known", "be right")] * 5,
        "loss": events.Loss(3, BEGUN.started, BEGUN.started + timedelta(seconds=9)),
        "pauser": 42,
        "path": "/var/spool/swapd/shop",
        "why": "it is gone",
        "filesystem": "nfs4",
        "seconds": 2.0,
    }
    made = 0
    for name, function in inspect.getmembers(events, inspect.isfunction):
        if inspect.signature(function).return_annotation == "Event" and not name.startswith("_"):
            event = function(**{key: values[key] for key in inspect.signature(function).parameters})
            assert isinstance(event, Event)
            assert event.message.isprintable(), name
            assert events.ERROR <= event.priority <= events.INFO
            assert all(key.startswith("SWAPD_") for key in event.fields), name
            made += 1
    assert made > 10


def test_none_configured_says_how_to_begin() -> None:
    assert "swapd init" in events.started([], "1.0").message
    assert "shop, blog" in events.started([SHOP, SiteName("blog")], "1.0").message

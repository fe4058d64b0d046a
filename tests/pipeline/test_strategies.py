"""Which strategy a deployment takes: what its records say of that, and what is not done by a weaker one."""

from __future__ import annotations

from pathlib import Path

import pytest

from swapd.context import Context
from swapd.deploy import deploy
from swapd.host.configuration import read_site
from swapd.host.routes import read_route
from swapd.model.events import Event
from swapd.model.message_ids import MessageId
from swapd.model.record import Deployment
from swapd.model.release import Outcome, Upload
from tests.support.httpd import Httpd
from tests.support.sites import Scratch
from tests.support.tarballs import release_of, site_content, write_tarball
from tests.support.trees import texts, write_tree

ONE = site_content("one")


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_tarball(tmp_path / "shop-1.tar.gz", ONE)


def deployed(scratch: Scratch, tarball: Path) -> tuple[Deployment, list[Event]]:
    """Here, so that every record of the journal is seen."""
    events: list[Event] = []
    site = read_site(scratch.layout, scratch.site)
    context = Context(scratch.layout, events.append, lambda *_: None)
    return deploy(site, Upload(tarball.parent, tarball.name, False), context), events


@pytest.mark.parametrize(("is_there", "strategy"), [(True, "exchange"), (False, "symlink")])
def test_what_auto_picks_is_said(scratch: Scratch, one: Path, strategy: str, *, is_there: bool) -> None:
    scratch.add_site()
    if is_there:
        write_tree(scratch.live(), {"index.html": "by hand"})
    deployment, events = deployed(scratch, one)
    (chosen,) = [event for event in events if event.id is MessageId.STRATEGY_CHOSEN]
    assert chosen.fields["SWAPD_STRATEGY"] == deployment.strategy == strategy
    assert deployment.strategy_reason in chosen.message
    (outcome,) = [event for event in events if event.id is MessageId.DEPLOYMENT_LIVE]
    assert outcome.fields["SWAPD_STRATEGY"] == strategy


def test_pinned_pauses_nobody_and_says_what_it_does_not_know(scratch: Scratch, httpd: Httpd, one: Path) -> None:
    scratch.add_site(httpd=httpd.name, strategy="pinned")
    deployment, events = deployed(scratch, one)
    assert (deployment.outcome, deployment.pause) == (Outcome.LIVE, None)
    assert httpd.is_running()
    assert texts(scratch.live()) == ONE
    assert read_route(scratch.layout.route("shop").map) == f"shop.releases/{release_of(one)}"
    # There is no web server that could be asked whether it follows.
    assert [event.id for event in events].count(MessageId.DEGRADED) == 1


def test_pinned_does_not_turn_into_a_weaker_one(scratch: Scratch, one: Path) -> None:
    scratch.add_site(strategy="pinned")
    scratch.layout.route("shop").apache.unlink()
    deployment, _ = deployed(scratch, one)
    assert (deployment.outcome, deployment.problem) == (Outcome.FAILED, "no-route-file")
    assert not scratch.live().exists()
    assert one.exists()


def test_the_live_release_again_leads_a_route_back_that_is_astray(scratch: Scratch, one: Path) -> None:
    scratch.add_site(strategy="pinned")
    deployed(scratch, one)
    assert deployed(scratch, one)[0].outcome is Outcome.UNCHANGED
    scratch.layout.route("shop").map.write_text("live shop.releases/another\n")
    assert deployed(scratch, one)[0].outcome is Outcome.LIVE
    assert read_route(scratch.layout.route("shop").map) == f"shop.releases/{release_of(one)}"

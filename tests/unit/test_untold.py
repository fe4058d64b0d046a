"""Outcomes that could not be told when they came: recovery tells them, and nobody's newer marker is lost by that."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from swapd.context import Context
from swapd.host import records
from swapd.model.layout import Layout
from swapd.model.record import Deployment, now
from swapd.model.release import DeploymentId, Outcome
from swapd.recover import recover
from swapd.stages.mark import describe, write_marker
from tests.support.sites import make_directories, make_site, read_markers

NAME = "shop-1.tar.gz"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def test_the_marker_of_a_later_deployment_stays(layout: Layout) -> None:
    site = make_directories(make_site(layout.root), layout)
    untold = Deployment(
        DeploymentId(str(uuid.uuid4())),
        site.name,
        Outcome.REJECTED,
        now() - timedelta(minutes=1),
        file_name=NAME,
        is_dropped=True,
        reason="as it was",
        problem="not-gzip",
        starts=1,
        is_told=True,
    )
    records.write_deployment(layout, untold)
    context = Context(layout, lambda _: None, lambda *_: None)
    recover(site, context)
    assert read_markers(site.incoming)[f"{NAME}.rejected"]["deployment"] == untold.id
    # The same again, when its author has uploaded another file of this name meanwhile.
    records.write_deployment(layout, untold)
    later = replace(untold, id=DeploymentId(str(uuid.uuid4())), started=now(), is_closed=True)
    records.write_deployment(layout, later)
    write_marker(site.incoming, NAME, describe(later))
    recover(site, context)
    assert read_markers(site.incoming)[f"{NAME}.rejected"]["deployment"] == later.id
    assert records.find_unfinished(layout, site.name) == []


def test_a_record_that_is_kept_goes_where_it_belongs(layout: Layout) -> None:
    """By the next recovery, and it counts for more than what was written before."""
    site = make_directories(make_site(layout.root), layout)
    begun = Deployment(DeploymentId(str(uuid.uuid4())), site.name, Outcome.PENDING, now(), starts=1, file_name=NAME)
    records.write_deployment(layout, begun)
    ended = replace(begun, outcome=Outcome.FAILED, problem="cannot-record", ended=now(), is_told=True)
    records.keep_deployment(layout, ended)
    assert records.read_deployments(layout, site.name) == [ended]
    recover(site, Context(layout, lambda event: pytest.fail(event.message), lambda *_: None))
    assert records.read_deployments(layout, site.name) == [replace(ended, is_closed=True)]
    assert records.read_kept_deployments(layout, site.name) == []

"""Which deployment is followed: decided from a drop directory, records, and what is said of what is under way."""

from __future__ import annotations

import json
import os
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from swapd.commands.pursuit import RECENT, Again, Ended, Goes, Gone, Nothing, Pursuit, Waits
from swapd.host import records
from swapd.host.files import fingerprint
from swapd.host.progress import ProgressFile
from swapd.model.layout import Layout
from swapd.model.record import SUPERSEDED, Deployment, now
from swapd.model.release import DeploymentId, Outcome, Stage
from tests.support.sites import make_directories, make_site
from tests.support.waiting import wait_until

ONE, TWO = "shop-1.tar.gz", "shop-2.tar.gz"
LONG = 2 * RECENT


class Shop:
    """A site without a daemon: what that would write, the tests write."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.site = make_directories(make_site(root), self.layout)
        self.layout.run.mkdir(parents=True, exist_ok=True)

    def upload(self, name: str = ONE, content: str = "upload") -> Path:
        path = self.site.incoming / name
        path.write_text(content)
        return path

    def record(self, name: str, outcome: Outcome, *, ago: float = 0.0, upload: Path | None = None, **more: Any) -> str:
        """A deployment, which ended so long ago; its id."""
        ended = now() - timedelta(seconds=ago)
        deployment = Deployment(
            DeploymentId(str(uuid.uuid4())),
            self.site.name,
            outcome,
            ended - timedelta(milliseconds=1),
            file_name=name,
            is_dropped=True,
            fingerprint=fingerprint(os.stat(upload)) if upload else None,
            ended=None if outcome is Outcome.PENDING else ended,
            **more,
        )
        records.write_deployment(self.layout, deployment, through=False)
        return deployment.id

    def progress(self) -> ProgressFile:
        return ProgressFile(self.layout, self.site.name)

    def follow(self, file: str = "", deployment: str = "") -> Pursuit:
        return Pursuit(self.layout, self.site, file, deployment)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_what_ended_just_now(shop: Shop) -> None:
    shop.record(TWO, Outcome.LIVE, ago=LONG)
    live = shop.record(ONE, Outcome.LIVE, ago=RECENT / 2)
    state = shop.follow().look()
    assert isinstance(state, Ended)
    assert state.record.id == live


def test_what_ended_long_ago_is_no_answer_to_who_names_nothing(shop: Shop) -> None:
    live = shop.record(ONE, Outcome.LIVE, ago=LONG)
    pursuit = shop.follow()
    assert pursuit.look() == Nothing()
    for asked in (shop.follow(ONE), shop.follow(deployment=live[:8])):
        state = asked.look()
        assert isinstance(state, Ended)
        assert state.record.id == live
    shop.record(TWO, Outcome.REJECTED)
    assert isinstance(pursuit.look(), Ended), "what comes next is"


def test_of_several_that_one_stands_for_that_one_is_the_answer(shop: Shop) -> None:
    live = shop.record(TWO, Outcome.LIVE, ago=2)
    shop.record(ONE, Outcome.UNCHANGED, ago=1, problem=SUPERSEDED)
    state = shop.follow().look()
    assert isinstance(state, Ended)
    assert state.record.id == live


def test_the_daemon_has_not_taken_back_yet_what_is_over(shop: Shop) -> None:
    """It hears of the outcome a moment after that is written down."""
    progress = shop.progress()
    progress.show(ONE, Stage.VERIFY, None, "")
    live = shop.record(ONE, Outcome.UNCHANGED, ago=-0.001)
    state = shop.follow().look()
    assert isinstance(state, Ended)
    assert state.record.id == live


@pytest.mark.parametrize("file", ["", ONE])
def test_what_is_under_way_is_not_what_had_its_name_before(shop: Shop, file: str) -> None:
    shop.record(ONE, Outcome.FAILED, ago=1)
    progress = shop.progress()
    progress.show(ONE, Stage.CLAIM, 0.5, "")
    pursuit = shop.follow(file)
    state = pursuit.look()
    assert isinstance(state, Goes)
    assert state.progress is not None
    assert (state.progress.stage, state.progress.fraction, state.record) == (Stage.CLAIM, 0.5, None)
    progress.remove()
    live = shop.record(ONE, Outcome.LIVE)
    state = pursuit.look()
    assert isinstance(state, Ended)
    assert state.record.id == live


def test_what_a_killed_process_said_does_not_count(shop: Shop) -> None:
    shop.progress().show(ONE, Stage.CLAIM, 0.5, "")
    path = shop.layout.progress("shop")
    path.write_text(json.dumps({**json.loads(path.read_text()), "pid": 2**22 + 1}))
    assert shop.follow().look() == Nothing()
    path.write_text("[")
    assert shop.follow().look() == Nothing()


def test_an_upload_that_waits_comes_before_what_ended(shop: Shop) -> None:
    rejected = shop.upload(TWO)
    shop.record(TWO, Outcome.REJECTED, upload=rejected)
    assert isinstance(shop.follow().look(), Ended)
    shop.upload(ONE)
    state = shop.follow().look()
    assert isinstance(state, Waits)
    assert state.upload.file_name == ONE


def test_an_upload_that_was_answered_waits_again_once_it_is_another(shop: Shop) -> None:
    shop.record(ONE, Outcome.REJECTED, upload=shop.upload())
    assert isinstance(shop.follow(ONE).look(), Ended)
    shop.upload(content="other")
    assert isinstance(shop.follow(ONE).look(), Waits)


def test_a_crash_is_followed_by_another_attempt_while_the_upload_is_there(shop: Shop) -> None:
    upload = shop.upload()
    pursuit = shop.follow()
    assert isinstance(pursuit.look(), Waits)
    shop.record(ONE, Outcome.FAILED, ago=0.001, problem="crashed")
    assert isinstance(pursuit.look(), Again)
    shop.record(ONE, Outcome.PENDING, attempt=2)
    assert isinstance(pursuit.look(), Goes)
    last = shop.record(ONE, Outcome.FAILED, ago=-0.001, problem="crashed", attempt=3, upload=upload)
    state = pursuit.look()
    assert isinstance(state, Ended), "which is the last one"
    assert state.record.id == last


def test_a_crash_is_the_answer_where_the_upload_is_gone(shop: Shop) -> None:
    upload = shop.upload()
    pursuit = shop.follow()
    pursuit.look()
    shop.record(ONE, Outcome.FAILED, problem="crashed")
    upload.unlink()
    assert isinstance(pursuit.look(), Again), "a look may have come between two things"
    wait_until(lambda: isinstance(pursuit.look(), Ended), "the last word")


def test_an_upload_that_is_taken_back(shop: Shop) -> None:
    upload = shop.upload()
    pursuit = shop.follow()
    pursuit.look()
    upload.unlink()
    wait_until(lambda: isinstance(pursuit.look(), Gone), "that to be seen")

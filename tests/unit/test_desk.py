"""What the daemon takes up again, and when: what failed here, where this host may have been mended."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from swapd.desk import SiteDesk
from swapd.host import records
from swapd.host.files import fingerprint
from swapd.model.layout import Layout
from swapd.model.record import UNRECORDED, Deployment, now
from swapd.model.release import DeploymentId, Outcome, Upload
from swapd.model.room import RoomNeeded
from swapd.stages.arrive import scan
from tests.support.sites import make_directories, make_site

NAME = "shop-1.tar.gz"


class Shop:
    """A site with one upload, which settled long ago."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.site = make_directories(make_site(root), self.layout)
        (self.site.incoming / NAME).write_text("content")

    def end(self, outcome: Outcome, problem: str, **more: Any) -> None:
        """The upload's latest deployment."""
        state = fingerprint(os.stat(self.site.incoming / NAME))
        deployment = Deployment(
            DeploymentId(str(uuid.uuid4())),
            self.site.name,
            outcome,
            now(),
            file_name=NAME,
            is_dropped=True,
            fingerprint=state,
            problem=problem,
            ended=now(),
            is_told=True,
            is_closed=True,
            **more,
        )
        records.write_deployment(self.layout, deployment)

    def desk(self) -> SiteDesk:
        return SiteDesk(self.site, self.layout)

    def takes_up(self, desk: SiteDesk) -> bool:
        return bool(self.ready(desk))

    def ready(self, desk: SiteDesk) -> list[Upload]:
        """What the daemon would take up after it has been quiet for an hour."""
        return desk.arrivals.update(scan(self.site.incoming), self.site, 0.0, time.time() + 3600)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_what_failed_is_taken_up_again_at_a_start_and_at_a_reload(shop: Shop) -> None:
    shop.end(Outcome.FAILED, "quota-exceeded")
    desk = shop.desk()
    assert shop.takes_up(desk)
    # It fails again, and once is enough.
    (upload,) = shop.ready(desk)
    shop.end(Outcome.FAILED, "quota-exceeded")
    desk.arrivals.answer(upload)
    assert not shop.takes_up(desk)
    desk.retry_failed()
    assert shop.takes_up(desk)


def test_a_recovery_at_the_start_makes_no_difference(shop: Shop) -> None:
    shop.end(Outcome.FAILED, "zstd-missing")
    desk = shop.desk()
    desk.is_recovering = True
    desk.hear_ready()
    assert shop.takes_up(desk)
    # What failed since then is answered.
    shop.end(Outcome.FAILED, "zstd-missing")
    desk.is_recovering = True
    desk.hear_ready()
    assert not shop.takes_up(desk)


@pytest.mark.parametrize(
    ("outcome", "problem", "more"),
    [
        (Outcome.REJECTED, "digest-mismatch", {}),
        (Outcome.FAILED, "crashed", {"attempt": 3}),
        (Outcome.FAILED, "no-space", {"needed": RoomNeeded("/", 1 << 62)}),
    ],
    ids=["rejected", "crashed", "no-space"],
)
def test_what_no_start_can_have_mended(shop: Shop, outcome: Outcome, problem: str, more: dict[str, Any]) -> None:
    shop.end(outcome, problem, **more)
    desk = shop.desk()
    assert not shop.takes_up(desk)
    desk.retry_failed()
    assert not shop.takes_up(desk)
    assert not desk.retry_where_room_is()


def test_what_was_changed_since_is_taken_up_in_any_case(shop: Shop) -> None:
    shop.end(Outcome.REJECTED, "digest-mismatch")
    (shop.site.incoming / NAME).write_text("other content")
    assert shop.takes_up(shop.desk())


def test_what_could_not_be_written_down_is_taken_up_again_whoever_wrote_it_down_since(shop: Shop) -> None:
    """A recovery that came right after the disk was mended, say."""
    desk = shop.desk()
    (upload,) = shop.ready(desk)
    desk.is_unrecorded = True
    shop.end(Outcome.FAILED, UNRECORDED)
    desk.arrivals.answer(upload)
    assert not shop.takes_up(desk)
    assert desk.retry_where_mended()
    assert shop.takes_up(desk)
    # It fails otherwise now, and once is enough.
    shop.end(Outcome.FAILED, "quota-exceeded")
    desk.arrivals.answer(upload)
    assert not desk.retry_where_mended()
    assert not shop.takes_up(desk)

"""Records: every one comes back as it was written, and none is guessed at."""

from __future__ import annotations

import dataclasses
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from swapd.host import records
from swapd.model.errors import Failed
from swapd.model.layout import Layout
from swapd.model.record import (
    VERSION,
    Deployment,
    LiveRelease,
    Marker,
    PauseRecord,
    ProcessIdentity,
    Recorded,
    SiteState,
    SwapIntent,
    TreeIdentity,
    now,
)
from swapd.model.release import DeploymentId, Digest, Outcome, PauseCost, ReleaseId, SiteName

KINDS: list[type[Recorded]] = [Deployment, LiveRelease, Marker, PauseRecord, SiteState, SwapIntent]
SHOP = SiteName("shop")
START = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)


def values(kind: type[Recorded]) -> st.SearchStrategy[Recorded]:
    """Values of the kind with anything in them that their types allow and a TOML file can hold."""
    text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
    by_type: dict[Any, st.SearchStrategy[Any]] = {
        str: text,
        int: st.integers(-(1 << 63), (1 << 63) - 1),
        float: st.floats(allow_nan=False, allow_infinity=False),
        datetime: st.datetimes(min_value=datetime(2000, 1, 1), timezones=st.just(UTC)),
    }

    def of(hint: Any) -> st.SearchStrategy[Any]:
        hint = getattr(hint, "__supertype__", hint)
        arguments = get_args(hint)
        if type(None) in arguments:
            return st.one_of(st.none(), *(of(argument) for argument in arguments if argument is not type(None)))
        if getattr(hint, "__origin__", None) is tuple:
            return st.lists(of(arguments[0]), max_size=3).map(tuple)
        if dataclasses.is_dataclass(hint):
            hints = get_type_hints(hint)
            return st.builds(hint, **{field.name: of(hints[field.name]) for field in dataclasses.fields(hint)})
        return by_type[hint] if hint in by_type else st.from_type(hint)

    return of(kind)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(data=st.data())
def test_every_record_comes_back_through_a_toml_file(kind: type[Recorded], data: st.DataObject) -> None:
    value = data.draw(values(kind))
    text = tomli_w.dumps(value.document())
    assert kind.from_document(tomllib.loads(text), "here") == value
    text.encode("utf-8")


def deployment(**more: Any) -> Deployment:
    return Deployment(DeploymentId("an-id"), SHOP, Outcome.PENDING, START, **more)


SWAP = {"how": "exchange", "path": "/x", "live": "/y", "staged": {"device": 1, "inode": 2}}


@pytest.mark.parametrize(
    "changes",
    [
        {"started": 5},
        {"started": "2026-01-02"},
        {"started": datetime(2026, 1, 2, 3, 4, 5)},  # of no time zone: cannot be compared with the others
        {"outcome": "alive"},
        {"outcome": 3},
        {"id": 3},
        {"is_dropped": 1},
        {"attempt": True},
        {"attempt": 1.0},
        {"pause": "3"},
        {"fingerprint": 3},
        {"fingerprint": {"device": 1}},
        {"swaps": {}},
        {"swaps": [{"staged_path": "/x"}]},
        {"swaps": [{"staged_path": "/x", "swap": {**SWAP, "staged": {"device": 1, "inode": "2"}}}]},
        {"swaps": [{"staged_path": "/x", "swap": {**SWAP, "how": "somehow"}}]},
    ],
    ids=str,
)
def test_a_wrong_type_is_not_guessed_at(changes: dict[str, Any]) -> None:
    document = {**deployment().document(), **changes}
    with pytest.raises(Failed) as caught:
        Deployment.from_document(document, "here")
    assert caught.value.problem == "bad-record"
    assert caught.value.message.startswith("here")


@pytest.mark.parametrize("key", ["id", "site", "outcome", "started"])
def test_a_missing_key_is_not_guessed_at(key: str) -> None:
    document = deployment().document()
    del document[key]
    with pytest.raises(Failed) as caught:
        Deployment.from_document(document, "here")
    assert caught.value.problem == "bad-record"


@pytest.mark.parametrize("version", [None, VERSION + 1, "1", 0])
def test_a_record_of_another_version_is_not_read(version: Any) -> None:
    document = {**deployment().document(), "version": version}
    if version is None:
        del document["version"]
    with pytest.raises(Failed) as caught:
        Deployment.from_document(document, "here")
    assert caught.value.problem == ("newer-record" if version == VERSION + 1 else "bad-record")


def test_keys_of_nobody_are_passed_over() -> None:
    assert Deployment.from_document({**deployment().document(), "later": 1}, "here") == deployment()


def test_a_duration_is_known_at_the_end() -> None:
    assert deployment().duration_usec == 0
    assert deployment(ended=START.replace(second=7)).duration_usec == 2_000_000


def test_an_instant_keeps_its_microseconds() -> None:
    instant = now()
    assert tomllib.loads(tomli_w.dumps({"at": instant}))["at"] == instant


class TestFiles:
    """The records of a site on the disk."""

    @pytest.fixture
    def layout(self, tmp_path: Path) -> Layout:
        layout = Layout(tmp_path)
        records.make_state_directories(layout, SHOP)
        return layout

    def record(self, number: int, **more: Any) -> Deployment:
        return Deployment(
            DeploymentId(f"id-{number:04}"),
            SHOP,
            more.pop("outcome", Outcome.LIVE),
            START.replace(year=2000 + number),
            **more,
        )

    def test_the_private_parts_are_private(self, layout: Layout) -> None:
        assert layout.claims("shop").stat().st_mode & 0o777 == 0o700
        assert layout.deployments("shop").stat().st_mode & 0o777 == 0o755
        records.make_state_directories(layout, SHOP)  # again, as each deployment does

    def test_a_state_before_the_first_deployment_is_empty(self, layout: Layout) -> None:
        assert records.read_state(layout, SHOP) == SiteState()

    def test_a_state_comes_back(self, layout: Layout) -> None:
        live = LiveRelease(
            ReleaseId("a@0123456789ab"),
            Digest("0" * 64),
            DeploymentId("x"),
            now(),
            TreeIdentity(1, 2),
            PauseCost(42, 3),
        )
        state = SiteState(live, (ReleaseId("b@0123456789ab"),))
        records.write_state(layout, SHOP, state)
        assert records.read_state(layout, SHOP) == state
        assert layout.site_record("shop").stat().st_mode & 0o777 == 0o644

    @pytest.mark.parametrize("content", [b"\xff\xfe", b"= 1", b"", b"version = 9"])
    def test_a_state_that_cannot_be_understood_says_so(self, layout: Layout, content: bytes) -> None:
        layout.site_record("shop").write_bytes(content)
        with pytest.raises(Failed) as caught:
            records.read_state(layout, SHOP)
        assert caught.value.problem in ("bad-record", "newer-record")
        assert str(layout.site_record("shop")) in caught.value.message

    def test_deployments_come_newest_first_and_unreadable_ones_not_at_all(self, layout: Layout) -> None:
        written = [self.record(number) for number in (3, 1, 2)]
        for item in written:
            records.write_deployment(layout, item)
        (layout.deployments("shop") / "broken.toml").write_text("id = ")
        (layout.deployments("shop") / "latin.toml").write_bytes(b"id = '\xff'")
        (layout.deployments("shop") / ".id-9.toml.1234").write_text("a crash left it")
        (layout.deployments("shop") / ".hidden.toml").write_text("")
        assert records.read_deployments(layout, SHOP) == sorted(written, key=lambda item: item.started, reverse=True)
        assert records.read_deployments(layout, SiteName("nobody")) == []

    def test_only_what_nobody_was_told_is_unfinished_the_oldest_first(self, layout: Layout) -> None:
        # One that is finished and has the very words in a text of its own.
        trap = self.record(9, reason="is_closed = false", is_closed=True)
        pending = self.record(5, outcome=Outcome.PENDING, is_closed=False)
        untold = self.record(4, is_closed=False)
        for item in (trap, pending, untold, self.record(1, is_closed=True)):
            records.write_deployment(layout, item)
        assert [item.id for item in records.find_unfinished(layout, SHOP)] == ["id-0004", "id-0005"]

    def test_old_deployments_are_forgotten(self, layout: Layout) -> None:
        for number in range(records.HISTORY_LENGTH + 5):
            document = self.record(number % 900).document() | {"id": f"id-{number:04}", "is_closed": True}
            document["started"] = START.replace(microsecond=number)
            (layout.deployments("shop") / f"id-{number:04}.toml").write_text(tomli_w.dumps(document))
        records.forget_old_deployments(layout, SHOP)
        kept = records.read_deployments(layout, SHOP)
        assert len(kept) == records.HISTORY_LENGTH
        assert kept[-1].id == "id-0005"
        records.forget_old_deployments(layout, SHOP)
        assert len(records.read_deployments(layout, SHOP)) == records.HISTORY_LENGTH

    def test_a_pause_record_comes_and_goes(self, layout: Layout) -> None:
        assert records.read_pause(layout) is None
        master = ProcessIdentity(12, 345)
        record = PauseRecord(
            "boot", ProcessIdentity(1, 2), now(), (master,), (ProcessIdentity(13, 346),), (), ("httpd",), 0.25
        )
        records.write_pause(layout, record)
        assert records.read_pause(layout) == record
        records.remove_pause(layout)
        assert records.read_pause(layout) is None
        records.remove_pause(layout)  # it is gone already

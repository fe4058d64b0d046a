"""What a control file asks for: by its name, by what is written in it, and to which state of the site it belongs."""

from __future__ import annotations

import pytest

from swapd.model.control import (
    RollbackRequest,
    find_release,
    is_control,
    parse_wanted,
    parse_words,
    refuse_stale,
)
from swapd.model.errors import Rejected
from swapd.model.release import ReleaseId

LIVE = ReleaseId("shop-42@222222222222")
BEFORE = ReleaseId("shop-41@111111111111")
OTHERS = [ReleaseId("shop-4@444444444444"), ReleaseId("shop-40@000000000000"), ReleaseId("blog@999999999999")]
KEPT = [LIVE, BEFORE, *OTHERS]


@pytest.mark.parametrize("name", ["rollback", "rollback@shop-41", "rollback@shop-41@111111111111", "rollback@"])
def test_control_files_by_their_names(name: str) -> None:
    assert is_control(name)


@pytest.mark.parametrize(
    "name", ["rollback.tar.gz", "rollback@shop.tar", "rollback.txt", "Rollback", "rollbacks", "rollback ", "rollback-1"]
)
def test_what_is_called_otherwise_is_none(name: str) -> None:
    assert not is_control(name)


def test_the_release_that_its_name_asks_for() -> None:
    assert parse_wanted("rollback") == ""
    assert parse_wanted("rollback@shop-41") == "shop-41"
    assert parse_wanted("rollback@shop-41@111111111111") == BEFORE


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ()),
        (b"\n\n", ()),
        (b"why not\n", ("why", "not")),
        (f"\r\n{LIVE}\r\nmore\n".encode(), (LIVE,)),
        (f"{LIVE} {BEFORE} # at three in the morning".encode(), (LIVE, BEFORE)),
        (b"# nothing\n", ()),
        (b"\xff\xfe\x00", ("\ufffd\ufffd\x00",)),
    ],
)
def test_the_words_of_its_first_line(content: bytes, words: tuple[str, ...]) -> None:
    assert parse_words(content) == words


class TestWhichRelease:
    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            (BEFORE, BEFORE),
            ("shop-41", BEFORE),
            ("shop-41@1", BEFORE),
            ("shop-4", OTHERS[0]),  # by its whole name, which others begin with
            ("b", OTHERS[2]),
            (LIVE, LIVE),
        ],
    )
    def test_by_id_name_or_beginning(self, wanted: str, found: ReleaseId) -> None:
        assert find_release(wanted, KEPT) == found

    @pytest.mark.parametrize("wanted", ["shop", "shop-"])
    def test_never_one_of_several(self, wanted: str) -> None:
        with pytest.raises(Rejected) as caught:
            find_release(wanted, KEPT)
        assert caught.value.problem == "ambiguous-release"
        assert LIVE in caught.value.message
        assert BEFORE in caught.value.message
        assert OTHERS[2] not in caught.value.message

    def test_two_of_one_name_are_told_apart_by_their_digests(self) -> None:
        twins = [ReleaseId("shop@111111111111"), ReleaseId("shop@122222222222")]
        with pytest.raises(Rejected) as caught:
            find_release("shop", twins)
        assert caught.value.problem == "ambiguous-release"
        assert find_release("shop@12", twins) == twins[1]

    @pytest.mark.parametrize("wanted", ["shop-43", "../../etc", "41", "\x1b[31m"])
    def test_what_is_not_kept(self, wanted: str) -> None:
        with pytest.raises(Rejected) as caught:
            find_release(wanted, KEPT)
        assert caught.value.problem == "unknown-release"
        assert all(release in caught.value.hint for release in KEPT)
        assert "\x1b" not in caught.value.message


def refusal(request: RollbackRequest, *, must_be_bound: bool, live: ReleaseId | None = LIVE) -> str:
    """The problem; empty where there is none."""
    error: Rejected | None = None
    try:
        refuse_stale(request, live, BEFORE, must_be_bound=must_be_bound)
    except Rejected as caught:
        error = caught
    if error is None:
        return ""
    assert "ssh-keygen -Y sign -n swapd" in error.hint
    assert str(live) in error.hint or live is None
    return error.problem


class TestWhatItWasMadeFor:
    @pytest.mark.parametrize("words", [(), ("please",), (LIVE,), (LIVE, BEFORE), ("from", LIVE, "to", BEFORE)])
    def test_unsigned_anything_goes_but_a_contradiction(self, words: tuple[str, ...]) -> None:
        assert refusal(RollbackRequest(words=words), must_be_bound=False) == ""
        assert refusal(RollbackRequest("shop-41", words=words), must_be_bound=False) == ""

    @pytest.mark.parametrize("must_be_bound", [False, True])
    def test_one_that_rolls_back_from_what_is_not_live(self, must_be_bound: bool) -> None:
        assert refusal(RollbackRequest(words=(OTHERS[0],)), must_be_bound=must_be_bound) == "not-live"
        assert refusal(RollbackRequest(words=(LIVE,)), must_be_bound=must_be_bound, live=None) == "not-live"

    @pytest.mark.parametrize("must_be_bound", [False, True])
    def test_a_name_that_says_something_else(self, must_be_bound: bool) -> None:
        # Whoever has a signed file may call it what they like.
        request = RollbackRequest("shop-41", words=(LIVE, OTHERS[0]))
        assert refusal(request, must_be_bound=must_be_bound) == "names-differ"

    def test_signed_it_says_from_what(self) -> None:
        assert refusal(RollbackRequest(words=(LIVE,)), must_be_bound=True) == ""
        for words in ((), (LIVE, BEFORE), ("please", LIVE)):
            assert refusal(RollbackRequest(words=words), must_be_bound=True) == "not-bound"

    def test_signed_it_says_to_what_where_its_name_does(self) -> None:
        assert refusal(RollbackRequest("shop-41", words=(LIVE, BEFORE)), must_be_bound=True) == ""
        # One that was signed for the release before must not lead to any other.
        assert refusal(RollbackRequest("shop-41", words=(LIVE,)), must_be_bound=True) == "not-bound"

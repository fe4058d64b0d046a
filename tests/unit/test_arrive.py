"""Which uploads are taken up and when: decided from values, and seen in a real drop directory."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapd.model.config import Site
from swapd.model.release import Fingerprint, Sidecar, SidecarKind, Upload, printable
from swapd.stages.arrive import PATIENCE, Arrivals, Seen, look, scan
from tests.support.mounts import fuse
from tests.support.sites import make_site
from tests.support.tarballs import site_content, write_sidecar, write_tarball
from tests.support.waiting import wait_until

OWN = [SidecarKind.DIGEST, SidecarKind.SIGNATURE, SidecarKind.DIGEST_SIGNATURE]
WALL = 1_000_000.0  # time.time() when the monotonic clock shows 0
SETTLE = 2.0
SITE = make_site(Path("/scratch"), verify={"settle": "2s"})
STRICT = make_site(Path("/scratch"), verify={"settle": "2s", "require": "digest"})
SIGNED = make_site(Path("/scratch"), verify={"settle": "2s", "require": "signature"})


def state(changed: float, size: int = 100, inode: int = 7) -> Fingerprint:
    """A file that was last changed when the monotonic clock showed ``changed``."""
    ns = round((WALL + changed) * 1e9)
    return Fingerprint(1, inode, size, ns, ns)


def seen(name: str = "shop.tar.gz", changed: float = 0.0, *, sidecar: float | None = None, size: int = 100) -> Seen:
    return Seen(name, True, state(changed, size), () if sidecar is None else beside(sidecar))


def beside(changed: float, *kinds: SidecarKind) -> tuple[Sidecar, ...]:
    """Sidecars that were last changed then; by default a digest alone."""
    return tuple(Sidecar(kind, state(changed, 80, 8)) for kind in kinds or (SidecarKind.DIGEST,))


def update(arrivals: Arrivals, now: float, *items: Seen, site: Site = SITE, clock_error: float = 0.0) -> list[Upload]:
    return arrivals.update(items, site, now, WALL + now + clock_error)


class TestControlFiles:
    """They wait as tarballs do, for what they have: no digest, and where one is required, a signature."""

    @pytest.mark.parametrize("site", [SITE, STRICT])
    def test_one_is_taken_up_once_it_has_been_quiet(self, site: Site) -> None:
        arrivals = Arrivals({})
        assert update(arrivals, 0.5, seen("rollback"), site=site) == []
        assert "quiet" in arrivals.waiting()["rollback"]
        (upload,) = update(arrivals, 2.0, seen("rollback"), site=site)
        assert upload.file_name == "rollback"

    def test_it_waits_for_its_signature_and_then_for_nothing(self) -> None:
        arrivals = Arrivals({})
        assert update(arrivals, 100.0, seen("rollback@shop"), site=SIGNED) == []
        assert arrivals.waiting()["rollback@shop"] == "waits for its signature rollback@shop.sig"
        item = Seen("rollback@shop", True, state(0.0), beside(100.0, SidecarKind.SIGNATURE))
        (upload,) = update(arrivals, 100.1, item, site=SIGNED)
        assert not upload.is_settled

    def test_only_its_signature_lies_beside_it(self, tmp_path: Path) -> None:
        for name in ("rollback", "rollback.sha256", "rollback.sha256.sig", "rollback.sig", "rollback.live"):
            (tmp_path / name).touch()
        (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  rollback\n")
        (found,) = scan(tmp_path)
        assert found.name == "rollback"
        assert [sidecar.kind for sidecar in found.sidecars] == [SidecarKind.SIGNATURE]


class TestWithoutASidecar:
    def test_an_upload_is_taken_up_once_it_has_been_quiet(self) -> None:
        arrivals = Arrivals({})
        assert update(arrivals, 0.5, seen()) == []
        assert arrivals.next_look == pytest.approx(1.5)
        assert "quiet" in arrivals.waiting()["shop.tar.gz"]
        (upload,) = update(arrivals, 2.0, seen())
        assert upload.is_dropped
        assert upload.is_settled
        assert upload.path == SITE.incoming / "shop.tar.gz"
        assert (upload.fingerprint, upload.sidecars) == (state(0.0), ())

    def test_every_change_begins_the_wait_anew(self) -> None:
        arrivals = Arrivals({})
        for now in (1.0, 2.5, 4.0):
            assert update(arrivals, now, seen(changed=now, size=int(now * 10))) == []
        assert update(arrivals, 5.9, seen(changed=4.0, size=40)) == []
        assert update(arrivals, 6.0, seen(changed=4.0, size=40))

    def test_one_that_has_been_quiet_for_long_is_taken_up_at_the_first_look(self) -> None:
        # As at a start of the daemon.
        assert update(Arrivals({}), 100.0, seen())

    def test_a_time_in_the_future_does_not_keep_it_waiting(self) -> None:
        # The clock of the machine was set back after the upload.
        arrivals = Arrivals({})
        assert update(arrivals, 0.0, seen(changed=9999.0)) == []
        assert arrivals.next_look == pytest.approx(SETTLE)
        assert update(arrivals, 1.9, seen(changed=9999.0)) == []
        assert update(arrivals, 2.0, seen(changed=9999.0))

    def test_it_waits_for_a_sidecar_where_one_is_asked_for(self) -> None:
        arrivals = Arrivals({})
        assert update(arrivals, 100.0, seen(), site=STRICT) == []
        assert arrivals.next_look is None
        assert arrivals.waiting()["shop.tar.gz"] == "waits for its sidecar shop.tar.gz.sha256"
        assert update(arrivals, 101.0, seen(sidecar=100.5), site=STRICT)


class TestWithASidecar:
    def test_it_is_tried_at_once(self) -> None:
        (upload,) = update(Arrivals({}), 0.1, seen(sidecar=0.1))
        assert not upload.is_settled
        assert upload.sidecars == beside(0.1)

    def test_one_that_does_not_match_yet_is_tried_again_when_it_changes(self) -> None:
        arrivals = Arrivals({})
        (upload,) = update(arrivals, 0.1, seen(sidecar=0.1))
        arrivals.put_back(upload, "not yet", 0.2)
        assert update(arrivals, 0.3, seen(sidecar=0.1)) == []
        assert arrivals.waiting()["shop.tar.gz"] == "not yet"
        (upload,) = update(arrivals, 0.4, seen(changed=0.4, size=200, sidecar=0.1))
        assert not upload.is_settled

    def test_one_that_does_not_match_yet_is_final_when_it_has_settled(self) -> None:
        arrivals = Arrivals({})
        (upload,) = update(arrivals, 0.1, seen(sidecar=0.1))
        arrivals.put_back(upload, "not yet", 0.2)
        assert update(arrivals, 2.0, seen(sidecar=0.1)) == []
        assert arrivals.next_look == pytest.approx(0.1)
        (upload,) = update(arrivals, 2.1, seen(sidecar=0.1))
        assert upload.is_settled

    def test_a_sidecar_that_comes_later_has_its_own_quiet_time(self) -> None:
        arrivals = Arrivals({})
        assert update(arrivals, 1.0, seen()) == []
        (upload,) = update(arrivals, 1.5, seen(sidecar=1.5))
        assert not upload.is_settled
        arrivals.put_back(upload, "sidecar-incomplete", 1.6)
        assert update(arrivals, 2.5, seen(sidecar=1.5)) == []
        (upload,) = update(arrivals, 3.5, seen(sidecar=1.5))
        assert upload.is_settled

    def test_one_that_lay_there_for_long_is_final_at_once(self) -> None:
        (upload,) = update(Arrivals({}), 100.0, seen(sidecar=50.0))
        assert upload.is_settled


class TestWithASignature:
    """``require = "signature"``."""

    @pytest.mark.parametrize("kinds", [OWN[1:2], OWN[::2], list(SidecarKind)[3:]], ids=["tarball", "digest", "sums"])
    def test_it_is_tried_at_once(self, kinds: list[SidecarKind]) -> None:
        item = Seen("shop.tar.gz", True, state(0.0), beside(0.1, *kinds))
        (upload,) = update(Arrivals({}), 0.1, item, site=SIGNED)
        assert not upload.is_settled
        assert upload.sidecars == beside(0.1, *kinds)

    @pytest.mark.parametrize("kinds", [[], OWN[:1], list(SidecarKind)[3:4]])
    def test_without_one_it_waits(self, kinds: list[SidecarKind]) -> None:
        arrivals = Arrivals({})
        sidecars = beside(0.1, *kinds) if kinds else ()
        assert update(arrivals, 99.0, Seen("shop.tar.gz", True, state(0.0), sidecars), site=SIGNED) == []
        assert arrivals.waiting()["shop.tar.gz"] == "waits for its signature shop.tar.gz.sig"

    def test_it_waits_for_what_is_signed(self) -> None:
        arrivals = Arrivals({})
        item = Seen("shop.tar.gz", True, state(0.0), beside(0.1, SidecarKind.DIGEST_SIGNATURE))
        assert update(arrivals, 99.0, item, site=SIGNED) == []
        assert "shop.tar.gz.sha256, which" in arrivals.waiting()["shop.tar.gz"]

    def test_where_none_is_asked_for_it_says_nothing_of_a_whole_upload(self) -> None:
        item = Seen("shop.tar.gz", True, state(0.0), beside(0.0, SidecarKind.SIGNATURE))
        assert update(Arrivals({}), 1.0, item) == []
        assert update(Arrivals({}), 2.0, item)

    def test_a_changed_one_is_a_change(self) -> None:
        arrivals = Arrivals({})
        item = Seen("shop.tar.gz", True, state(0.0), beside(0.1, SidecarKind.SIGNATURE))
        (upload,) = update(arrivals, 4.0, item, site=SIGNED)
        arrivals.answer(upload)
        assert update(arrivals, 9.0, item, site=SIGNED) == []
        changed = Seen("shop.tar.gz", True, state(0.0), beside(8.0, SidecarKind.SIGNATURE))
        assert update(arrivals, 9.0, changed, site=SIGNED)


class TestPutBack:
    def test_one_that_somebody_has_open_is_looked_at_again_after_a_while(self) -> None:
        arrivals = Arrivals({})
        (upload,) = update(arrivals, 2.0, seen())
        arrivals.put_back(upload, "still open", 2.0)
        assert update(arrivals, 2.0 + PATIENCE - 0.1, seen()) == []
        assert arrivals.next_look == pytest.approx(0.1)
        assert update(arrivals, 2.0 + PATIENCE, seen())

    def test_one_that_vanished_is_forgotten(self) -> None:
        arrivals = Arrivals({})
        (upload,) = update(arrivals, 2.0, seen())
        update(arrivals, 2.1)
        arrivals.put_back(upload, "vanished", 2.2)
        assert arrivals.waiting() == {}
        assert arrivals.next_look is None


class TestAnswers:
    def test_one_that_was_answered_is_left_alone(self) -> None:
        arrivals = Arrivals({})
        (upload,) = update(arrivals, 2.0, seen())
        arrivals.answer(upload)
        assert update(arrivals, 9999.0, seen()) == []
        assert arrivals.waiting() == {}
        assert arrivals.next_look is None

    @pytest.mark.parametrize(
        "changed",
        [seen(changed=10.0), seen(size=101), seen(sidecar=10.0), Seen("shop.tar.gz", True, state(0.0, inode=9))],
        ids=["touched", "other size", "sidecar came", "replaced"],
    )
    def test_one_that_changed_is_taken_up_again(self, changed: Seen) -> None:
        arrivals = Arrivals({})
        (upload,) = update(arrivals, 2.0, seen())
        arrivals.answer(upload)
        assert update(arrivals, 12.0, changed)

    def test_a_sidecar_that_changed_or_went_is_a_change(self) -> None:
        arrivals = Arrivals({})
        (upload,) = update(arrivals, 4.0, seen(sidecar=1.0))
        arrivals.answer(upload)
        assert update(arrivals, 9.0, seen(sidecar=1.0)) == []
        assert update(arrivals, 9.0, seen(sidecar=8.5))
        assert update(arrivals, 9.0, seen())

    def test_answers_outlive_a_restart(self) -> None:
        assert update(Arrivals({"shop.tar.gz": (state(0.0), ())}), 99.0, seen()) == []
        assert update(Arrivals({"shop.tar.gz": (state(0.0), beside(1.0))}), 99.0, seen())
        assert update(Arrivals({"shop.tar.gz": (None, ())}), 99.0, seen())

    def test_long_names_are_told_apart(self) -> None:
        # Both have the same first 200 characters, at which texts for people are cut.
        arrivals = Arrivals({})
        items = [seen("x" * 220 + f"-{size}.tar.gz", size=size) for size in (1, 2)]
        for upload in update(arrivals, 9.0, *items):
            arrivals.answer(upload)
        assert update(arrivals, 99.0, *items) == []
        # By the name that their record has.
        recorded = {printable(item.name, 4096): item.answer for item in items}
        assert update(Arrivals(recorded), 99.0, *items) == []

    def test_what_is_gone_is_forgotten(self) -> None:
        arrivals = Arrivals({})
        for upload in update(arrivals, 9.0, seen("a.tar"), seen("b.tar"), seen("c\n.tar")):
            arrivals.answer(upload)
        assert sorted(arrivals.forget_absent(["a.tar"])) == ["b.tar", "c\\n.tar"]
        assert arrivals.forget_absent(["a.tar"]) == []
        assert [upload.file_name for upload in update(arrivals, 9.0, seen("a.tar"), seen("b.tar"))] == ["b.tar"]


def test_one_bad_file_holds_up_no_other() -> None:
    arrivals = Arrivals({})
    first, second = update(arrivals, 9.0, seen("bad.tar"), seen("good.tar"))
    arrivals.put_back(first, "still open", 9.0)
    assert [upload.file_name for upload in update(arrivals, 9.1, seen("bad.tar"), seen("good.tar"))] == ["good.tar"]
    arrivals.answer(second)
    assert arrivals.next_look is None or arrivals.next_look > 0
    assert set(arrivals.waiting()) == {"bad.tar"}


def test_what_can_be_no_tarball_is_answered_without_waiting() -> None:
    item = Seen("shop.tar.gz", False, state(0.0))
    assert update(Arrivals({}), 0.0, item, site=STRICT)


@given(st.lists(st.tuples(st.floats(0.01, 3), st.sampled_from(["look", "write", "sidecar", "put back", "answer"]))))
def test_whatever_happens_nothing_is_taken_up_early_or_lost(steps: list[tuple[float, str]]) -> None:
    arrivals = Arrivals({})
    now, item, ready = 0.0, seen(), update(Arrivals({}), 0.0)
    answered = None
    for pause, step in steps:
        now += pause
        if step == "write":
            item = seen(changed=now, size=item.fingerprint.size + 1, sidecar=_sidecar_changed(item))
        elif step == "sidecar":
            item = seen(changed=_changed(item.fingerprint), size=item.fingerprint.size, sidecar=now)
        elif ready and step == "put back":
            arrivals.put_back(ready[0], "", now)
        elif ready and step == "answer":
            arrivals.answer(ready[0])
            answered = ready[0].fingerprint, ready[0].sidecars
        ready = update(arrivals, now, item)
        for upload in ready:
            assert answered != (upload.fingerprint, upload.sidecars)
            assert upload.sidecars or now - _changed(item.fingerprint) >= SETTLE - 1e-6
            assert upload.is_settled == (min(now - c for c in _times(item)) >= SETTLE - 1e-6) or not upload.is_settled
    if answered != item.answer:
        later = now + 2 * PATIENCE
        assert [upload.is_settled for upload in update(arrivals, later, item)] == [True]


def _changed(state: Fingerprint) -> float:
    return state.ctime_ns / 1e9 - WALL


def _sidecar_changed(item: Seen) -> float | None:
    return _changed(item.sidecars[0].fingerprint) if item.sidecars else None


def _times(item: Seen) -> list[float]:
    return [_changed(item.fingerprint), *(_changed(sidecar.fingerprint) for sidecar in item.sidecars)]


class TestScan:
    def test_what_asks_for_an_answer_comes_oldest_first(self, tmp_path: Path) -> None:
        before = 0
        for name in ("c.tar", "a.tar", "b.tar"):

            def is_later(path: Path = tmp_path / name, before: int = before) -> bool:
                # Whatever the uploader says of the time: scp -p, rsync -t and cp -p keep that of the original.
                path.write_text(path.name)
                os.utime(path, ns=(0, ord(path.name[0]) * 10**9))
                return path.stat().st_ctime_ns > before  # the kernel's clock for files goes in steps of milliseconds

            wait_until(is_later, "the next tick")
            before = (tmp_path / name).stat().st_ctime_ns
        assert [item.name for item in scan(tmp_path)] == ["c.tar", "a.tar", "b.tar"]

    def test_markers_sidecars_and_unfinished_files_ask_for_none(self, tmp_path: Path) -> None:
        hidden = [
            ".shop.tar.gz.X1b2",
            ".in.shop.tar.gz",
            "shop.tar.gz.part",
            "shop.tar.gz.filepart",
            "x.tmp",
            "x.tar.gz~",
        ]
        sidecars = ["shop.tar.gz.sha256", "lonely.tar.gz.sha256", "shop.tar.gz.sig"]
        markers = [f"shop.tar.gz.{o}" for o in ("pending", "live", "unchanged", "rejected", "failed", "rolled-back")]
        for name in (*hidden, *sidecars, *markers, "shop.tar.gz"):
            (tmp_path / name).touch()
        (item,) = scan(tmp_path)
        assert item.name == "shop.tar.gz"
        found = {sidecar.kind: sidecar.fingerprint.inode for sidecar in item.sidecars}
        assert found == {kind: (tmp_path / kind.file_name("shop.tar.gz")).stat().st_ino for kind in OWN[:2]}

    def test_a_list_of_digests_is_a_sidecar_of_what_it_lists(self, tmp_path: Path) -> None:
        for name in ("a.tar", "b.tar", "c.tar"):
            (tmp_path / name).touch()
        (tmp_path / "b.tar.sha256").touch()
        (tmp_path / "SHA256SUMS").write_text(f"{'a' * 64}  a.tar\n{'b' * 64}  b.tar\n")
        (tmp_path / "SHA256SUMS.sig").touch()
        found = {item.name: [sidecar.kind for sidecar in item.sidecars] for item in scan(tmp_path)}
        assert found == {
            "a.tar": [SidecarKind.SUMS, SidecarKind.SUMS_SIGNATURE],
            "b.tar": [SidecarKind.DIGEST],
            "c.tar": [],
        }

    def test_a_list_of_digests_that_is_a_trap_lists_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar").touch()
        os.mkfifo(tmp_path / "SHA256SUMS")
        (item,) = scan(tmp_path)
        assert (item.name, item.sidecars) == ("a.tar", ())

    def test_strange_things_are_seen_and_not_opened(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo.tar")
        (tmp_path / "link.tar").symlink_to("/dev/zero")
        (tmp_path / "directory.tar").mkdir()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "socket.tar"))
        (tmp_path / "new\nline\udcff.tar").touch()
        found = {item.name: item.is_regular for item in scan(tmp_path)}
        assert found == {
            "fifo.tar": False,
            "link.tar": False,
            "directory.tar": False,
            "socket.tar": False,
            "new\nline\udcff.tar": True,
        }

    def test_a_directory_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            scan(tmp_path / "missing")


@pytest.mark.root
@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs FUSE")
def test_a_mount_of_an_uploaders_holds_up_no_other_file(tmp_path: Path) -> None:
    """Not even root may look at it; the kernel says so of the very name."""
    write_tarball(tmp_path / "shop.tar.gz", site_content("one"))
    with fuse(tmp_path / "mount.tar.gz", uid=12345) as mount:
        with pytest.raises(PermissionError):
            mount.stat()
        assert "shop.tar.gz" in {seen.name for seen in scan(tmp_path)}


def test_a_look_at_a_real_directory(tmp_path: Path) -> None:
    site = make_site(tmp_path, verify={"settle": "1h"})
    site.incoming.mkdir(parents=True)
    arrivals = Arrivals({})
    assert look(arrivals, site)[:2] == ([], None)
    tarball = write_tarball(site.incoming / "shop.tar.gz", site_content("one"))
    ready, again = look(arrivals, site)[:2]
    assert ready == []
    assert again is not None
    assert 3500 < again <= 3600
    write_sidecar(tarball)
    (upload,) = look(arrivals, site)[0]
    assert not upload.is_settled
    arrivals.answer(upload)
    assert look(arrivals, site)[:2] == ([], None)
    os.utime(tarball)
    assert [again.path for again in look(arrivals, site)[0]] == [tarball]
    tarball.unlink()
    assert look(arrivals, site)[:2] == ([], None)
    assert arrivals.waiting() == {}


def test_where_the_times_are_another_machines_quiet_is_counted_from_the_first_look(tmp_path: Path) -> None:
    """Its clock may be slow, and what is written there this very moment look old."""
    site = make_site(tmp_path, verify={"settle": "300ms"})
    site.incoming.mkdir(parents=True)
    write_tarball(site.incoming / "shop.tar.gz", site_content("one"))
    wait_until(lambda: look(Arrivals({}), site)[0], "it to be quiet for long")
    arrivals = Arrivals({})
    assert look(arrivals, site, is_remote=True)[0] == []
    wait_until(lambda: look(arrivals, site, is_remote=True)[0], "it to be quiet while it is looked at")

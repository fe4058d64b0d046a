"""The marker beside a tarball, in a directory where others plant what they like."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swapd.host.files import fingerprint
from swapd.model.record import Deployment, Marker, now
from swapd.model.release import (
    DeploymentId,
    Digest,
    ListenerQueue,
    Outcome,
    PauseCost,
    ReleaseId,
    Sidecar,
    SidecarKind,
    SiteName,
)
from swapd.stages import mark
from swapd.stages.mark import (
    describe,
    is_marker,
    marker_base,
    remove_markers,
    remove_old_markers,
    remove_pending_marker,
    remove_stale_marker,
    remove_sums,
    remove_upload,
    sweep_markers,
    write_marker,
)
from tests.support.sites import read_markers
from tests.support.tarballs import write_sidecar

SHOP = SiteName("shop")
RELEASE = ReleaseId("shop-42@9f86d081884c")
NAME = "shop-42.tar.gz"


def marker(outcome: Outcome = Outcome.LIVE, **more: Any) -> Marker:
    return Marker(outcome, more.pop("reason", "a reason"), SHOP, now(), **more)


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory))


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_marker_is_named_by_its_state(tmp_path: Path, outcome: Outcome) -> None:
    write_marker(tmp_path, NAME, marker(outcome))
    assert names(tmp_path) == {f"{NAME}.{outcome.value}"}
    assert (tmp_path / f"{NAME}.{outcome.value}").stat().st_mode & 0o777 == 0o644


def test_a_tarball_has_one_marker_at_a_time(tmp_path: Path) -> None:
    for outcome in [*Outcome, *reversed(Outcome)]:
        write_marker(tmp_path, NAME, marker(outcome))
        assert names(tmp_path) == {f"{NAME}.{outcome.value}"}
    # Markers of others are nobody's business.
    write_marker(tmp_path, "other.tar.gz", marker(Outcome.FAILED))
    write_marker(tmp_path, NAME, marker(Outcome.REJECTED))
    assert names(tmp_path) == {"other.tar.gz.failed", f"{NAME}.rejected"}


def test_a_marker_says_all_that_is_known(tmp_path: Path) -> None:
    ended = now()
    deployment = Deployment(
        DeploymentId("0f580de4-d623-42a3-9f23-321ecc10983a"),
        SHOP,
        Outcome.REJECTED,
        ended,
        file_name=NAME,
        release=RELEASE,
        digest=Digest("9f86d081884c" + "0" * 52),
        signer="alice",
        ended=ended,
        problem="bad-sidecar",
        reason='it says "no"\nand more: ä€😀 \\ ',
        hint="Make it anew.",
        pause=PauseCost(920, 4, (ListenerQueue("0.0.0.0:80", 3, 511),), 0, 1),
    )
    write_marker(tmp_path, NAME, describe(deployment))
    document = tomllib.loads((tmp_path / f"{NAME}.rejected").read_text("utf-8"))
    assert document["at"] >= ended
    del document["at"]
    assert document == {
        "version": 1,
        "outcome": "rejected",
        "reason": deployment.reason,
        "hint": "Make it anew.",
        "problem": "bad-sidecar",
        "site": "shop",
        "release": RELEASE,
        "deployment": deployment.id,
        "digest": deployment.digest,
        "signer": "alice",
        "started": ended,
        "ended": ended,
        "pause_usec": 920,
        "pause": {
            "duration_usec": 920,
            "processes": 4,
            "queues": [{"listener": "0.0.0.0:80", "queued": 3, "limit": 511}],
            "overflowed": 0,
            "dropped": 1,
        },
    }


class TestPlanted:
    """What stands under a marker's name is replaced, and never followed."""

    @pytest.mark.parametrize("suffix", ["live", "pending", "failed"])
    def test_a_link(self, tmp_path: Path, suffix: str) -> None:
        victim, incoming = tmp_path / "victim", tmp_path / "incoming"
        victim.write_text("precious")
        incoming.mkdir()
        (incoming / f"{NAME}.{suffix}").symlink_to(victim)
        write_marker(incoming, NAME, marker())
        assert victim.read_text() == "precious"
        assert names(incoming) == {f"{NAME}.live"}
        assert not (incoming / f"{NAME}.live").is_symlink()
        assert read_markers(incoming)[f"{NAME}.live"]["outcome"] == "live"

    @pytest.mark.parametrize("suffix", ["live", "pending"])
    def test_a_fifo(self, tmp_path: Path, suffix: str) -> None:
        os.mkfifo(tmp_path / f"{NAME}.{suffix}")
        write_marker(tmp_path, NAME, marker())
        assert names(tmp_path) == {f"{NAME}.live"}
        assert read_markers(tmp_path)

    def test_a_file_that_may_not_be_written(self, tmp_path: Path) -> None:
        (tmp_path / f"{NAME}.live").write_text("not TOML")
        (tmp_path / f"{NAME}.live").chmod(0)
        write_marker(tmp_path, NAME, marker())
        assert read_markers(tmp_path)[f"{NAME}.live"]["reason"] == "a reason"

    def test_a_directory_under_its_own_name(self, tmp_path: Path) -> None:
        # Nothing of it is removed, and no temporary file stays; whoever made it has no marker.
        (tmp_path / f"{NAME}.live").mkdir()
        (tmp_path / f"{NAME}.live/kept").touch()
        with pytest.raises(OSError, match="directory"):
            write_marker(tmp_path, NAME, marker())
        assert names(tmp_path) == {f"{NAME}.live"}
        assert (tmp_path / f"{NAME}.live/kept").exists()

    def test_a_directory_under_the_name_of_another_state(self, tmp_path: Path) -> None:
        (tmp_path / f"{NAME}.failed").mkdir()
        write_marker(tmp_path, NAME, marker())
        assert (tmp_path / f"{NAME}.live").is_file()

    def test_a_link_instead_of_the_upload(self, tmp_path: Path) -> None:
        (tmp_path / NAME).write_text("one")
        claimed = fingerprint((tmp_path / NAME).stat())
        (tmp_path / NAME).rename(tmp_path / "elsewhere")
        (tmp_path / NAME).symlink_to("elsewhere")
        remove_upload(tmp_path, NAME, claimed, ())
        assert names(tmp_path) == {NAME, "elsewhere"}

    @pytest.mark.timeout(60)  # a reader of TOML takes half a minute for each of the dotted ones
    def test_markers_that_are_traps_are_no_old_markers(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo.live")
        (tmp_path / "link.live").symlink_to("/dev/zero")
        (tmp_path / "directory.live").mkdir()
        (tmp_path / "binary.live").write_bytes(b"\xff\x00")
        (tmp_path / "number.live").write_text("release = 3")
        (tmp_path / "half.live").write_text('release = "shop')
        (tmp_path / "nested.live").write_text("release = " + "[" * 60_000)
        (tmp_path / "long.live").write_text("release = " + "1" * 60_000)
        for number in range(10):
            (tmp_path / f"dotted{number}.live").write_text("a." * 30_000 + 'release = "x"')
        before = names(tmp_path)
        remove_old_markers(tmp_path, set())
        assert names(tmp_path) == before

    def test_temporary_names_that_are_traps_stop_no_sweep(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        victim, incoming = tmp_path / "victim", tmp_path / "incoming"
        victim.touch()
        (incoming / ".swapd-1").mkdir(parents=True)
        (incoming / ".swapd-2").symlink_to(victim)
        (incoming / ".swapd-3").touch()
        monkeypatch.setattr(mark, "SWEPT_AGE", -1.0)  # the time of the last change cannot be set
        sweep_markers(incoming)
        assert names(incoming) <= {".swapd-1"}
        assert victim.exists()


class TestNames:
    @settings(max_examples=60)
    @given(st.binary(min_size=1, max_size=255).filter(lambda name: b"/" not in name and b"\0" not in name))
    def test_every_file_name_can_have_a_marker(self, name: bytes) -> None:
        base = marker_base(os.fsdecode(name))
        longest = max(len(os.fsencode(f"{base}.{outcome.value}")) for outcome in Outcome)
        assert longest <= 255
        assert is_marker(f"{base}.live")

    @pytest.mark.parametrize(
        "name", ["new\nline.tar", "\udcff\udcfe.tar", "ä" * 127, "x" * 255, "-rf", " ", "\x1b[2J.tar", "\udcff" * 255]
    )
    def test_strange_names(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).touch()
        write_marker(tmp_path, name, marker(Outcome.PENDING))
        write_marker(tmp_path, name, marker(Outcome.REJECTED))
        (found,) = names(tmp_path) - {name}
        assert found.endswith(".rejected")
        remove_stale_marker(tmp_path, name)
        assert names(tmp_path) == {name}

    def test_long_names_have_markers_of_their_own(self, tmp_path: Path) -> None:
        for last in "ab":
            write_marker(tmp_path, "x" * 254 + last, marker())
        assert len(names(tmp_path)) == 2

    def test_a_name_with_room_for_the_suffix_is_kept_whole(self) -> None:
        assert marker_base("x" * 243) == "x" * 243


class TestRemoval:
    def put(self, incoming: Path) -> tuple[Any, Any]:
        """A tarball with both sidecars; the state of the tarball, and the digest's sidecar as it was seen."""
        (incoming / NAME).write_text("one")
        sidecar = write_sidecar(incoming / NAME)
        (incoming / f"{NAME}.sig").write_text("signature")
        return fingerprint((incoming / NAME).stat()), (Sidecar(SidecarKind.DIGEST, fingerprint(sidecar.stat())),)

    def test_a_tarball_that_is_live_goes_with_its_sidecars(self, tmp_path: Path) -> None:
        states = self.put(tmp_path)
        (tmp_path / "other.tar.gz").touch()
        write_marker(tmp_path, NAME, marker())
        remove_upload(tmp_path, NAME, *states)
        assert names(tmp_path) == {f"{NAME}.live", "other.tar.gz"}
        remove_upload(tmp_path, NAME, *states)  # it is gone already

    def test_what_was_uploaded_since_stays(self, tmp_path: Path) -> None:
        states = self.put(tmp_path)
        (tmp_path / ".next").write_text("two")
        os.rename(tmp_path / ".next", tmp_path / NAME)
        remove_upload(tmp_path, NAME, *states)
        # The sidecars that were seen are the old tarball's: with them, the new one would be a digest-mismatch.
        assert names(tmp_path) == {NAME}
        assert (tmp_path / NAME).read_text() == "two"

    def test_a_sidecar_that_came_since_stays(self, tmp_path: Path) -> None:
        tarball, sidecar = self.put(tmp_path)
        (tmp_path / f"{NAME}.sha256").unlink()
        (tmp_path / f"{NAME}.sha256").write_text("of the next tarball")
        remove_upload(tmp_path, NAME, tarball, sidecar)
        assert names(tmp_path) == {f"{NAME}.sha256"}

    def test_a_signature_that_was_seen_goes_and_its_successor_stays(self, tmp_path: Path) -> None:
        tarball, _ = self.put(tmp_path)
        signature = tmp_path / f"{NAME}.sig"
        seen = (Sidecar(SidecarKind.SIGNATURE, fingerprint(signature.stat())),)
        (tmp_path / ".next").write_text("signature of the next")
        os.rename(tmp_path / ".next", signature)
        remove_upload(tmp_path, NAME, tarball, seen)
        assert names(tmp_path) == {f"{NAME}.sha256", f"{NAME}.sig"}
        seen = (Sidecar(SidecarKind.SIGNATURE, fingerprint(signature.stat())),)
        remove_upload(tmp_path, NAME, tarball, seen)
        assert names(tmp_path) == {f"{NAME}.sha256"}

    def test_a_list_of_digests_goes_after_the_last_tarball_that_it_lists(self, tmp_path: Path) -> None:
        listed = {"a.tar.gz": "a" * 64, "b.tar.gz": "b" * 64}
        lines = [f"{digest}  {name}\n" for name, digest in listed.items()]
        (tmp_path / "SHA256SUMS").write_text("".join(lines) + "c" * 64 + "  README\n")
        (tmp_path / "SHA256SUMS.sig").touch()
        (tmp_path / "b.tar.gz").touch()
        remove_sums(tmp_path, lambda _: True)
        assert names(tmp_path) == {"SHA256SUMS", "SHA256SUMS.sig", "b.tar.gz"}
        (tmp_path / "b.tar.gz").unlink()
        asked = []
        remove_sums(tmp_path, lambda digests: bool(asked.append(digests)))
        assert asked == [set(listed.values())]
        assert names(tmp_path) == {"SHA256SUMS", "SHA256SUMS.sig"}, "the other one is still to come"
        remove_sums(tmp_path, lambda _: True)
        assert names(tmp_path) == set()
        remove_sums(tmp_path, lambda _: True)  # it is gone already

    def test_a_pending_marker_goes_with_its_tarball(self, tmp_path: Path) -> None:
        write_marker(tmp_path, NAME, marker(Outcome.PENDING))
        remove_pending_marker(tmp_path, NAME)
        assert names(tmp_path) == set()
        write_marker(tmp_path, NAME, marker(Outcome.FAILED))
        remove_pending_marker(tmp_path, NAME)
        assert names(tmp_path) == {f"{NAME}.failed"}

    def test_markers_of_releases_that_are_not_kept_go(self, tmp_path: Path) -> None:
        for number, outcome in enumerate(Outcome):
            write_marker(tmp_path, f"{number}.tar", marker(outcome, release=ReleaseId(f"{number}@0123456789ab")))
        write_marker(tmp_path, "kept.tar", marker(Outcome.LIVE, release=RELEASE))
        write_marker(tmp_path, "unknown.tar", marker(Outcome.LIVE))
        remove_old_markers(tmp_path, {RELEASE})
        outcomes = {name.rpartition(".")[2] for name in names(tmp_path) if name[0].isdigit()}
        assert outcomes == {"pending", "rejected", "failed", "rolled-back"}
        assert {"kept.tar.live", "unknown.tar.live"} <= names(tmp_path)

    def test_the_markers_of_a_release_go_with_it(self, tmp_path: Path) -> None:
        other = ReleaseId("shop-42@0123456789ab")
        for name in ("shop-42.tar.gz", "rollback", f"rollback@{RELEASE}"):
            write_marker(tmp_path, name, marker(Outcome.LIVE, release=RELEASE))
        write_marker(tmp_path, "shop-42.tgz", marker(Outcome.UNCHANGED, release=RELEASE))
        write_marker(tmp_path, "shop-42.tar.xz", marker(Outcome.REJECTED, release=RELEASE))
        write_marker(tmp_path, "shop-42.tar.zst", marker(Outcome.LIVE, release=other))
        (tmp_path / "shop-42.tar.live").symlink_to("rollback.live")
        remove_markers(tmp_path, [RELEASE])
        assert names(tmp_path) == {"shop-42.tar.xz.rejected", "shop-42.tar.zst.live", "shop-42.tar.live"}
        remove_markers(tmp_path, [RELEASE, other])
        assert names(tmp_path) == {"shop-42.tar.xz.rejected", "shop-42.tar.live"}

    def test_a_list_of_digests_of_what_no_file_can_be_called(self, tmp_path: Path) -> None:
        lines = [b"a" * 64 + b"  " + name + b".tar\n" for name in (b"x" * 300, b"nul\0", b"\xff", b"a")]
        (tmp_path / "SHA256SUMS").write_bytes(b"".join(lines))
        (tmp_path / "a.tar").symlink_to("nowhere")
        remove_sums(tmp_path, lambda _: True)
        assert names(tmp_path) == {"SHA256SUMS", "a.tar"}
        (tmp_path / "a.tar").unlink()
        remove_sums(tmp_path, lambda _: True)
        assert names(tmp_path) == set()

    def test_a_sweep_takes_only_what_is_old(self, tmp_path: Path) -> None:
        (tmp_path / ".swapd-0123").touch()
        (tmp_path / NAME).touch()
        sweep_markers(tmp_path)
        assert names(tmp_path) == {".swapd-0123", NAME}

    def test_a_sweep_passes_by_what_nobody_can_link_or_remove(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As any uploader can make it."""
        monkeypatch.setattr(mark, "SWEPT_AGE", -1.0)
        (tmp_path / ".swapd-a~aside~b").mkdir()
        (tmp_path / ".swapd-c").mkdir()
        (tmp_path / ".swapd-d~aside~e").write_text("an upload that a crash left aside")
        (tmp_path / ".swapd-f~aside~").symlink_to("nowhere")
        (tmp_path / ".swapd-g").touch()
        sweep_markers(tmp_path)
        assert names(tmp_path) == {".swapd-a~aside~b", ".swapd-c", ".swapd-f~aside~", "e"}


def test_a_drop_directory_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_marker(tmp_path / "missing", NAME, marker())


def test_a_marker_that_finds_no_room_leaves_nothing(tmp_path: Path) -> None:
    # A name of which the temporary one can be made, and the last one cannot.
    with pytest.raises(OSError, match=r"Not a directory|No such file"):
        write_marker(tmp_path, f"missing/{NAME}", marker())
    assert names(tmp_path) == set()

"""Control files: what somebody with nothing but scp or sftp does to roll back, and is told."""

from __future__ import annotations

import os
import pwd
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from swapd.model.record import Kind
from swapd.model.release import Outcome
from tests.support.signing import Key
from tests.support.sites import Scratch, leftovers
from tests.support.tarballs import drop, release_of, site_content, touch, write_tarball
from tests.support.trees import texts
from tests.support.waiting import wait_until

Plot = Callable[..., Scratch]


class Shop:
    """A site of the module's daemon, with the releases shop-1 to shop-3 deployed."""

    def __init__(self, scratch: Scratch, tarballs: list[Path]) -> None:
        self.scratch = scratch
        self.tarballs = tarballs
        scratch.deploy(*tarballs)

    def id(self, number: int) -> str:
        return release_of(self.tarballs[number - 1])

    def ask(self, name: str = "rollback", content: str = "") -> Path:
        """As a client does that writes in place."""
        path = self.scratch.incoming / name
        path.write_text(content)
        return path

    def wait(self, marker: str) -> dict[str, object]:
        return self.scratch.wait_marker(marker)

    def check_live(self, number: int) -> None:
        assert texts(self.scratch.live()) == site_content(f"release {number}")
        live = self.scratch.state().live
        assert live is not None
        assert live.release == self.id(number)

    def files(self) -> list[str]:
        return sorted(os.listdir(self.scratch.incoming))

    def wait_files(self, *names: str) -> None:
        wait_until(lambda: self.files() == sorted(names), f"{names}; there: {self.files()}")


@pytest.fixture(scope="module")
def tarballs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("tarballs")
    return [write_tarball(place / f"shop-{it}.tar.gz", site_content(f"release {it}")) for it in (1, 2, 3)]


@pytest.fixture
def shop(plot: Plot, tarballs: list[Path]) -> Shop:
    return Shop(plot(), tarballs)


@pytest.fixture(scope="module")
def alice(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("keys") / "alice")


@pytest.fixture
def signed(plot: Plot, tarballs: list[Path], tmp_path: Path, alice: Key) -> Shop:
    """Where a signature is required; with one there is nothing to wait for: ``settle`` is an hour."""
    signers = tmp_path / "allowed_signers"
    signers.write_text(alice.line("alice@example.com"))
    scratch = plot()
    shop = Shop(scratch, tarballs)
    scratch.configure(settle="1h", verify={"require": "signature", "allowed_signers": str(signers)})
    scratch.daemon.reload()
    return shop


def send(shop: Shop, key: Key, content: str, name: str = "rollback") -> None:
    """Signed, as the hints of the markers say; the signature comes first."""
    request = shop.scratch.root / name
    request.write_text(content)
    drop(key.sign_file(request), shop.scratch.incoming)
    drop(request, shop.scratch.incoming)


def test_an_empty_file_brings_back_the_release_before(shop: Shop) -> None:
    shop.ask()
    marker = shop.wait("rollback.live")
    shop.wait_files("rollback.live")
    shop.check_live(2)
    record, *_ = shop.scratch.deployments()
    assert (record.kind, record.outcome, record.is_dropped) == (Kind.ROLLBACK, Outcome.LIVE, True)
    assert record.uploader == pwd.getpwuid(os.getuid()).pw_name
    assert (marker["outcome"], marker["release"], marker["deployment"]) == ("live", shop.id(2), record.id)
    assert shop.id(3) in str(marker["reason"])
    assert shop.scratch.state().bad == (shop.id(3),)
    assert leftovers(shop.scratch.releases()) == []
    shop.scratch.daemon.wait_status(f"{shop.id(2)} live since")
    log = shop.scratch.daemon.log()
    assert log.count(f"{shop.id(2)} is live again") == 1


def test_one_that_is_named(shop: Shop) -> None:
    shop.ask("rollback@shop-1")
    shop.wait("rollback@shop-1.live")
    shop.check_live(1)
    shop.ask(f"rollback@{shop.id(2)}")
    shop.wait(f"rollback@{shop.id(2)}.live")
    shop.check_live(2)


def test_one_after_the_other_goes_further_back(shop: Shop) -> None:
    for number in (2, 1):
        shop.ask()
        wait_until(lambda number=number: release(shop) == shop.id(number), f"release {number}")  # type: ignore[misc]
        shop.wait_files("rollback.live")
    shop.ask()
    marker = shop.wait("rollback.failed")
    assert marker["problem"] == "nothing-kept"
    shop.wait_files("rollback", "rollback.failed")
    shop.check_live(1)


def release(shop: Shop) -> str:
    live = shop.scratch.state().live
    return live.release if live else ""


def test_what_is_live_already(shop: Shop) -> None:
    inode = shop.scratch.live().stat().st_ino
    shop.ask("rollback@shop-3")
    shop.wait("rollback@shop-3.unchanged")
    shop.wait_files("rollback@shop-3.unchanged")
    assert shop.scratch.live().stat().st_ino == inode


def test_what_is_not_kept_is_rejected_until_it_changes(shop: Shop) -> None:
    upload = shop.ask("rollback@shop-9")
    marker = shop.wait("rollback@shop-9.rejected")
    assert marker["problem"] == "unknown-release"
    assert all(shop.id(number) in str(marker["hint"]) for number in (1, 2, 3))
    shop.check_live(3)
    count = len(shop.scratch.deployments())
    # It holds up nobody, and is not looked at again as it is.
    shop.ask("rollback@shop-2")
    shop.wait("rollback@shop-2.live")
    assert len(shop.scratch.deployments()) == count + 1
    touch(upload)
    wait_until(lambda: len(shop.scratch.deployments()) == count + 2, "another look at it")
    upload.unlink()
    shop.wait_files("rollback@shop-2.live")


def test_one_that_was_made_for_another_release(shop: Shop) -> None:
    """Sent twice, it rolls back once."""
    shop.ask(content=f"{shop.id(3)}\n")
    shop.wait("rollback.live")
    shop.check_live(2)
    shop.ask(content=f"{shop.id(3)}\n")
    marker = shop.wait("rollback.rejected")
    assert marker["problem"] == "not-live"
    assert shop.id(2) in str(marker["reason"])
    shop.check_live(2)


def test_its_turn_is_that_of_its_time(shop: Shop, tmp_path: Path) -> None:
    """A tarball that was there before it is live first, and is what is rolled back from."""
    four = write_tarball(tmp_path / "shop-4.tar.gz", site_content("release 4"))
    arrived = drop(four, shop.scratch.incoming).stat().st_ctime_ns
    # The kernel's clock for files goes in steps.
    wait_until(lambda: touch(tmp_path / "clock") or (tmp_path / "clock").stat().st_ctime_ns > arrived, "the next tick")
    shop.ask()
    shop.wait("rollback.live")
    shop.check_live(3)
    assert [item.kind for item in shop.scratch.deployments()][:2] == [Kind.ROLLBACK, Kind.DEPLOYMENT]
    assert shop.scratch.state().bad == (release_of(four),)


def test_a_slow_upload_waits_until_it_is_closed(shop: Shop) -> None:
    with (shop.scratch.incoming / "rollback").open("w") as upload:
        upload.write("sho")
        upload.flush()
        shop.wait("rollback.pending")
        wait_until(lambda: "open" in shop.scratch.markers()["rollback.pending"]["reason"], "the reason to wait")
        upload.write("p-9\n")
    shop.wait("rollback.live")
    shop.check_live(2)


HOSTILE = ["directory", "link", "FIFO", "link to nowhere"]


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_regular_file_holds_up_nobody(shop: Shop, kind: str, tmp_path: Path) -> None:
    place = shop.scratch.incoming / "rollback"
    match kind:
        case "directory":
            place.mkdir()
        case "FIFO":
            os.mkfifo(place)
        case "link":
            (tmp_path / "target").write_text("")
            place.symlink_to(tmp_path / "target")
        case _:
            place.symlink_to("nowhere")
    shop.ask("rollback@shop-2")
    shop.wait("rollback@shop-2.live")
    assert shop.wait("rollback.rejected")["problem"] == "not-a-regular-file"
    shop.check_live(2)
    assert os.path.lexists(place)


@pytest.mark.parametrize("name", ["rollback@\n", "rollback@\x1b[2J", "rollback@" + "x" * 240])
def test_names_that_no_release_has(shop: Shop, name: str) -> None:
    shop.ask(name)
    wait_until(lambda: [marker["problem"] for marker in shop.scratch.markers().values()] == ["unknown-release"], "it")
    assert all(line.isprintable() for line in shop.scratch.daemon.log().splitlines())


def test_a_tarball_may_be_called_so(shop: Shop, tmp_path: Path) -> None:
    drop(write_tarball(tmp_path / "rollback.tar.gz", site_content("a tarball")), shop.scratch.incoming)
    shop.wait("rollback.tar.gz.live")
    assert texts(shop.scratch.live()) == site_content("a tarball")


class TestSigned:
    def test_it_waits_for_its_signature(self, signed: Shop, alice: Key) -> None:
        upload = signed.ask(content=f"{signed.id(3)}\n")
        wait_until(
            lambda: (
                signed.scratch.markers().get("rollback.pending", {}).get("reason")
                == "waits for its signature rollback.sig"
            ),
            "the reason to wait",
        )
        shutil.copy(upload, signed.scratch.root / "rollback")
        drop(alice.sign_file(signed.scratch.root / "rollback"), signed.scratch.incoming)
        marker = signed.wait("rollback.live")
        assert marker["signer"] == "alice@example.com"
        signed.wait_files("rollback.live")
        signed.check_live(2)
        assert signed.scratch.deployments()[0].signer == "alice@example.com"

    def test_it_has_to_say_what_it_rolls_back_from(self, signed: Shop, alice: Key) -> None:
        send(signed, alice, "")
        marker = signed.wait("rollback.rejected")
        assert marker["problem"] == "not-bound"
        # The hint is what would do.
        assert f"echo '{signed.id(3)}' > rollback; " in str(marker["hint"])
        send(signed, alice, f"{signed.id(3)}\n")
        signed.wait("rollback.live")
        signed.check_live(2)

    def test_and_to_what_where_its_name_says_so(self, signed: Shop, alice: Key) -> None:
        """Else whoever may upload could have a signed one lead anywhere by another name."""
        send(signed, alice, f"{signed.id(3)}\n", "rollback@shop-1")
        marker = signed.wait("rollback@shop-1.rejected")
        assert marker["problem"] == "not-bound"
        name, line = f"rollback@{signed.id(1)}", f"{signed.id(3)} {signed.id(1)}"
        assert f"echo '{line}' > {name}; " in str(marker["hint"])
        send(signed, alice, f"{line}\n", name)
        signed.wait(f"{name}.live")
        signed.check_live(1)

    def test_by_somebody_who_may_not(self, signed: Shop, tmp_path: Path) -> None:
        send(signed, Key(tmp_path / "mallory"), f"{signed.id(3)}\n")
        assert signed.wait("rollback.rejected")["problem"] == "unknown-key"
        signed.check_live(3)

    def test_one_that_was_kept_is_good_for_nothing(self, signed: Shop, alice: Key) -> None:
        scratch, line = signed.scratch, f"{signed.id(3)}\n"
        send(signed, alice, line)
        signed.wait("rollback.live")
        kept = [(scratch.root / name).read_bytes() for name in ("rollback", "rollback.sig")]

        def replay() -> dict[str, object]:
            for name, content in zip(("rollback.sig", "rollback"), reversed(kept), strict=True):
                (scratch.incoming / name).write_bytes(content)
            return signed.wait("rollback.rejected")

        assert replay()["problem"] == "not-live"
        for name in ("rollback", "rollback.sig"):
            (scratch.incoming / name).unlink()
        signed.wait_files()
        # Not even when that release is live again.
        assert scratch.run("rollback", scratch.site, "shop-3").returncode == 0
        marker = replay()
        assert marker["problem"] == "replayed"
        signed.check_live(3)
        # And its signer is told how to mean it once more.
        line = str(marker["hint"]).partition("echo '")[2].partition("'")[0]
        send(signed, alice, f"{line}\n")
        signed.wait("rollback.live")
        signed.check_live(2)

    def test_root_needs_none(self, signed: Shop) -> None:
        assert signed.scratch.run("rollback", signed.scratch.site).returncode == 0
        signed.check_live(2)


def test_after_a_restart_nothing_is_answered_twice(scratch: Scratch, tarballs: list[Path]) -> None:
    scratch.add_site()
    shop = Shop(scratch, tarballs)
    daemon = scratch.start_daemon()
    shop.ask("rollback@shop-9")
    shop.ask("rollback")
    shop.wait("rollback.live")
    shop.wait("rollback@shop-9.rejected")
    shop.wait_files("rollback.live", "rollback@shop-9", "rollback@shop-9.rejected")
    count = len(scratch.deployments())
    daemon.stop()
    scratch.start_daemon()
    drop(tarballs[0], scratch.incoming)
    shop.wait("shop-1.tar.gz.live")
    assert len(scratch.deployments()) == count + 1
    marker = tomllib.loads((scratch.incoming / "rollback@shop-9.rejected").read_text())
    assert marker["problem"] == "unknown-release"

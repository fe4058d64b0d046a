"""Who may deploy, and proof of it: signed tarballs through the daemon."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from swapd.model.release import Outcome
from tests.support.signing import Key
from tests.support.sites import Scratch, leftovers
from tests.support.tarballs import digest_of, drop, pack, release_of, site_content, touch, write_sidecar, write_tarball
from tests.support.trees import texts
from tests.support.waiting import wait_until

Plot = Callable[..., Scratch]
NAME = "shop-1.tar.gz"
ONE, TWO = site_content("one"), site_content("two")


@pytest.fixture(scope="module")
def alice(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("keys") / "alice")


@pytest.fixture
def signers(tmp_path: Path, alice: Key) -> Path:
    path = tmp_path / "allowed_signers"
    path.write_text(alice.line("alice@example.com"))
    return path


@pytest.fixture
def signed(plot: Plot, signers: Path) -> Scratch:
    """A site that requires a signature. With one there is nothing to wait for: ``settle`` is an hour."""
    return plot(settle="1h", verify={"require": "signature", "allowed_signers": str(signers)})


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_tarball(tmp_path / NAME, ONE)


def files(scratch: Scratch) -> list[str]:
    return sorted(os.listdir(scratch.incoming))


def test_a_signature_after_its_tarball(signed: Scratch, alice: Key, one: Path) -> None:
    drop(one, signed.incoming)
    wait_until(
        lambda: signed.markers().get(f"{NAME}.pending", {}).get("reason") == f"waits for its signature {NAME}.sig",
        "the reason to wait",
    )
    alice.sign_file(one)
    drop(one.with_name(f"{NAME}.sig"), signed.incoming)
    marker = signed.wait_marker(f"{NAME}.live")
    assert marker["signer"] == "alice@example.com"
    wait_until(lambda: files(signed) == [f"{NAME}.live"], "the signature to go with its tarball")
    (record,) = signed.deployments()
    assert (record.outcome, record.signer, record.digest) == (Outcome.LIVE, "alice@example.com", digest_of(one))
    assert texts(signed.live()) == ONE


def test_a_signature_before_its_tarball(signed: Scratch, alice: Key, one: Path) -> None:
    drop(alice.sign_file(one, f"swapd:{signed.site}"), signed.incoming)
    drop(one, signed.incoming)
    signed.wait_marker(f"{NAME}.live")
    wait_until(lambda: files(signed) == [f"{NAME}.live"], "the signature to go with its tarball")


def test_a_signature_over_the_digest(signed: Scratch, alice: Key, one: Path) -> None:
    for name in (write_sidecar(one), alice.sign_file(one.with_name(f"{NAME}.sha256"))):
        drop(name, signed.incoming)
    drop(one, signed.incoming)
    assert signed.wait_marker(f"{NAME}.live")["signer"] == "alice@example.com"
    wait_until(lambda: files(signed) == [f"{NAME}.live"], "the sidecars to go with their tarball")


def test_one_signed_list_of_digests_for_several_tarballs(signed: Scratch, alice: Key, tmp_path: Path) -> None:
    # As scp * sends them: the list comes first, and the tarballs one after the other.
    tarballs = [write_tarball(tmp_path / f"shop-{number}.tar.gz", site_content(str(number))) for number in (1, 2)]
    sums = tmp_path / "SHA256SUMS"
    sums.write_text("".join(f"{digest_of(tarball)}  {tarball.name}\n" for tarball in tarballs))
    for name in (sums, alice.sign_file(sums)):
        drop(name, signed.incoming)
    drop(tarballs[0], signed.incoming)
    assert signed.wait_marker("shop-1.tar.gz.live")["signer"] == "alice@example.com"
    wait_until(lambda: all(item.is_closed for item in signed.deployments()), "the first to be done with")
    assert files(signed) == ["SHA256SUMS", "SHA256SUMS.sig", "shop-1.tar.gz.live"], "they are still to be of use"
    drop(tarballs[1], signed.incoming)
    signed.wait_marker("shop-2.tar.gz.live")
    wait_until(lambda: files(signed) == ["shop-1.tar.gz.live", "shop-2.tar.gz.live"], "the list to go with the last")


def test_a_list_of_digests_that_contradicts(plot: Plot, one: Path) -> None:
    scratch = plot(verify={"require": "digest"})
    (scratch.incoming / "SHA256SUMS").write_text(f"{'0' * 64}  {NAME}\n")
    drop(one, scratch.incoming)
    assert scratch.wait_marker(f"{NAME}.rejected")["problem"] == "digest-mismatch"
    (scratch.incoming / "SHA256SUMS").write_text(f"{digest_of(one)}  {NAME}\n")
    scratch.wait_marker(f"{NAME}.live")


def test_a_rejected_tarball_is_looked_at_again_when_its_signature_changes(
    plot: Plot, signers: Path, alice: Key, one: Path
) -> None:
    scratch = plot(verify={"require": "signature", "allowed_signers": str(signers)})
    drop(alice.sign_file(one, "file"), scratch.incoming)
    drop(one, scratch.incoming)
    marker = scratch.wait_marker(f"{NAME}.rejected")
    assert marker["problem"] == "wrong-namespace"
    assert "ssh-keygen -Y sign -n swapd" in marker["hint"]
    assert files(scratch) == [NAME, f"{NAME}.rejected", f"{NAME}.sig"], "all stays as it was"
    assert not scratch.live().exists()
    drop(alice.sign_file(one), scratch.incoming)
    scratch.wait_marker(f"{NAME}.live")
    assert [item.outcome for item in scratch.deployments()] == [Outcome.LIVE, Outcome.REJECTED]


def test_a_rejected_tarball_and_its_signature_are_known_after_a_restart(
    scratch: Scratch, signers: Path, alice: Key, one: Path, tmp_path: Path
) -> None:
    incoming = scratch.add_site(verify={"require": "signature", "allowed_signers": str(signers)})
    drop(alice.sign_file(one, "file"), incoming)
    drop(one, incoming)
    daemon = scratch.start_daemon()
    scratch.wait_marker(f"{NAME}.rejected")
    daemon.stop()
    scratch.start_daemon()
    two = write_tarball(tmp_path / "shop-2.tar.gz", TWO)
    drop(alice.sign_file(two), incoming)
    drop(two, incoming)
    scratch.wait_marker("shop-2.tar.gz.live")
    assert [item.outcome for item in scratch.deployments()] == [Outcome.LIVE, Outcome.REJECTED], "no second look"


def test_a_tarball_that_was_tampered_with(plot: Plot, signers: Path, alice: Key, one: Path) -> None:
    scratch = plot(verify={"require": "signature", "allowed_signers": str(signers)})
    drop(alice.sign_file(one), scratch.incoming)
    drop(write_tarball(one, TWO), scratch.incoming)
    assert scratch.wait_marker(f"{NAME}.rejected")["problem"] == "signature-mismatch"
    assert not scratch.live().exists()


def test_signers_that_anybody_could_have_written(signed: Scratch, alice: Key, one: Path, signers: Path) -> None:
    signers.chmod(0o666)
    drop(alice.sign_file(one), signed.incoming)
    drop(one, signed.incoming)
    assert signed.wait_marker(f"{NAME}.failed")["problem"] == "unsafe-signers"
    signers.chmod(0o644)
    touch(signed.incoming / NAME)
    signed.wait_marker(f"{NAME}.live")


def test_the_command_wants_a_signature_too(scratch: Scratch, signers: Path, alice: Key, one: Path) -> None:
    scratch.add_site(verify={"require": "signature", "allowed_signers": str(signers)})
    assert scratch.json("deploy", "shop", one, status=3)["problem"] == "signature-missing"
    alice.sign_file(one)
    assert scratch.json("deploy", "shop", one)["signer"] == "alice@example.com"


class Swapper(threading.Thread):
    """An uploader who exchanges tarball and signature, and writes into the tarball, as fast as it goes."""

    def __init__(self, incoming: Path, uploads: list[tuple[bytes, bytes]]) -> None:
        super().__init__()
        self.incoming = incoming
        self.uploads = uploads
        self.is_stopping = False
        self.turns = 0

    def run(self) -> None:
        target = self.incoming / NAME
        for turn, (content, signature) in enumerate(itertools.cycle(self.uploads)):
            if self.is_stopping:
                return
            self.turns = turn
            if turn % 3 == 0 and target.exists():  # into the file that may be read right now
                with target.open("wb", buffering=0) as file:
                    file.write(content[: len(content) // 2])
                    file.write(content[len(content) // 2 :])
            else:
                self.put(target.name, content)
            self.put(f"{NAME}.sig", signature)

    def put(self, name: str, content: bytes) -> None:
        temporary = self.incoming / f".{name}.next"
        temporary.write_bytes(content)
        os.rename(temporary, self.incoming / name)


def test_a_tarball_that_is_rewritten_while_it_is_verified(
    plot: Plot, signers: Path, alice: Key, tmp_path: Path
) -> None:
    scratch = plot(verify={"require": "signature", "allowed_signers": str(signers)}, keep=1000)
    contents = {mark: site_content(mark) for mark in ("one", "two", "evil")}
    tarballs = {}
    for mark, content in contents.items():
        (tmp_path / mark).mkdir()
        tarballs[mark] = write_tarball(tmp_path / mark / NAME, content)
    signatures = {mark: alice.sign(tarballs[mark].read_bytes()) for mark in ("one", "two")}
    # What nobody signed comes with a signature whose own tarball follows at once: a second look would find that one.
    pairs = [("evil", "one"), ("one", "one"), ("evil", "two"), ("two", "two"), ("one", "two"), ("two", "one")]
    swapper = Swapper(scratch.incoming, [(tarballs[mark].read_bytes(), signatures[of]) for mark, of in pairs])
    swapper.start()
    try:
        wait_until(lambda: _swaps(scratch) >= 6, "six swaps between the two")
    finally:
        swapper.is_stopping = True
        swapper.join()
    expected = {release_of(tarballs[mark]): contents[mark] for mark in ("one", "two")}
    live = [item for item in scratch.deployments() if item.outcome in (Outcome.LIVE, Outcome.UNCHANGED)]
    assert {item.release for item in live} == expected.keys()
    assert {item.signer for item in live} == {"alice@example.com"}
    wait_until(lambda: not scratch.pending(), "the last deployment to end")
    for release, content in expected.items():
        assert texts(scratch.releases() / release) == content
    assert swapper.turns > 100


def _swaps(scratch: Scratch) -> int:
    return sum(item.outcome is Outcome.LIVE for item in scratch.deployments())


def test_a_release_that_is_older_than_the_live_one(plot: Plot, tmp_path: Path) -> None:
    scratch = plot(verify={"newer_only": True})
    for name, mtime in (("new", 1_700_000_000), ("old", 1_600_000_000), ("newer", 1_700_000_001)):
        (tmp_path / f"{name}.tar.gz").write_bytes(pack(site_content(name), f"{name}.tar.gz", mtime=mtime))
    drop(tmp_path / "new.tar.gz", scratch.incoming)
    scratch.wait_marker("new.tar.gz.live")
    drop(tmp_path / "old.tar.gz", scratch.incoming)
    assert scratch.wait_marker("old.tar.gz.rejected")["problem"] == "older-than-live"
    assert texts(scratch.live()) == site_content("new")
    assert leftovers(scratch.releases()) == []
    drop(tmp_path / "newer.tar.gz", scratch.incoming)
    scratch.wait_marker("newer.tar.gz.live")
    live = scratch.state().live
    assert live is not None
    assert live.newest == 1_700_000_001


def test_a_replay_right_after_that_is_forbidden(plot: Plot, tmp_path: Path) -> None:
    """What is live came while nobody asked for its age; the old one has a file of tomorrow, which tells nothing."""
    scratch = plot()
    ahead = int(time.time()) + 86_400
    for name, mtimes in (("new", [1_700_000_000]), ("old", [1_600_000_000, ahead]), ("dateless", [ahead])):
        content = {f"{at}.html": (name, mtime) for at, mtime in enumerate(mtimes)}
        (tmp_path / f"{name}.tar").write_bytes(pack_times(content))
    drop(tmp_path / "new.tar", scratch.incoming)
    scratch.wait_marker("new.tar.live")
    scratch.configure(verify={"newer_only": True})
    scratch.daemon.reload()
    for name, problem in (("old", "older-than-live"), ("dateless", "age-unknown")):
        drop(tmp_path / f"{name}.tar", scratch.incoming)
        assert scratch.wait_marker(f"{name}.tar.rejected")["problem"] == problem
    assert texts(scratch.live()) == {"0.html": "new"}


def pack_times(content: dict[str, tuple[str, int]]) -> bytes:
    """A tarball whose files have a time each."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (text, mtime) in content.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(text), mtime
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()

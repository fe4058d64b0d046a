"""An uploader who rewrites an upload while it is being verified gets nothing live but what was signed, byte for byte.

The uploader acts right before one call of a real worker, and that is each of them in turn: of all that the worker does
with an upload, there is no moment at which another order of events would find it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

from swapd.model.release import Outcome
from tests.crash.calls import watch
from tests.crash.children import describe_failure, in_lanes
from tests.crash.world import Workshop
from tests.support.signing import Key
from tests.support.sites import Scratch, leftovers
from tests.support.tarballs import pack
from tests.support.trees import texts

NAME = "shop.tar"
SIGNATURE, SIDECAR, SIDECAR_SIGNATURE = f"{NAME}.sig", f"{NAME}.sha256", f"{NAME}.sha256.sig"
BEGIN, END = "stages/claim.py:claim", "stages/extract.py:extract"
SIGNER = "alice"


def content(mark: str) -> dict[str, str]:
    """Equally long for each mark, so that one tarball can be written into another; longer than one read of it."""
    return {"index.html": f"{mark}\n", "large.txt": f"{mark}\n" * 300_000, "lib/page.php": f"<?php echo '{mark}';\n"}


ONE, TWO, BAD = (content(mark) for mark in ("one", "two", "bad"))


class Uploader:
    """What the uploader has: two tarballs that were signed, and one that nobody would sign."""

    def __init__(self, place: Path, incoming: Path | None = None, other: Uploader | None = None) -> None:
        self.place = place
        self.incoming = incoming or place
        if other is not None:
            self.files = other.files
            return
        key = Key(place / SIGNER)
        (place / "signers").write_text(key.line())
        self.files: dict[str, dict[str, bytes]] = {}
        for mark, release in (("one", ONE), ("two", TWO), ("bad", BAD)):
            tarball = pack(release, NAME)
            digest = f"{hashlib.sha256(tarball).hexdigest()}  {NAME}\n".encode()
            self.files[mark] = {NAME: tarball, SIDECAR: digest}
            if mark != "bad":
                self.files[mark] |= {SIGNATURE: key.sign(tarball), SIDECAR_SIGNATURE: key.sign(digest)}

    def put(self, mark: str, *names: str) -> None:
        """As rsync and sftp clients do, one after the other."""
        for name in names:
            temporary = self.incoming / f".{name}.part"
            temporary.write_bytes(self.files[mark][name])
            os.rename(temporary, self.incoming / name)

    def write_into(self, mark: str, name: str = NAME, begin: int = 0) -> None:
        """Into the file that is there."""
        with self.opened(name) as file:
            file.seek(begin)
            file.write(self.files[mark][name][begin:])

    def write_anew(self, mark: str, name: str = NAME) -> None:
        """As cp and scp do."""
        with self.opened(name) as file:
            file.truncate(0)
            file.write(self.files[mark][name])

    def map_into(self, mark: str) -> None:
        """Through memory: the file's times change when a page is first written to, if at all."""
        with self.opened(NAME) as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[:] = self.files[mark][NAME]

    def opened(self, name: str) -> BinaryIO:
        """``BlockingIOError`` where the worker has a lease on the file: the uploader would have to wait for it."""
        descriptor = os.open(self.incoming / name, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        return open(descriptor, "r+b", buffering=0)

    def write_secretly(self, mark: str) -> None:
        """As far as an uploader can: the inode's own time cannot be set."""
        status = os.stat(self.incoming / NAME)
        self.write_into(mark)
        os.utime(self.incoming / NAME, ns=(status.st_atime_ns, status.st_mtime_ns))

    def cut_off(self) -> None:
        with self.opened(NAME) as file:
            file.truncate(len(self.files["one"][NAME]) // 2)

    def remove(self, name: str) -> None:
        (self.incoming / name).unlink()

    def replace_by_link(self) -> None:
        outside = self.incoming.with_name("outside.tar")
        outside.write_bytes(self.files["bad"][NAME])
        (self.incoming / ".link").symlink_to(outside)
        os.rename(self.incoming / ".link", self.incoming / NAME)

    def replace_by_fifo(self) -> None:
        os.mkfifo(self.incoming / ".fifo")
        os.rename(self.incoming / ".fifo", self.incoming / NAME)


Action = Callable[[Uploader], None]


def put(mark: str, *names: str) -> Action:
    return lambda uploader: uploader.put(mark, *names)


@dataclass(frozen=True)
class Trick:
    """What lies there at first, what the uploader does, and what is live once both have ended, where that is known."""

    beginning: tuple[Action, ...]
    act: Action
    end: dict[str, str] | None = None


SIGNED = (put("one", SIGNATURE, NAME),)
BAIT = (put("one", SIGNATURE), put("bad", NAME))  # rejected, were nothing done
BY_DIGEST = (put("one", SIDECAR, SIDECAR_SIGNATURE, NAME),)
DIGEST_BAIT = (put("one", SIDECAR, SIDECAR_SIGNATURE), put("bad", NAME))

TRICKS = {
    "bad written into it": Trick(SIGNED, lambda uploader: uploader.write_into("bad")),
    "one written into bad": Trick(BAIT, lambda uploader: uploader.write_into("one"), ONE),
    "bad put": Trick(SIGNED, put("bad", NAME)),
    "one put for bad": Trick(BAIT, put("one", NAME), ONE),
    "bad written anew": Trick(SIGNED, lambda uploader: uploader.write_anew("bad")),
    "one written anew": Trick(BAIT, lambda uploader: uploader.write_anew("one"), ONE),
    "bad mapped into it": Trick(SIGNED, lambda uploader: uploader.map_into("bad")),
    "one mapped into bad": Trick(BAIT, lambda uploader: uploader.map_into("one")),
    "bad written secretly": Trick(SIGNED, lambda uploader: uploader.write_secretly("bad")),
    "half of bad": Trick(SIGNED, lambda uploader: uploader.write_into("bad", begin=500_000)),
    "cut off": Trick(SIGNED, Uploader.cut_off),
    "gone": Trick(SIGNED, lambda uploader: uploader.remove(NAME)),
    "a link to bad": Trick(SIGNED, Uploader.replace_by_link),
    "a fifo": Trick(SIGNED, Uploader.replace_by_fifo),
    "two, then its signature": Trick(SIGNED, put("two", NAME, SIGNATURE), TWO),
    "the signature of two, then it": Trick(SIGNED, put("two", SIGNATURE, NAME), TWO),
    "two alone": Trick(SIGNED, put("two", NAME)),
    "the signature of two alone": Trick(SIGNED, put("two", SIGNATURE)),
    "the signature of two written over": Trick(SIGNED, lambda uploader: uploader.write_anew("two", SIGNATURE)),
    "no signature": Trick(SIGNED, lambda uploader: uploader.remove(SIGNATURE)),
    "a sidecar of bad": Trick(SIGNED, put("bad", SIDECAR)),
    "bad mapped under a signed digest": Trick(BY_DIGEST, lambda uploader: uploader.map_into("bad")),
    "bad under a signed digest": Trick(BY_DIGEST, lambda uploader: uploader.write_into("bad")),
    "one under its digest": Trick(DIGEST_BAIT, lambda uploader: uploader.write_into("one"), ONE),
    "the digest of bad": Trick(BY_DIGEST, lambda uploader: uploader.write_into("bad", SIDECAR)),
    "bad and its digest": Trick(BY_DIGEST, put("bad", SIDECAR, NAME)),
    "the digest of one for that of bad": Trick(
        (put("one", SIDECAR_SIGNATURE), put("bad", SIDECAR, NAME)), lambda uploader: uploader.write_into("one", SIDECAR)
    ),
    "two, its digest, its signature": Trick(BY_DIGEST, put("two", NAME, SIDECAR, SIDECAR_SIGNATURE), TWO),
    "the signature, the digest, two": Trick(BY_DIGEST, put("two", SIDECAR_SIGNATURE, SIDECAR, NAME), TWO),
}
# What tells nothing new of an upload: where the worker is at swapd's own files and the way to the live path, and calls
# that give something back, wait, or ask for room. Between them one moment is like another.
BESIDE = ("layout", "choose", "records", "mark", "ledger", "room", "sizes")
BESIDE += ("files.write_durably", "files.fsync", "child._children", "child.close", "child.words")
IDLE = ("close", "__exit__", "stat", "lstat", "poll", "waitpid", "access", "flush", "kill", "memfd_create", "scandir")
# How often these look whether a child has ended, and say how it goes, is up to the machine.
TIMED = ("ssh_keygen._has_ended", "jailed.listen", "worker")


class Shop(Workshop):
    """A site that asks for a signature, with what lies there when a trick begins."""

    def __init__(self, root: Path, uploader: Uploader, trick: Trick) -> None:
        scratch = Scratch(root)
        rules = {"require": "signature", "allowed_signers": str(uploader.place / "signers")}
        scratch.add_site(strategy="symlink", pause={"mode": "never"}, verify=rules)
        super().__init__(scratch, root.with_name(f"{root.name}.journal"))
        self.site.releases.mkdir(parents=True)
        self.uploader = Uploader(uploader.place, self.incoming, uploader)
        for act in trick.beginning:
            act(self.uploader)

    def check(self) -> None:
        """Nothing but what was signed is live, or kept, or said to be."""
        assert not leftovers(self.site.releases)
        kept = {path.name: texts(path) for path in self.site.releases.iterdir()}
        assert all(found in (ONE, TWO) for found in kept.values()), "what nobody signed is there"
        live = self.scratch.state().live
        assert (live is not None) == self.site.live.exists()
        assert live is None or texts(self.site.live) == kept[live.release]
        for deployment in self.deployments():
            assert deployment.outcome in (Outcome.LIVE, Outcome.UNCHANGED, Outcome.REJECTED), deployment
            if deployment.outcome is not Outcome.REJECTED:
                assert deployment.signer == SIGNER
                assert deployment.release in kept


@pytest.fixture(scope="module")
def uploader(tmp_path_factory: pytest.TempPathFactory) -> Uploader:
    return Uploader(tmp_path_factory.mktemp("uploader"))


def find_steps(root: Path, uploader: Uploader, trick: Trick) -> list[str]:
    """Each call of a worker from the claim of the upload to the end of its extraction."""
    shop = Shop(root, uploader, trick)
    log = root / "steps"

    def note(step: str) -> None:
        with log.open("a") as file:
            print(step, file=file)

    shop.work(note, partial(watch, begin=BEGIN, end=END)).check()
    shop.check()
    return log.read_text().splitlines()


def play(root: Path, uploader: Uploader, trick: Trick, step: str) -> None:
    """The trick, right before the step."""
    shop = Shop(root, uploader, trick)
    flag = root / "acted"

    is_due = False

    def act(reached: str) -> None:
        nonlocal is_due
        is_due = is_due or reached == step
        if is_due and not flag.exists():
            with contextlib.suppress(BlockingIOError):  # at the next step, then
                trick.act(shop.uploader)
                flag.touch()

    shop.work(act, partial(watch, begin=BEGIN, end=END)).check()
    assert flag.exists() or step.startswith(TIMED), "the step was not reached"
    shop.check()
    if trick.end is not None and flag.exists():
        if shop.uploads:
            shop.work().check()
        shop.check()
        assert texts(shop.site.live) == trick.end, "an upload was lost"


def choose_all(steps: dict[tuple[Action, ...], list[str]]) -> Iterator[tuple[str, str]]:
    """Every trick at every step."""
    for name, trick in TRICKS.items():
        for step in steps[trick.beginning]:
            yield name, step


def choose_some(steps: dict[tuple[Action, ...], list[str]]) -> Iterator[tuple[str, str]]:
    """At each step that is about the upload one trick: the plainest, and one of the others, in turn."""
    for beginning, reached in steps.items():
        plainest, *others = (name for name, trick in TRICKS.items() if trick.beginning == beginning)
        names = itertools.cycle([name for other in others or [plainest] for name in (plainest, other)])
        telling = [step for step in reached if not step.startswith(BESIDE) and not step.split()[1].startswith(IDLE)]
        yield from zip(names, telling, strict=False)


def check_tricks(
    memory: Path,
    uploader: Uploader,
    choose: Callable[[dict[tuple[Action, ...], list[str]]], Iterator[tuple[str, str]]],
) -> int:
    """Plays what is chosen; how much that was."""
    firsts = {trick.beginning: trick for trick in TRICKS.values()}
    steps = {
        beginning: find_steps(memory / f"whole-{number}", uploader, trick)
        for number, (beginning, trick) in enumerate(firsts.items())
    }
    chosen = list(choose(steps))

    def check(number: int) -> list[str]:
        name, step = chosen[number]
        try:
            play(memory / str(number), uploader, TRICKS[name], step)
        except (AssertionError, OSError):
            return [describe_failure(number, step, name)]
        shutil.rmtree(memory / str(number))  # all of them together are gigabytes
        return []

    failures = in_lanes(check, len(chosen))
    assert not failures, "\n".join(failures)
    return len(chosen)


def test_rewritten_at_every_step(memory: Path, uploader: Uploader) -> None:
    assert check_tricks(memory, uploader, choose_some) > 200


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_rewritten_in_every_way_at_every_step(memory: Path, uploader: Uploader) -> None:
    assert check_tricks(memory, uploader, choose_all) > 2000

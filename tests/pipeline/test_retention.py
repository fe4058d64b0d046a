"""Which releases are kept and which go: keep, pins, and what is still in use."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from swapd.host.files import locked
from swapd.host.records import write_state
from swapd.host.usage import PATIENCE
from swapd.model.release import SiteName
from tests.support.sites import Scratch, environment, leftovers
from tests.support.tarballs import drop, release_of, site_content, write_tarball
from tests.support.trees import texts, write_tree
from tests.support.waiting import wait_until


def make(scratch: Scratch, *names: str) -> list[str]:
    """Deploys a release of each name, one after the other; their ids."""
    tarballs = [write_tarball(scratch.root / f"{name}.tar.gz", site_content(name)) for name in names]
    scratch.deploy(*tarballs)
    return [release_of(tarball) for tarball in tarballs]


def kept(scratch: Scratch) -> set[str]:
    """What stands among the releases under its name; the live one as well, where the live path is a link."""
    return {name for name in os.listdir(scratch.releases()) if not name.startswith(".")}


@contextmanager
def using(*command: str, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is there meanwhile, and has said that it uses what it is to use."""
    process = subprocess.Popen(
        [*command] if command else ["sh", "-c", "echo; exec sleep 600"], cwd=cwd, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


READER = "import sys; file = open(sys.argv[1]); print(flush=True); import time; time.sleep(600)"
MAPPER = """
import mmap, sys
with open(sys.argv[1]) as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print(flush=True)
import time; time.sleep(600)
"""


class TestPins:
    def test_a_pinned_release_stays_whatever_keep_says(self, scratch: Scratch) -> None:
        scratch.add_site(keep=2)
        a, b = make(scratch, "a", "b")
        done = scratch.run("pin", "shop", "a")
        assert done.returncode == 0, done
        assert f"{a} is pinned" in done.stdout
        c, d = make(scratch, "c", "d")
        assert kept(scratch) == {a, c, d}
        assert f"pinned     {a}" in scratch.run("status").stdout
        (site,) = scratch.json("status")["sites"]
        assert site["pinned"] == [a]

        done = scratch.run("unpin", "shop", a)
        assert done.returncode == 0
        assert "swapd prune" in done.stdout
        done = scratch.run("prune", "shop")
        assert done.returncode == 0, done
        assert f"removed  {a}" in done.stdout
        assert f"kept     {d}: it is live" in done.stdout
        assert f"kept     {c}: it was live before" in done.stdout
        assert kept(scratch) == {c, d}
        assert b not in scratch.state().previous

    def test_the_live_one_can_be_pinned(self, scratch: Scratch) -> None:
        scratch.add_site(keep=2)
        (a,) = make(scratch, "a")
        assert scratch.run("pin", "shop", a).returncode == 0
        assert scratch.run("pin", "shop", a).returncode == 0, "twice is once"
        make(scratch, "b", "c", "d")
        assert a in scratch.state().previous
        assert scratch.state().pinned == (a,)
        assert "nothing had to go" in scratch.run("prune", "shop").stdout

    @pytest.mark.parametrize("verb", ["pin", "unpin"])
    def test_what_is_not_there(self, scratch: Scratch, verb: str) -> None:
        scratch.add_site()
        (a,) = make(scratch, "a")
        done = scratch.run(verb, "shop", "nonsense")
        assert done.returncode == 2
        assert "nonsense" in done.stderr
        assert verb == "unpin" or a in done.stderr

    def test_busy_is_5(self, scratch: Scratch) -> None:
        scratch.add_site()
        make(scratch, "a")
        with locked(scratch.layout.site_lock("shop"), "a test"):
            for arguments in (["pin", "shop", "a"], ["unpin", "shop", "a"], ["prune", "shop"]):
                assert scratch.run(*arguments).returncode == 5


class TestInUse:
    @pytest.fixture
    def shop(self, scratch: Scratch) -> Scratch:
        scratch.add_site(keep=2)
        return scratch

    @pytest.mark.parametrize("program", [None, READER, MAPPER], ids=["directory", "file", "mapping"])
    def test_what_a_process_uses_stays(self, shop: Scratch, program: str | None) -> None:
        a, b = make(shop, "a", "b")
        tree = shop.releases() / a
        command = [sys.executable, "-c", program, str(tree / "index.html")] if program else []
        with using(*command, cwd=shop.root if program else tree) as process:
            (c,) = make(shop, "c")
            assert kept(shop) == {a, b, c}
            done = shop.run("prune", "shop")
            name = "python" if program else "sleep"
            assert f", pid {process.pid} (" in done.stdout, done
            assert name in done.stdout
            assert texts(tree) == site_content("a")
        assert f"removed  {a}" in shop.run("prune", "shop").stdout
        assert kept(shop) == {b, c}

    def test_a_directory_deep_inside_counts_as_well(self, shop: Scratch) -> None:
        a, _ = make(shop, "a", "b")
        deep = shop.releases() / a / "x/y/z"
        deep.mkdir(parents=True)
        with using(cwd=deep):
            make(shop, "c")
            assert a in kept(shop)
        make(shop, "d")
        assert a not in kept(shop)

    def test_the_daemon_says_who(self, shop: Scratch) -> None:
        a, _ = make(shop, "a", "b")
        daemon = shop.start_daemon()
        with using(cwd=shop.releases() / a) as process:
            (tarball,) = [write_tarball(shop.root / "c.tar.gz", site_content("c"))]
            drop(tarball, shop.incoming)
            shop.wait_live(release_of(tarball))
            wait_until(lambda: f"kept: sleep, pid {process.pid} (working directory)" in daemon.log(), "it to be said")
            assert a in kept(shop)

    def test_the_tree_that_a_changed_link_leads_to(self, shop: Scratch) -> None:
        """Whatever is recorded, the tree that visitors get is not removed."""
        shop.configure(keep=9)
        a, b, c, d = make(shop, "a", "b", "c", "d")
        shop.configure(keep=2)
        shop.live().unlink()
        shop.live().symlink_to(f"shop.releases/{a}")
        done = shop.run("prune", "shop")
        assert f"removed  {b}" in done.stdout
        assert f"kept     {a}: {shop.live()} leads to it" in done.stdout
        assert "not what swapd left there" in done.stderr
        assert kept(shop) == {a, c, d}
        assert texts(shop.live()) == site_content("a")


class TestUnseen:
    """A daemon that may not look into other processes asks a process that may."""

    @pytest.fixture
    def blind(self, scratch: Scratch) -> list[str]:
        if os.geteuid() != 0 or not shutil.which("setpriv"):
            pytest.skip("only root, with setpriv, can be root without a capability")
        scratch.add_site(keep=2)
        return ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"]

    def prune(self, scratch: Scratch, blind: list[str]) -> str:
        line = [*blind, *scratch.command_line("prune", "shop")]
        done = subprocess.run(line, capture_output=True, text=True, env=environment(), cwd=scratch.root)
        assert done.returncode == 0, done
        return done.stdout

    @contextmanager
    def answering(self, scratch: Scratch, answer: bytes | None = None) -> Iterator[None]:
        """As the unit's socket does: a process for each connection, which is not read from."""
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(scratch.layout.users_socket))
        server.listen()
        line = [sys.executable, "-m", "swapd", "users"]

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    if answer is None:
                        subprocess.run(line, stdout=connection, env=environment(), cwd=scratch.root, check=True)
                    else:
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            server.close()
            thread.join()
            scratch.layout.users_socket.unlink()

    def test_it_asks(self, scratch: Scratch, blind: list[str]) -> None:
        a, b = make(scratch, "a", "b")
        scratch.configure(keep=9)
        (c,) = make(scratch, "c")
        scratch.configure(keep=2)
        with self.answering(scratch):
            with using(cwd=scratch.releases() / a) as process:
                assert f"{a}: sleep, pid {process.pid} (working directory)" in self.prune(scratch, blind)
            assert f"removed  {a}" in self.prune(scratch, blind)
        assert kept(scratch) == {b, c}

    @pytest.mark.parametrize("answer", [None, b"", b"{}", b"\xff", b'{"users": [[1]], "unseen": ""}'])
    def test_where_nobody_tells_nothing_goes(self, scratch: Scratch, blind: list[str], answer: bytes | None) -> None:
        make(scratch, "a", "b")
        scratch.configure(keep=9)
        make(scratch, "c")
        scratch.configure(keep=2)
        # Another user's process: root's without the capability are shown to root without it.
        with subprocess.Popen(["setpriv", "--reuid", "1", "--clear-groups", "sleep", "600"]) as other:
            try:
                if answer is None:
                    said = self.prune(scratch, blind)
                else:
                    with self.answering(scratch, answer):
                        said = self.prune(scratch, blind)
            finally:
                other.kill()
        assert "cannot be seen" in said
        assert "CAP_SYS_PTRACE" in said
        assert len(kept(scratch)) == 3

    def test_nobody_waits_for_an_answer_when_swapd_is_told_to_stop(self, scratch: Scratch, blind: list[str]) -> None:
        """systemd may start whoever answers only when the unit has ended: both would wait for one another."""
        make(scratch, "a", "b")
        third = write_tarball(scratch.root / "c.tar.gz", site_content("c"))
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(scratch.layout.users_socket))
            server.listen()
            server.settimeout(30)
            daemon = scratch.start_daemon(command_line=[*blind, *scratch.command_line("run")])
            drop(third, scratch.layout.spool / "shop")
            with server.accept()[0]:
                began = time.monotonic()
                assert daemon.stop() == 0
                assert time.monotonic() - began < PATIENCE / 2
        assert "cannot be seen" not in daemon.log()
        assert len(kept(scratch)) == 3

    def test_what_a_crash_had_set_aside_does_not_come_back(self, scratch: Scratch, blind: list[str]) -> None:
        """Killed after the rename, and then nobody could tell who uses it: it is no kept release any more."""
        a, b = make(scratch, "a", "b")
        state = scratch.state()
        write_state(scratch.layout, SiteName("shop"), replace(state, previous=(), doomed=(a,)))
        (scratch.releases() / a).rename(scratch.releases() / ".removing-0123456789abcdef")
        with self.answering(scratch, b""):
            said = self.prune(scratch, blind)
        assert "cannot be seen" not in said
        assert a not in scratch.state().previous
        assert kept(scratch) == {b}
        assert leftovers(scratch.releases()) == []


class TestByHand:
    def test_a_kept_release_that_somebody_removed(self, scratch: Scratch) -> None:
        scratch.add_site()
        a, b, c = make(scratch, "a", "b", "c")
        scratch.run("pin", "shop", a)
        shutil.rmtree(scratch.releases() / a)
        (scratch.releases() / b).rename(scratch.releases() / "b.mine")
        daemon = scratch.start_daemon()
        tarballs = [write_tarball(scratch.root / f"{name}.tar.gz", site_content(name)) for name in "de"]
        for tarball in tarballs:
            drop(tarball, scratch.incoming)
            scratch.wait_live(release_of(tarball))
        wait_until(lambda: f"{b}, {a} was kept and is not in" in daemon.log(), "it to be said")
        assert daemon.log().count("was kept and is not in") == 1
        state = scratch.state()
        assert (state.previous, state.pinned) == ((release_of(tarballs[0]), c), ())
        assert (scratch.releases() / "b.mine/index.html").exists(), "what people call their own is theirs"


class TestRemoval:
    """It takes as long as the tree is large, and nobody waits for it."""

    @pytest.fixture
    def shop(self, scratch: Scratch, large: Path) -> Scratch:
        """A release of thousands of files is the next to go."""
        scratch.add_site(keep=2)
        scratch.deploy(large)
        make(scratch, "b")
        return scratch

    @staticmethod
    def sweepers() -> list[int]:
        found = []
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and Path(f"/proc/{entry}/comm").read_text() == "swapd (sweep)\n":
                    found.append(int(entry))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found

    def test_a_deployment_does_not_wait_for_it(self, shop: Scratch) -> None:
        daemon = shop.start_daemon()
        aside = shop.releases() / ".removing-0123456789abcdef"
        # One that goes on for as long as the test likes: a directory in it is filled again and again.
        write_tree(aside, {f"{number}/x": "y" for number in range(800)})
        tarballs = [write_tarball(shop.root / f"{name}.tar.gz", site_content(name)) for name in "cd"]
        drop(tarballs[0], shop.incoming)
        shop.wait_live(release_of(tarballs[0]))
        drop(tarballs[1], shop.incoming)
        shop.wait_live(release_of(tarballs[1]))
        wait_until(lambda: not leftovers(shop.releases()), "everything to be removed")
        wait_until(lambda: not daemon.workers(), "the worker to end")
        wait_until(lambda: not self.sweepers(), "the end of whoever removed it")

    def test_who_is_killed_amid_it_has_a_successor(self, shop: Scratch) -> None:
        write_tree(shop.releases() / ".removing-0123456789abcdef", {f"{number}/x": "y" for number in range(1500)})
        daemon = shop.start_daemon()

        def kill() -> bool:
            workers = daemon.workers() if self.sweepers() else []
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            return bool(workers)

        wait_until(lambda: kill() or not leftovers(shop.releases()), "a removal")
        wait_until(lambda: not leftovers(shop.releases()), "everything to be removed")
        wait_until(lambda: not self.sweepers(), "the end of whoever removed it")

    def test_it_is_gentle(self, shop: Scratch) -> None:
        import psutil

        write_tree(shop.releases() / ".removing-0123456789abcdef", {f"{number}/x": "y" for number in range(1500)})
        shop.start_daemon()
        seen: list[tuple[int, int]] = []

        def look() -> bool:
            for pid in self.sweepers():
                try:
                    process = psutil.Process(pid)
                    seen.append((process.nice(), process.ionice().ioclass))
                except psutil.NoSuchProcess:
                    continue
            return not leftovers(shop.releases())

        wait_until(look, "everything to be removed")
        assert (19, psutil.IOPRIO_CLASS_IDLE) in seen

    def test_what_cannot_be_removed_is_said_once(self, shop: Scratch) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root may make a file immutable")
        stuck = shop.releases() / ".removing-0123456789abcdef"
        write_tree(stuck, {"x": "y"})
        if subprocess.run(["chattr", "+i", stuck / "x"], capture_output=True).returncode:
            pytest.skip("no immutable files on this filesystem")
        try:
            daemon = shop.start_daemon()
            wait_until(lambda: "removing old releases: " in daemon.log(), "it to be said")
            tarball = write_tarball(shop.root / "c.tar.gz", site_content("c"))
            drop(tarball, shop.incoming)
            shop.wait_live(release_of(tarball))
            wait_until(lambda: not daemon.workers(), "the worker to end")
            done = shop.run("prune", "shop")
            assert done.returncode == 1
            assert str(stuck) in done.stderr
        finally:
            subprocess.run(["chattr", "-i", stuck / "x"], check=True)
        assert shop.run("prune", "shop").returncode == 0
        assert not leftovers(shop.releases())


def test_a_site_without_anything_to_prune(scratch: Scratch) -> None:
    scratch.add_site()
    scratch.releases().mkdir()
    done = scratch.run("prune", "shop")
    assert (done.returncode, done.stdout) == (0, "nothing had to go\n")
    assert scratch.layout.site_state(SiteName("shop")).is_dir()

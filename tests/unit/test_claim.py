"""From what lies in a hostile drop directory to a private copy and its digest."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from swapd.host.linux import has_writer
from swapd.model.errors import Failed, NotComplete, Rejected
from swapd.model.release import Compression, Signature, Tarball, Upload
from swapd.model.sidecars import parse_sidecar
from swapd.stages.claim import claim, sweep_claims
from tests.support.disks import disk
from tests.support.httpd import PROJECT
from tests.support.mounts import tmpfs
from tests.support.waiting import wait_until

LIMIT = 1 << 24
CONTENT = b"not looked into by this stage" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Drop:
    """A drop directory and the private one for copies."""

    def __init__(self, root: Path) -> None:
        self.incoming, self.claims = root / "incoming", root / "claims"
        self.incoming.mkdir()
        self.claims.mkdir(mode=0o700)

    def put(self, name: str = "shop.tar.gz", content: bytes = CONTENT) -> Path:
        (self.incoming / name).write_bytes(content)
        return self.incoming / name

    @contextlib.contextmanager
    def claim(self, name: str = "shop.tar.gz", limit: int = LIMIT, **more: Any) -> Iterator[Tarball]:
        upload = Upload(self.incoming, name, more.pop("is_dropped", True), more.pop("is_settled", True))
        with claim(upload, str(self.claims), limit, more.pop("progress", lambda _: None)) as tarball:
            yield tarball

    def problem(self, kind: type[Any], name: str = "shop.tar.gz", limit: int = LIMIT, **more: Any) -> str:
        """How a claim of it fails."""
        with pytest.raises(kind) as caught, self.claim(name, limit, **more):
            pass
        assert caught.value.message.isprintable()
        assert not os.listdir(self.claims)
        problem: str = caught.value.problem
        return problem


@pytest.fixture
def drop(tmp_path: Path) -> Drop:
    return Drop(tmp_path)


def test_a_copy_with_the_digest_of_exactly_its_bytes(drop: Drop) -> None:
    path = drop.put()
    told: list[int] = []
    with drop.claim(progress=told.append) as tarball:
        assert (tarball.digest, tarball.size) == (DIGEST, len(CONTENT))
        assert (tarball.name, tarball.compression) == ("shop", Compression.GZIP)
        assert tarball.release == f"shop@{DIGEST[:12]}"
        assert tarball.expected is None
        assert tarball.fingerprint.inode == path.stat().st_ino
        assert os.read(tarball.descriptor, 1 << 24) == CONTENT, "from its beginning"
        assert not os.get_inheritable(tarball.descriptor)
        descriptor = tarball.descriptor
        # Whoever may write to the drop directory cannot reach the copy.
        status = os.fstat(descriptor)
        assert status.st_ino != path.stat().st_ino
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_nlink == 0
        path.write_bytes(b"changed afterwards")
        assert os.pread(descriptor, 1 << 24, 0) == CONTENT
    assert told[-1] == len(CONTENT)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


def test_the_upload_stays_as_it_is(drop: Drop) -> None:
    path = drop.put()
    before = path.stat()
    with drop.claim():
        pass
    after = path.stat()
    assert (before.st_mtime_ns, before.st_ctime_ns, before.st_ino) == (
        after.st_mtime_ns,
        after.st_ctime_ns,
        after.st_ino,
    )


def test_its_uploader_is_known_by_name(drop: Drop) -> None:
    drop.put()
    with drop.claim() as tarball:
        assert tarball.uploader == subprocess.check_output(["id", "-un"], text=True).strip()


@pytest.mark.root
def test_an_uploader_without_a_name(drop: Drop) -> None:
    os.chown(drop.put(), 54321, 54321)
    with drop.claim() as tarball:
        assert tarball.uploader == "54321"


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_every_size(drop: Drop, size: int) -> None:
    content = os.urandom(size)
    drop.put(content=content)
    with drop.claim() as tarball:
        assert os.pread(tarball.descriptor, 1 << 23, 0) == content
        assert tarball.digest == hashlib.sha256(content).hexdigest()


def test_the_largest_that_may_be(drop: Drop) -> None:
    drop.put(content=b"x" * 5000)
    with drop.claim(limit=5000) as tarball:
        assert tarball.size == 5000
    told: list[int] = []
    with pytest.raises(Rejected) as caught, drop.claim(limit=4999, progress=told.append):
        pass
    assert caught.value.problem == "tarball-too-large"
    assert "4.9 KiB (5000 bytes), and max_tarball = 4.9 KiB" in caught.value.message
    assert told == [], "not a byte of it was copied"


@pytest.mark.root
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "another"])
def test_whatever_the_filesystem_can(tmp_path: Path, kind: str) -> None:
    """Shares blocks, copies in the kernel, or neither: from one filesystem to another."""
    root = tmp_path / "disk"
    with tmpfs(root) if kind == "another" else disk(kind, tmp_path / "image", root):
        drop = Drop(root)
        if kind == "another":
            drop.incoming = tmp_path
        content = os.urandom(5 << 20)
        drop.put(content=content)
        told: list[int] = []
        os.sync()
        before = os.statvfs(root).f_bfree
        with drop.claim(progress=told.append) as tarball:
            assert os.pread(tarball.descriptor, 1 << 24, 0) == content
            assert tarball.digest == hashlib.sha256(content).hexdigest()
            assert told == [at << 20 for at in range(1, 6)]
            assert os.lseek(tarball.descriptor, 0, os.SEEK_CUR) == 0
            os.sync()
            taken = (before - os.statvfs(root).f_bfree) * os.statvfs(root).f_frsize
            assert taken < 1 << 20 if kind in ("xfs", "btrfs") else taken >= 5 << 20


def test_a_filesystem_without_files_without_names(drop: Drop, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many FUSE ones are; simulated, for want of one here."""
    opening = os.open

    def open_(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported", path)
        return opening(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", open_)
    drop.put()
    with drop.claim() as tarball:
        assert os.listdir(drop.claims) == [], "a crash leaves nothing of it"
        status = os.fstat(tarball.descriptor)
        assert (status.st_nlink, stat.S_IMODE(status.st_mode)) == (0, 0o600)
        assert tarball.digest == DIGEST


def test_what_a_crash_left_of_a_copy_goes(drop: Drop) -> None:
    (drop.claims / ".claim-0123456789abcdef").touch()
    (drop.claims / "notes").touch()
    sweep_claims(drop.claims)
    assert os.listdir(drop.claims) == ["notes"]


class TestHostileNames:
    def test_a_fifo_does_not_block(self, drop: Drop) -> None:
        os.mkfifo(drop.incoming / "shop.tar.gz")
        assert drop.problem(Rejected) == "not-a-regular-file"

    @pytest.mark.parametrize("target", ["/dev/zero", "/etc/passwd", "other.tar.gz", "missing", "shop.tar.gz"])
    def test_a_link_is_not_followed(self, drop: Drop, target: str) -> None:
        drop.put("other.tar.gz")
        (drop.incoming / "shop.tar.gz").symlink_to(target)
        assert drop.problem(Rejected) == "not-a-regular-file"

    def test_a_directory(self, drop: Drop) -> None:
        (drop.incoming / "shop.tar.gz").mkdir()
        assert drop.problem(Rejected) == "not-a-regular-file"

    def test_a_socket(self, drop: Drop) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(drop.incoming / "shop.tar.gz"))
            assert drop.problem(Rejected) == "not-a-regular-file"

    @pytest.mark.parametrize("kind", ["fifo", "link", "file"])
    def test_a_name_that_becomes_something_else_between_the_look_and_the_open(
        self, drop: Drop, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At the worst moment, which no race meets often enough: what was looked at is what is read."""
        path, other = drop.put(), drop.incoming / ".other"
        opening = os.open

        def open_(name: Any, flags: int, *more: Any, **named: Any) -> int:
            descriptor = opening(name, flags, *more, **named)
            if flags & os.O_PATH and name == path.name:
                {"fifo": os.mkfifo, "link": lambda to: os.symlink("/dev/zero", to), "file": Path.touch}[kind](other)  # type: ignore[operator]
                os.rename(other, path)
            return descriptor

        monkeypatch.setattr(os, "open", open_)
        with drop.claim() as tarball:
            assert tarball.digest == DIGEST
        assert path.lstat().st_size != len(CONTENT), "it is something else now"

    @pytest.mark.root
    def test_a_device_is_not_opened(self, drop: Drop) -> None:
        # To open a tape drive rewinds it. This one has no driver: opening it would fail otherwise.
        os.mknod(drop.incoming / "shop.tar.gz", stat.S_IFCHR | 0o666, os.makedev(240, 99))
        assert drop.problem(Rejected) == "not-a-regular-file"

    @pytest.mark.parametrize("name", ["-rf.tar.gz", "a\nb.tar.gz", "a\udcff.tar.gz", "a b.tar", "x" * 240 + ".tar.gz"])
    def test_a_name_that_no_release_may_have(self, drop: Drop, name: str) -> None:
        drop.put(name)
        assert drop.problem(Rejected, name) == "bad-release-name"

    def test_the_longest_name_has_a_sidecar(self, drop: Drop) -> None:
        name = "x" * 200 + ".tar.gz"
        drop.put(name)
        (drop.incoming / f"{name}.sha256").write_text(DIGEST)
        with drop.claim(name) as tarball:
            assert tarball.expected == DIGEST

    def test_one_that_went_away(self, drop: Drop) -> None:
        assert drop.problem(NotComplete) == "vanished"
        drop.incoming.rmdir()
        assert drop.problem(NotComplete) == "vanished"


class TestWriters:
    def test_an_upload_that_is_open_for_writing_is_not_complete(self, drop: Drop) -> None:
        with drop.put().open("ab"):
            assert drop.problem(NotComplete) == "still-open"
        with drop.claim():
            pass

    def test_one_that_another_process_writes_is_not_complete(self, drop: Drop) -> None:
        path = drop.put()
        with path.open("ab") as file:
            writer = subprocess.Popen(["sleep", "infinity"], stdout=file)
        try:
            assert drop.problem(NotComplete) == "still-open"
        finally:
            writer.kill()
            writer.wait()

    def test_a_reader_is_no_writer(self, drop: Drop) -> None:
        with drop.put().open("rb"), drop.claim():
            pass

    def test_a_file_on_the_command_line_is_taken_as_it_is(self, drop: Drop) -> None:
        with drop.put().open("ab"), drop.claim(is_dropped=False) as tarball:
            assert tarball.digest == DIGEST

    def test_one_that_changes_while_it_is_copied_is_not_complete(self, drop: Drop) -> None:
        path = drop.put(content=b"x" * (3 << 20))

        def grow(done: int) -> None:
            if done == 1 << 20:
                with path.open("ab") as file:
                    file.write(b"more")

        assert drop.problem(NotComplete, progress=grow) == "still-changing"

    def test_one_that_is_replaced_while_it_is_copied_is_taken_as_it_was(self, drop: Drop) -> None:
        path = drop.put()

        def replace(_: int) -> None:
            (drop.incoming / ".new").write_bytes(b"another")
            os.rename(drop.incoming / ".new", path)

        with contextlib.suppress(NotComplete), drop.claim(progress=replace) as tarball:
            assert tarball.digest == DIGEST
        assert path.read_bytes() == b"another"

    def test_what_interrupts_the_copy_leaves_nothing(self, drop: Drop) -> None:
        drop.put()

        def stop(_: int) -> None:
            raise Failed("interrupted", "stop")

        assert drop.problem(Failed, progress=stop) == "interrupted"

    def test_whoever_opens_the_file_meanwhile_does_no_harm(self, drop: Drop) -> None:
        # A read lease that is broken makes the kernel send SIGIO, which by itself ends a process.
        path = drop.put()
        asking = (
            "import os, sys; from swapd.host.linux import has_writer\n"
            "d = os.open(sys.argv[1], os.O_RDONLY)\n"
            "print(sum(bool(has_writer(d)) for _ in range(50_000)))"
        )
        process = subprocess.Popen([sys.executable, "-c", asking, path], stdout=subprocess.PIPE, text=True, cwd=PROJECT)
        while process.poll() is None:
            os.close(os.open(path, os.O_WRONLY))
        found, _ = process.communicate()
        assert process.returncode == 0, f"ended by signal {-process.returncode}"
        assert int(found) > 0, "the two did meet"

    def test_an_uploader_with_a_lease_keeps_nobody_waiting(self, drop: Drop) -> None:
        """The kernel would have us wait for the lease's end, which is up to 45 s (/proc/sys/fs/lease-break-time)."""
        path = drop.put()
        holding = (
            "import fcntl, os, signal, sys\n"
            "signal.signal(signal.SIGIO, signal.SIG_IGN)\n"
            "d = os.open(sys.argv[1], os.O_RDWR)\n"
            "fcntl.fcntl(d, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
            "print('held', flush=True)\n"
            "sys.stdin.readline()\n"
            "print(fcntl.fcntl(d, fcntl.F_GETLEASE) != fcntl.F_UNLCK)\n"
        )
        holder = subprocess.Popen(
            [sys.executable, "-c", holding, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert drop.problem(NotComplete) == "still-open"
        assert holder.communicate("\n")[0] == "True\n", "it was not waited for"
        with drop.claim():
            pass

    def test_nobody_is_kept_waiting(self, drop: Drop) -> None:
        # The lease is given back: who opens the file for writing afterwards is not held up by it.
        path = drop.put()
        with drop.claim():
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    @pytest.mark.root
    def test_the_writer_of_a_file_that_is_not_ours_is_not_known(self, drop: Drop) -> None:
        path = drop.put()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            descriptor = os.open(path, os.O_RDONLY)
            os.setresuid(65534, 65534, 65534)
            os.write(writing, repr(has_writer(descriptor)).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(reading, 100) == b"None"
        os.close(reading)
        os.close(writing)


class TestThisHost:
    def test_a_place_for_copies_that_is_not_there(self, drop: Drop) -> None:
        drop.put()
        drop.claims.rmdir()
        with pytest.raises(Failed) as caught, drop.claim():
            pass
        assert caught.value.problem == "cannot-claim"

    def test_a_full_disk(self, drop: Drop) -> None:
        """Provoked by the limit on the size of files: the kernel's own ENOSPC is in the pipeline ring."""
        drop.put(content=b"x" * (1 << 20))
        program = (
            "import resource, signal, sys; from pathlib import Path\n"
            "from swapd.model.errors import Failed; from swapd.model.release import Upload\n"
            "from swapd.stages.claim import claim\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
            "try:\n"
            "    upload = Upload(Path(sys.argv[1]), 'shop.tar.gz', True)\n"
            "    with claim(upload, sys.argv[2], 1 << 30, lambda _: None): pass\n"
            "except Failed as error: print(error.problem)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, drop.incoming, drop.claims], capture_output=True, text=True, cwd=PROJECT
        )
        # Where the filesystem shares blocks nothing is written, and there is nothing to fail.
        assert done.stdout in ("cannot-claim\n", ""), done
        assert not os.listdir(drop.claims)

    @pytest.mark.parametrize("call", ["copy_file_range", "read", "pread"])
    def test_a_disk_that_fails(self, drop: Drop, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Under the upload, or under the copy; simulated, because a disk fails when it will."""
        drop.put()

        def fail(*_: Any) -> Any:
            raise OSError(errno.EIO, "Input/output error")

        if call == "read":  # where the kernel does not copy
            monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
        monkeypatch.setattr(os, call, fail)
        with pytest.raises(Failed) as caught, drop.claim():
            pass
        assert caught.value.problem == "cannot-claim"
        assert "Input/output error" in caught.value.message
        assert "A disk is failing" in caught.value.hint


class TestSidecars:
    @pytest.mark.parametrize(
        "text",
        [
            f"{DIGEST}  shop.tar.gz\n",
            f"{DIGEST} *shop.tar.gz\n",
            f"{DIGEST}  ./dist/shop.tar.gz\n",
            f"{DIGEST}  /home/dev/shop.tar.gz",
            f"{DIGEST}\n",
            DIGEST,
            DIGEST.upper(),
            f"  {DIGEST}\r\n",
            f"SHA256 (shop.tar.gz) = {DIGEST}\n",
            f"SHA256 (dist/shop.tar.gz) = {DIGEST}",
            f"{'0' * 64}  other.tar.gz\n{DIGEST}  shop.tar.gz\n",
        ],
    )
    def test_forms_that_say_the_digest(self, drop: Drop, text: str) -> None:
        drop.put()
        (drop.incoming / "shop.tar.gz.sha256").write_text(text)
        with drop.claim() as tarball:
            assert tarball.expected == DIGEST

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            DIGEST[:63].encode(),
            f"{DIGEST}0".encode(),
            f"{DIGEST}  other.tar.gz\n".encode(),
            f"{DIGEST}  notshop.tar.gz\n".encode(),
            f"{DIGEST}  shop.tar.gz.old\n".encode(),
            f"MD5 (shop.tar.gz) = {DIGEST}".encode(),
            b"\xff" * 64,
            b"<html>404</html>",
            b"x" * (64 << 10) + DIGEST.encode(),
        ],
    )
    def test_forms_that_do_not(self, drop: Drop, text: bytes) -> None:
        drop.put()
        (drop.incoming / "shop.tar.gz.sha256").write_bytes(text)
        assert drop.problem(NotComplete, is_settled=False) == "sidecar-incomplete"
        assert drop.problem(Rejected) == "bad-sidecar"

    def test_a_sidecar_may_be_no_trap_either(self, drop: Drop) -> None:
        drop.put()
        sidecar = drop.incoming / "shop.tar.gz.sha256"
        os.mkfifo(sidecar)
        assert drop.problem(Rejected) == "not-a-regular-file"
        sidecar.unlink()
        sidecar.symlink_to("/dev/zero")
        assert drop.problem(Rejected) == "not-a-regular-file"
        sidecar.unlink()
        sidecar.mkdir()
        assert drop.problem(Rejected) == "not-a-regular-file"

    @given(st.binary(max_size=200), st.text(max_size=10))
    def test_whatever_it_says_it_is_a_digest_or_none(self, text: bytes, name: str) -> None:
        found = parse_sidecar(text, name)
        assert found is None or (len(found) == 64 and set(found) <= set("0123456789abcdef"))

    @given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1))
    def test_the_digest_of_another_file_is_never_taken(self, name: str) -> None:
        assume(name.strip())  # else it is the digest alone
        line = f"{DIGEST}  {name}".encode()
        assert parse_sidecar(line, "shop.tar.gz") == (DIGEST if name == "shop.tar.gz" else None)


class TestSums:
    """SHA256SUMS speaks for each tarball that it lists, and that has no sidecar of its own."""

    OTHER = "0" * 64

    def put(self, drop: Drop, text: str) -> None:
        drop.put()
        (drop.incoming / "SHA256SUMS").write_text(text)
        (drop.incoming / "SHA256SUMS.sig").write_text("signature")

    def claimed(self, drop: Drop) -> Tarball:
        with drop.claim() as tarball:
            return tarball

    def test_one_that_lists_it(self, drop: Drop) -> None:
        text = f"{self.OTHER}  blog.tar.gz\n{DIGEST} *./dist/shop.tar.gz\n"
        self.put(drop, text)
        tarball = self.claimed(drop)
        assert tarball.expected == DIGEST
        assert tarball.signatures == (Signature("SHA256SUMS.sig", b"signature", text.encode()),)

    @pytest.mark.parametrize("text", ["", f"{OTHER}  blog.tar.gz\n", f"{OTHER}\n", f"{OTHER}  xshop.tar.gz\n"])
    def test_one_that_does_not(self, drop: Drop, text: str) -> None:
        self.put(drop, text)
        assert (self.claimed(drop).expected, self.claimed(drop).signatures) == (None, ())

    def test_its_own_sidecar_counts_first(self, drop: Drop) -> None:
        self.put(drop, f"{self.OTHER}  shop.tar.gz\n")
        own = drop.incoming / "shop.tar.gz.sha256"
        own.write_text(DIGEST)
        (drop.incoming / "shop.tar.gz.sha256.sig").write_text("of its own")
        (drop.incoming / "shop.tar.gz.sig").write_text("of itself")
        tarball = self.claimed(drop)
        assert tarball.expected == DIGEST
        assert tarball.signatures == (
            Signature("shop.tar.gz.sig", b"of itself", None),
            Signature("shop.tar.gz.sha256.sig", b"of its own", DIGEST.encode()),
        )

    def test_whatever_else_has_its_name_holds_up_nothing(self, drop: Drop) -> None:
        drop.put()
        sums = drop.incoming / "SHA256SUMS"
        os.mkfifo(sums)
        assert self.claimed(drop).expected is None
        sums.unlink()
        sums.symlink_to("/dev/zero")
        assert self.claimed(drop).expected is None
        sums.unlink()
        with sums.open("wb") as file:
            file.truncate(2 << 20)
        assert self.claimed(drop).expected is None


def test_has_writer_sees_a_writer_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert has_writer(descriptor) is False
        writing = os.open(path, os.O_WRONLY)
        assert has_writer(descriptor) is True
        os.close(writing)
        wait_until(lambda: has_writer(descriptor) is False, "the writer to be gone")
    finally:
        os.close(descriptor)

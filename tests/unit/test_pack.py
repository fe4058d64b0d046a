"""``swapd pack``: the same tree, the same bytes; what the receiver would refuse is refused here."""

import errno
import hashlib
import os
import pty
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pytest
from click.testing import CliRunner

from swapd.archive import Limits, extract_archive
from swapd.commands.pack import command
from swapd.model.errors import Failed, Rejected, UsageError
from swapd.model.layout import Layout
from swapd.model.release import Compression, parse_tarball_name
from swapd.packing.sources import commit_source, directory_source
from swapd.packing.tarball import pack
from tests.support.packing import WHEN, git, isolate, problem, run, succeed

SUFFIXES = {"gzip": ".tar.gz", "zstd": ".tar.zst", "xz": ".tar.xz", "none": ".tar"}
PASSPHRASE = "open sesame"  # noqa: S105 - of keys that live for one test
LIMITS = Limits(max_extracted=1 << 20, max_entries=1000)


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(tmp_path, monkeypatch)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A tree with one of everything that a release may hold."""
    site = tmp_path / "my site"
    (site / "assets/empty").mkdir(parents=True)
    (site / ".git").mkdir()
    (site / ".git/config").write_text("secret")
    (site / "assets/.git").write_text("gitdir: elsewhere")  # as a submodule has it
    (site / "index.html").write_text("<h1>one</h1>")
    (site / "run.sh").write_text("#!/bin/sh")
    (site / "run.sh").chmod(0o700)
    (site / "assets/größe 👩‍💻.css").write_text("body {}")
    (site / ("long-" * 40)).write_text("a name beyond ustar's hundred bytes")
    os.link(site / "index.html", site / "assets/hard.html")
    os.symlink("../index.html", site / "assets/back")
    os.symlink("not-there-yet", site / "uploads")
    for directory, _, files in os.walk(site):
        for name in files:
            os.utime(os.path.join(directory, name), (WHEN, WHEN), follow_symlinks=False)
    os.utime(site / "assets/back", (WHEN, WHEN), follow_symlinks=False)
    os.utime(site / "index.html", (WHEN + 60, WHEN + 60))
    return site


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    repository = tmp_path / "shop"
    (repository / "tests").mkdir(parents=True)
    (repository / "index.php").write_text("<?php")
    (repository / "build.sh").write_text("#!/bin/sh")
    (repository / "build.sh").chmod(0o755)
    (repository / "tests/unit.php").write_text("<?php")
    (repository / ".gitattributes").write_text("/tests export-ignore\n.gitattributes export-ignore\n")
    git(repository, "init", "--quiet")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "first")
    monkeypatch.chdir(repository)
    return repository


# What is in it -------------------------------------------------------------------------------------------------


def test_a_tree_becomes_files_directories_and_symlinks_of_nobody(site: Path) -> None:
    pack(directory_source(site), Path("shop-1.tar"))
    with tarfile.open("shop-1.tar") as archive:
        members = {member.name: member for member in archive}
    assert list(members) == [
        "shop-1",
        "shop-1/assets",
        "shop-1/assets/back",
        "shop-1/assets/empty",
        "shop-1/assets/größe 👩‍💻.css",
        "shop-1/assets/hard.html",
        "shop-1/index.html",
        "shop-1/" + "long-" * 40,
        "shop-1/run.sh",
        "shop-1/uploads",
    ]
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members.values()} == {(0, 0, "", "", WHEN + 60)}
    assert all(m.isreg() or m.isdir() or m.issym() for m in members.values())
    assert members["shop-1/assets/hard.html"].size == len("<h1>one</h1>")
    assert members["shop-1/run.sh"].mode == members["shop-1/assets"].mode == 0o755
    assert members["shop-1/index.html"].mode == 0o644
    assert members["shop-1/assets/back"].linkname == "../index.html"


@pytest.mark.parametrize("compression", SUFFIXES)
def test_tar_restores_what_was_packed(site: Path, compression: str) -> None:
    succeed(site, "--name", "shop-1", "--compress", compression)
    tarball = f"shop-1{SUFFIXES[compression]}"
    subprocess.run(["tar", "--extract", f"--file={tarball}"], check=True)
    shutil.rmtree(site / ".git")
    (site / "assets/.git").unlink()
    subprocess.run(["diff", "--recursive", "--no-dereference", site, "shop-1"], check=True)


@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_the_receiver_takes_what_was_packed(site: Path, tmp_path: Path, suffix: str) -> None:
    (site / "deep").joinpath(*["d"] * (LIMITS.max_depth - 2)).mkdir(parents=True)  # and one for the top-level directory
    pack(directory_source(site), Path(f"shop-1{suffix}"))
    (tmp_path / "received").mkdir()
    directory = os.open(tmp_path / "received", os.O_RDONLY | os.O_DIRECTORY)
    with open(f"shop-1{suffix}", "rb") as tarball:
        compression = parse_tarball_name(tarball.name)[1]
        extract_archive(
            tarball.fileno(), compression, directory, LIMITS, strip_components=None, progress=lambda _: None
        )
    os.close(directory)
    shutil.rmtree(site / ".git")
    (site / "assets/.git").unlink()
    subprocess.run(["diff", "--recursive", "--no-dereference", site, tmp_path / "received"], check=True)


def test_a_site_of_a_single_directory_is_not_unwrapped_twice(tmp_path: Path) -> None:
    (tmp_path / "site/public").mkdir(parents=True)
    (tmp_path / "site/public/index.html").write_text("one")
    pack(directory_source(tmp_path / "site"), Path("shop-1.tar"))
    (tmp_path / "received").mkdir()
    directory = os.open(tmp_path / "received", os.O_RDONLY | os.O_DIRECTORY)
    with open("shop-1.tar", "rb") as tarball:
        extract_archive(
            tarball.fileno(), Compression.NONE, directory, LIMITS, strip_components=None, progress=lambda _: None
        )
    os.close(directory)
    assert (tmp_path / "received/public/index.html").read_text() == "one"


@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_the_same_tree_gives_the_same_bytes(site: Path, tmp_path: Path, suffix: str) -> None:
    copy = tmp_path / "elsewhere/copy"
    copy.parent.mkdir()
    for entry in sorted(os.listdir(site), reverse=True):  # the order in which entries come to be must not matter
        subprocess.run(["cp", "-a", "--parents", entry, _made(copy)], cwd=site, check=True)
    (copy / "index.html").chmod(0o600)
    first = pack(directory_source(site), Path(f"shop-1{suffix}"))
    (tmp_path / "again").mkdir()
    again = pack(directory_source(copy), tmp_path / f"again/shop-1{suffix}")
    assert first.digest == again.digest
    assert first.tarball.read_bytes() == again.tarball.read_bytes()


def _made(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    return directory


def test_the_environment_may_set_the_time(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    source = directory_source(site)
    assert (source.mtime, source.name) == (86400, "my-site-19700102T000000Z")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        directory_source(site)


# What is beside it ---------------------------------------------------------------------------------------------


def test_the_digest_is_as_sha256sum_prints_it(site: Path) -> None:
    packed = pack(directory_source(site), Path("shop-1.tar.gz"))
    printed = subprocess.run(["sha256sum", "shop-1.tar.gz"], check=True, capture_output=True).stdout
    assert Path("shop-1.tar.gz.sha256").read_bytes() == printed
    assert packed.digest == hashlib.sha256(Path("shop-1.tar.gz").read_bytes()).hexdigest()
    assert (packed.size, packed.files) == (Path("shop-1.tar.gz").stat().st_size, 5)


def test_without_a_name_the_release_is_called_by_directory_and_time(site: Path) -> None:
    output = succeed(site)
    tarball = "my-site-20231114T221420Z.tar.gz"
    assert sorted(os.listdir()) == [tarball, f"{tarball}.sha256"]
    assert f"  scp {tarball}.sha256 {tarball} USER@HOST:/var/spool/swapd/SITE/\n" in output
    assert parse_tarball_name(tarball)


def test_in_a_drop_directory_nothing_is_left_to_send(site: Path, tmp_path: Path) -> None:
    incoming = tmp_path / "root/var/spool/swapd/shop"
    incoming.mkdir(parents=True)
    arguments = [str(site), "--name", "shop-1", "--output", str(incoming)]
    said = CliRunner().invoke(command, arguments, obj=Layout(tmp_path / "root")).stdout
    assert "swapd follow shop shop-1.tar.gz\n" in said
    assert "scp" not in said
    assert sorted(os.listdir(incoming)) == ["shop-1.tar.gz", "shop-1.tar.gz.sha256"]


def test_output_may_be_a_file_or_a_directory(site: Path, tmp_path: Path) -> None:
    succeed(site, "--output", tmp_path / "out/shop-2.tar.xz")
    succeed(site, "--output", tmp_path / "out", "--name", "shop-3", "--compress", "none")
    assert {"shop-2.tar.xz", "shop-3.tar"} <= set(os.listdir(tmp_path / "out"))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    return key


def verify(tarball: str, key: Path, namespace: str = "swapd") -> int:
    signers = key.with_suffix(".signers")
    signers.write_text(f"deploy {key.with_suffix('.pub').read_text()}")
    command = ["ssh-keygen", "-Y", "verify", "-f", signers, "-I", "deploy", "-n", namespace, "-s", f"{tarball}.sig"]
    with open(tarball, "rb") as file:
        return subprocess.run(command, stdin=file, capture_output=True).returncode


def test_a_signature_is_one_that_ssh_keygen_verifies(site: Path, key: Path) -> None:
    output = succeed(site, "--name", "shop-1", "--sign", key)
    assert verify("shop-1.tar.gz", key) == 0
    assert "scp shop-1.tar.gz.sha256 shop-1.tar.gz.sig shop-1.tar.gz USER@HOST" in output


def test_a_signature_for_one_site(site: Path, key: Path) -> None:
    succeed(site, "--name", "shop-1", "--sign", key, "--namespace", "swapd:shop")
    assert verify("shop-1.tar.gz", key, "swapd:shop") == 0
    assert verify("shop-1.tar.gz", key) != 0


def test_a_new_tarball_never_keeps_an_old_signature(site: Path, key: Path) -> None:
    succeed(site, "--name", "shop-1", "--sign", key)
    old = Path("shop-1.tar.gz.sig").read_bytes()
    Path("shop-1.tar.gz.sha256.sig").write_text("of the old digest")
    (site / "index.html").write_text("two")
    succeed(site, "--name", "shop-1", "--sign", key, "--force")
    assert not Path("shop-1.tar.gz.sha256.sig").exists()
    assert Path("shop-1.tar.gz.sig").read_bytes() != old
    assert verify("shop-1.tar.gz", key) == 0
    succeed(site, "--name", "shop-1", "--force")
    assert sorted(os.listdir()) == ["shop-1.tar.gz", "shop-1.tar.gz.sha256"]


@pytest.mark.parametrize("content", ["no key at all", None], ids=["not-a-key", "public-half-without-agent"])
def test_a_key_that_cannot_sign_leaves_nothing_behind(
    site: Path, key: Path, content: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    if content is None:
        key.unlink()
        key = key.with_suffix(".pub")
    else:
        key.write_text(content)
    assert problem(site, "--name", "shop-1", "--sign", key) == "cannot-sign"
    assert os.listdir() == []


@pytest.fixture
def locked_key(tmp_path: Path) -> Path:
    key = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", PASSPHRASE, "-f", key], check=True)
    return key


def test_a_passphrase_is_asked_for_on_the_terminal(site: Path, locked_key: Path) -> None:
    said = at_a_terminal(site, "--name", "shop-1", "--sign", locked_key, answer=PASSPHRASE)
    assert "passphrase" in said
    assert "shop-1.tar.gz.sig" in said
    assert verify("shop-1.tar.gz", locked_key) == 0


def test_a_wrong_passphrase_leaves_nothing_behind(site: Path, locked_key: Path) -> None:
    said = at_a_terminal(site, "--name", "shop-1", "--sign", locked_key, answer="wrong", status=1)
    assert "ssh-add KEY" in " ".join(said.split())
    assert os.listdir() == []


def test_without_a_terminal_a_locked_key_is_an_error_that_names_the_agent(
    site: Path, locked_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("SSH_AUTH_SOCK", "SSH_ASKPASS", "DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    result = run(site, "--name", "shop-1", "--sign", locked_key)
    assert isinstance(result.exception, Failed)
    assert result.exception.problem == "cannot-sign"
    assert "ssh-add" in result.exception.hint
    assert os.listdir() == []


@pytest.mark.parametrize("suffix", ["", ".pub"], ids=["locked-key", "public-half"])
def test_an_agent_signs(
    site: Path, locked_key: Path, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    askpass = tmp_path / "askpass"
    askpass.write_text(f"#!/bin/sh\necho {PASSPHRASE}\n")
    askpass.chmod(0o755)
    with tempfile.TemporaryDirectory(prefix="agent-") as directory:  # a socket's path has to be short
        agent = subprocess.Popen(
            ["ssh-agent", "-D", "-a", f"{directory}/socket"], stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            assert agent.stdout is not None
            agent.stdout.readline()  # it listens
            monkeypatch.setenv("SSH_AUTH_SOCK", f"{directory}/socket")
            asking = os.environ | {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
            subprocess.run(["ssh-add", "-q", locked_key], env=asking, check=True)
            if suffix:
                locked_key.rename(tmp_path / "elsewhere")  # as where the agent is forwarded
            succeed(site, "--name", "shop-1", "--sign", f"{locked_key}{suffix}")
        finally:
            agent.kill()
            agent.communicate()
    assert verify("shop-1.tar.gz", locked_key) == 0


def at_a_terminal(*arguments: str | Path, answer: str, status: int = 0) -> str:
    """What ``swapd pack`` shows on a terminal where the answer is typed to its first question."""
    swapd = [sys.executable, "-c", "from swapd.cli import main; main()", "pack", *map(str, arguments)]
    environment = {key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"}
    terminal, inner = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *swapd], stdin=inner, stdout=inner, stderr=inner, env=environment
    )
    os.close(inner)
    said = b""
    with open(terminal, "r+b", buffering=0) as shown:
        while b"passphrase" not in said and (more := _read(shown)):
            said += more
        shown.write(f"{answer}\n".encode())
        while more := _read(shown):
            said += more
    assert process.wait() == status, said
    return said.decode()


def _read(terminal: IO[bytes]) -> bytes:
    try:
        return terminal.read(4096)
    except OSError as error:
        if error.errno != errno.EIO:  # how Linux tells that nobody is at the other end any more
            raise
        return b""


# What is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("existing", ["shop-1.tar.gz", "shop-1.tar.gz.sha256", "shop-1.tar.gz.sig"])
def test_nothing_is_overwritten_unless_forced(site: Path, existing: str) -> None:
    Path(existing).write_text("precious")
    assert problem(site, "--name", "shop-1") == "output-exists"
    assert os.listdir() == [existing]
    assert Path(existing).read_text() == "precious"
    succeed(site, "--name", "shop-1", "--force")


def test_special_files_and_symlinks_that_lead_outside_are_all_named(site: Path) -> None:
    os.mkfifo(site / "assets/pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.path.relpath(site / "sock"))
    targets = {"absolute": "/etc/passwd", "up": "../outside", "detour": "assets/../..", "chain": "assets/hop/.."}
    for name, target in targets.items():
        os.symlink(target, site / name)
    os.symlink("../..", site / "assets/hop")
    with pytest.raises(Rejected) as refusal:
        directory_source(site)
    for name in ("assets/pipe", "sock", *targets, "assets/hop"):
        assert re.search(rf"(^|; ){name} is ", refusal.value.message)
    assert all(issue.hint for issue in refusal.value.issues)


@pytest.mark.parametrize(
    "names", [[b"caf\xe9.html"], [b"two\nlines"], ["é".encode(), "e\u0301".encode()]], ids=["latin1", "newline", "nfc"]
)
def test_names_that_the_receiver_refuses_are_refused(site: Path, names: Sequence[bytes]) -> None:
    for name in names:
        Path(os.fsdecode(os.fsencode(site / "assets") + b"/" + name)).touch()
    with pytest.raises(Rejected):
        directory_source(site)


def test_many_issues_are_counted_rather_than_listed(site: Path) -> None:
    for number in range(25):
        os.mkfifo(site / f"pipe-{number:02}")
    with pytest.raises(Rejected, match=r"pipe-09 .*and 15 more like these$"):
        directory_source(site)


def test_a_tree_too_deep_for_the_receiver_is_refused_and_not_stumbled_over(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    path = deep.joinpath(*["d"] * 300)
    path.mkdir(parents=True)
    with pytest.raises(Rejected) as refusal:
        directory_source(deep)
    assert refusal.value.problem == "too-deep"


def test_an_empty_tree_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty/.git").mkdir(parents=True)
    with pytest.raises(Rejected) as refusal:
        directory_source(tmp_path / "empty")
    assert refusal.value.problem == "nothing-to-pack"


@pytest.mark.parametrize("change", ["longer", "shorter", "replaced", "gone"])
def test_a_file_that_changes_meanwhile_is_noticed(site: Path, change: str) -> None:
    source = directory_source(site)
    victim = site / "index.html"
    match change:
        case "longer":
            victim.write_text("<h1>much longer</h1>")
        case "shorter":
            victim.write_text("")
        case "replaced":
            shutil.copy2(victim, site / "new")
            os.rename(site / "new", victim)
        case "gone":
            victim.unlink()
    with pytest.raises(Failed) as failure:
        pack(source, Path("shop-1.tar.zst"))
    assert failure.value.problem == ("unreadable-tree" if change == "gone" else "changed-while-packing")
    assert os.listdir() == []


def test_command_lines_that_make_no_sense(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem() == "what-to-pack"
    assert problem(site, "--git", "HEAD") == "what-to-pack"
    assert problem(tmp_path / "missing") == "no-such-directory"
    assert problem(site, "--sign", tmp_path / "missing") == "no-such-key"
    assert problem(site, "--output", "shop.zip") == "not-a-tarball"
    assert problem(site, "--output", "shop.tar.bz2") == "bad-compression"
    assert problem(site, "--output", "shop.tar.xz", "--compress", "gzip") == "bad-compression"
    assert problem(site, "--output", "shop.tar.xz", "--name", "shop-2") == "name-twice"
    assert problem(site, "--name", "../shop") == "bad-release-name"
    assert problem(site, "--output", tmp_path / "missing/shop-1.tar") == "cannot-write"
    assert problem(site, "--output", site / "assets/shop-1.tar") == "output-inside-tree"
    monkeypatch.chdir(site)
    assert problem(".") == "output-inside-tree"


def test_a_missing_compressor_is_named(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(site / "assets/empty"))
    assert problem(site, "--compress", "zstd") == "no-zstd"
    assert os.listdir() == []


# Commits -------------------------------------------------------------------------------------------------------


def test_a_commit_is_packed_as_git_archive_exports_it(repository: Path, tmp_path: Path) -> None:
    (repository / "index.php").write_text("not committed")
    short = git(repository, "rev-parse", "--short", "HEAD")
    succeed("--git", "HEAD", "--output", tmp_path / "out")
    with tarfile.open(tmp_path / f"out/shop-{short}.tar.gz") as archive:
        members = {member.name: member for member in archive}
        content = archive.extractfile(f"shop-{short}/index.php")
        assert content is not None
        assert content.read() == b"<?php"
        assert archive.pax_headers == {}
    assert list(members) == [f"shop-{short}{path}" for path in ("", "/build.sh", "/index.php")]
    assert {member.mtime for member in members.values()} == {WHEN}
    assert members[f"shop-{short}/build.sh"].mode == 0o755
    assert members[f"shop-{short}/index.php"].mode == 0o644


def test_the_same_commit_of_a_bare_clone_gives_the_same_bytes(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), "shop.git")
    git(repository, "config", "tar.umask", "0077")
    digests = []
    for number, directory in enumerate((repository, tmp_path / "shop.git")):
        (tmp_path / f"out/{number}").mkdir()
        with commit_source("HEAD", directory) as source:
            assert source.name.startswith("shop-")
            digests.append(pack(source, tmp_path / f"out/{number}/shop-1.tar.gz").digest)
    assert digests[0] == digests[1]


@pytest.mark.usefixtures("repository")
def test_a_name_that_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem("--git", "nosuch") == "no-such-commit"
    assert problem("--git", "--help") == "no-such-commit"
    assert problem("--git", "HEAD:tests") == "no-such-commit"  # a tree has no time
    monkeypatch.chdir(tmp_path)
    assert problem("--git", "HEAD") == "git-failed"
    monkeypatch.setenv("PATH", str(tmp_path / "out"))
    assert problem("--git", "HEAD") == "no-git"


def test_submodules_are_not_left_out_in_silence(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{commit},vendor/library")
    git(repository, "commit", "--quiet", "--message", "with a submodule")
    result = run("--git", "HEAD")
    assert isinstance(result.exception, Rejected)
    assert result.exception.problem == "has-submodules"
    assert "vendor/library" in result.exception.message


def test_a_commit_with_a_symlink_that_leads_outside_is_refused(repository: Path) -> None:
    os.symlink("/etc/passwd", repository / "passwd")
    git(repository, "add", "passwd")
    git(repository, "commit", "--quiet", "--message", "a link")
    assert problem("--git", "HEAD") == "symlink-absolute"

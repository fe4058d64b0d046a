"""What ``swapd pack`` leaves out: ``.swapdignore``, version control's own, export-ignore; and that it says so."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from swapd.model.errors import Rejected
from swapd.packing.ignored import NAME, patterns_of
from swapd.packing.sources import commit_source, directory_source
from swapd.packing.tarball import pack
from tests.support.packing import git, isolate, problem, run, succeed

FILES = (
    ".env",
    "index.php",
    "app/cache/old.html",
    "app/index.php",
    "app/build/main.js",
    "build/main.js",
    "error.log",
    "keep.log",
    "node_modules/a/index.js",
    "node_modules/a/keep.log",
    "docs/a/b/notes.txt",
    "docs/notes.md",
)


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(tmp_path, monkeypatch)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "shop"
    for name in FILES:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(name)
    return site


@pytest.fixture
def repository(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    git(site, "init", "--quiet")
    monkeypatch.chdir(site)
    return site


def commit(repository: Path) -> None:
    git(repository, "add", "--force", ".")
    git(repository, "commit", "--quiet", "--message", "it")


def packed_files(path: Path | str = "shop-1.tar") -> set[str]:
    with tarfile.open(path) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isreg()}


# Patterns, and those of FILES that they leave out: what gitignore(5) promises.
SYNTAX = {
    "anywhere": (".env\nbuild\n", {".env", "build/main.js", "app/build/main.js"}),
    "the-root-only": ("/build/\n", {"build/main.js"}),
    "comments-blank-lines-crlf-bom": ("\ufeff# all\r\n\r\n.env\r\n  \n", {".env"}),
    "again-unless": ("*.log\n!keep.log\n", {"error.log"}),
    "not-below-a-directory-left-out": (
        "node_modules/\n!keep.log\n!node_modules/a/keep.log\n",
        {"node_modules/a/index.js", "node_modules/a/keep.log"},
    ),
    "content-only": ("/app/cache/*\n", {"app/cache/old.html"}),
    "any-depth": ("docs/**/notes.*\n", {"docs/a/b/notes.txt", "docs/notes.md"}),
    "brackets": ("[!a-z]env\nnotes.[[:alpha:]]d\n", {".env", "docs/notes.md"}),
    "a-directory-is-no-file": (".env/\nindex.php/\n", set()),
    "escaped": ("\\.env\n\\!no\n\\#no\n", {".env"}),
}


@pytest.mark.parametrize(("patterns", "gone"), SYNTAX.values(), ids=SYNTAX)
def test_patterns_mean_what_they_do_for_git(site: Path, patterns: str, gone: set[str]) -> None:
    (site / NAME).write_text(patterns, newline="")
    output = succeed(site, "--output", "shop-1.tar")
    assert packed_files() == set(FILES) - gone
    assert ("left out by .swapdignore: " in output) == bool(gone)


@pytest.mark.parametrize("patterns", [pattern for pattern, _ in SYNTAX.values()], ids=SYNTAX)
def test_a_commit_is_packed_without_the_same_files(repository: Path, patterns: str, tmp_path: Path) -> None:
    (repository / NAME).write_text(patterns, newline="")
    commit(repository)
    with commit_source("HEAD", repository) as source:
        pack(source, tmp_path / "out/commit.tar")
    pack(directory_source(repository), tmp_path / "out/directory.tar")
    assert packed_files(tmp_path / "out/commit.tar") == packed_files(tmp_path / "out/directory.tar")


def test_a_directory_whose_content_is_left_out_stays_and_one_that_is_left_out_does_not(site: Path) -> None:
    (site / NAME).write_text("/app/cache/*\n/docs/\n")
    (site / "node_modules/empty").mkdir()
    succeed(site, "--output", "shop-1.tar")
    with tarfile.open("shop-1.tar") as archive:
        directories = {member.name for member in archive if member.isdir()}
    assert {"shop-1/app/cache", "shop-1/node_modules/empty"} <= directories
    assert "shop-1/docs" not in directories


def test_what_is_left_out_is_named_and_counted(site: Path) -> None:
    (site / NAME).write_text("node_modules\n*.log\n/docs/\n.env\n*.js\nold.html\n")
    (site / "app/.svn").mkdir()
    (site / ".git").write_text("gitdir: elsewhere")
    output = succeed(site, "--output", "shop-1.tar")
    assert "\nleft out: .git, app/.svn/\n" in output
    named = ".env, app/build/main.js, app/cache/old.html, build/main.js, docs/ and 3 more"
    assert f"\nleft out by .swapdignore: {named}\n" in output
    assert packed_files() == {"index.php", "app/index.php"}


def test_a_name_that_would_write_on_the_terminal_is_shown_harmless(site: Path) -> None:
    (site / NAME).write_text("*.tmp\n")
    (site / "\x1b[2J\n.tmp").touch()
    output = succeed(site, "--output", "shop-1.tar")
    assert "\x1b" not in output
    assert "left out by .swapdignore: " in output


def test_names_that_mean_something_to_git_are_only_names(site: Path) -> None:
    (site / NAME).write_text("*.tmp\n")
    odd = (
        ":(top)a",
        ":!excluded",
        ":(glob)x",
        "-n",
        "*",
        "[",
        "a b.html",
        '"quoted"',
        "ü.html",
        "back\\slash",
        "CON",
        "git~1",
    )
    for name in odd:
        (site / name).touch()
        (site / f"{name}.tmp").touch()
    pack(directory_source(site), Path("shop-1.tar"))
    assert packed_files() == {*FILES, *odd}


def test_a_directory_that_is_left_out_is_not_even_read(site: Path, tmp_path: Path) -> None:
    (site / NAME).write_text("/secrets/\n/link/\n")
    (site / "secrets/deep").mkdir(parents=True)
    os.mkfifo(site / "secrets/pipe")  # would be refused
    os.utime(_touched(site / "secrets/newer"), (4e9, 4e9))  # would be the time of all files
    os.symlink(tmp_path, site / "link")  # a symlink is no directory, and leads outside
    assert problem(site, "--name", "shop-1") == "symlink-absolute"
    (site / "link").unlink()
    source = directory_source(site)
    assert source.mtime < 4e9


def _touched(path: Path) -> Path:
    path.touch()
    return path


def test_the_file_itself_is_not_packed_and_only_the_one_in_the_root_counts(site: Path) -> None:
    (site / NAME).write_text("")
    (site / "app" / NAME).write_text("index.php\n")
    succeed(site, "--output", "shop-1.tar")
    assert packed_files() == {*FILES, f"app/{NAME}"}


def test_neither_the_users_nor_the_sites_own_gitignore_decides(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    excludes = tmp_path / "excludes"
    excludes.write_text("index.php\n")
    (tmp_path / ".gitconfig").write_text(f"[core]\nexcludesFile = {excludes}\nignoreCase = true\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GIT_CONFIG_GLOBAL")
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "1")
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))  # as in a hook
    (repository / ".gitignore").write_text("app\n")
    (repository / NAME).write_text("INDEX.php\n.gitignore\n")
    pack(directory_source(repository), tmp_path / "out/shop-1.tar")
    assert packed_files(tmp_path / "out/shop-1.tar") == set(FILES)


# What is wrong with the file ------------------------------------------------------------------------------------

# Patterns that git takes in silence and that match nothing; the files that their authors may have meant.
USELESS = {
    "dot-slash": ("./build", ["build"]),
    "parent": ("../shop/build", ["build"]),
    "inner-dot": ("a/./b", ["a/b"]),
    "two-slashes": ("a//b", ["a/b"]),
    "backslash": ("build\\", ["build", "build\\"]),
    "bracket": ("[build", ["[build", "b"]),
    "class": ("[[:letter:]]x", ["ax", "[x"]),
    "slash": ("/", ["a"]),
    "nothing-again": ("!", ["a"]),
    "again-dot-slash": ("!./build", ["build"]),
}


@pytest.mark.parametrize(("pattern", "meant"), USELESS.values(), ids=USELESS)
def test_a_pattern_that_matches_nothing_is_an_error_with_its_line(
    site: Path, pattern: str, meant: Sequence[str], tmp_path: Path
) -> None:
    (site / NAME).write_text(f"# what stays here\n.env\n{pattern}\n")
    result = run(site, "--name", "shop-1")
    assert isinstance(result.exception, Rejected)
    assert [issue.problem for issue in result.exception.issues] == ["bad-pattern"]
    assert f"{site / NAME}:3: {pattern} ".replace("\\", "") in result.exception.message.replace("\\", "")
    assert result.exception.hint
    assert os.listdir() == []
    # And git agrees that it is useless.
    git(tmp_path, "init", "--quiet", "repository")
    (tmp_path / "repository/.git/info/exclude").write_text(f"{pattern.removeprefix('!')}\n")
    command = ["git", "-C", tmp_path / "repository", "check-ignore", "--no-index", *(f"./{name}" for name in meant)]
    assert subprocess.run(command, capture_output=True).returncode == 1


@pytest.mark.parametrize(
    "pattern", ["[]x]", "[!]x]", "[^a]", "a\\ ", "[[:alpha:]]", "[a\\]]", "[[]", "**", "a\\\\", "]"]
)
def test_a_pattern_that_git_understands_is_taken(pattern: str) -> None:
    with patterns_of(f"{pattern}\n".encode(), NAME) as patterns:
        patterns.matched({"a": False})


def test_all_bad_lines_are_named_at_once(site: Path) -> None:
    (site / NAME).write_bytes(b"./a\nok\ncaf\xe9\nnul\0\n[x\n")
    with pytest.raises(Rejected) as refusal:
        directory_source(site)
    lines = [issue.message.removeprefix(f"{site / NAME}:").partition(":")[0] for issue in refusal.value.issues]
    assert lines == ["1", "3", "4", "5"]


@pytest.mark.parametrize("kind", ["directory", "dangling-link"])
def test_a_file_that_cannot_be_read_is_an_error(site: Path, kind: str) -> None:
    if kind == "directory":
        (site / NAME).mkdir()
    else:
        os.symlink("not-there", site / NAME)
    assert problem(site, "--name", "shop-1") == "unreadable-tree"
    assert os.listdir() == []


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_a_commits_file_that_is_none_is_an_error(repository: Path, kind: str) -> None:
    if kind == "directory":
        (repository / NAME).mkdir()
        (repository / NAME / "x").touch()
    else:
        os.symlink(".env", repository / NAME)
    commit(repository)
    assert problem("--git", "HEAD", "--output", "/tmp") == "bad-ignore-file"


def test_without_git_patterns_are_not_passed_over(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / NAME).write_text(".env\n")
    monkeypatch.setenv("PATH", str(site))
    assert problem(site, "--name", "shop-1") == "no-git"
    (site / NAME).unlink()
    succeed(site, "--name", "shop-1")


# Commits --------------------------------------------------------------------------------------------------------


def test_a_commit_obeys_its_own_file_and_export_ignore(repository: Path, tmp_path: Path) -> None:
    (repository / NAME).write_text(".env\n")
    (repository / ".gitattributes").write_text(f"/docs export-ignore\n*.log export-ignore\n{NAME} export-ignore\n")
    commit(repository)
    (repository / NAME).write_text("index.php\n")  # not committed
    output = succeed("--git", "HEAD", "--output", tmp_path / "out/shop-1.tar")
    gone = {".env", "docs/a/b/notes.txt", "docs/notes.md", "error.log", "keep.log", "node_modules/a/keep.log"}
    assert packed_files(tmp_path / "out/shop-1.tar") == {*FILES, ".gitattributes"} - gone
    assert "\nleft out by export-ignore: docs/, error.log, keep.log, node_modules/a/keep.log\n" in output
    assert "\nleft out by .swapdignore: .env\n" in output


# The same bytes -------------------------------------------------------------------------------------------------

SURROUNDINGS: dict[str, dict[str, str]] = {
    "plain": {},
    "elsewhere": {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONHASHSEED": "1", "LANG": "tr_TR.UTF-8"},
    "settings-of-compressors": {"ZSTD_CLEVEL": "19", "ZSTD_NBTHREADS": "4", "XZ_OPT": "-9e", "GZIP": "-1"},
}


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_the_same_tree_gives_the_same_bytes_whoever_packs_it_wherever(
    site: Path, tmp_path: Path, compression: str
) -> None:
    (site / NAME).write_text("*.log\nnode_modules\n")
    (site / "größe.css").write_text("body {}" * 10_000)
    for directory, _, files in os.walk(site):
        for name in files:
            os.utime(Path(directory) / name, (1.7e9, 1.7e9))
    packed = set()
    for number, (name, settings) in enumerate(SURROUNDINGS.items()):
        tree = tmp_path / name / "shop"
        tree.parent.mkdir()
        subprocess.run(["cp", "--archive", site, tree], check=True)
        if os.geteuid() == 0:
            subprocess.run(["chown", "--recursive", f"{number + 1000}:{number + 2000}", tree], check=True)
        (tree / "error.log").write_text(name)  # newer than all, and left out
        swapd = [sys.executable, "-c", "from swapd.cli import main; main()"]
        subprocess.run(
            [*swapd, "pack", "shop", "--compress", compression, "--output", tmp_path / "out"],
            cwd=tree.parent,
            env=os.environ | settings,
            umask=0o077 if number else 0o002,
            check=True,
        )
        (tarball,) = (tmp_path / "out").glob("*.tar.gz" if compression == "gzip" else "*.tar.zst")
        packed.add((tarball.name, tarball.read_bytes()))
        for file in (tmp_path / "out").iterdir():
            file.unlink()
    assert len(packed) == 1

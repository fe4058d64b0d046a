"""Completion: what swapd answers to a shell, and what real shells make of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tomli_w

from swapd.completion import table
from swapd.completion.answers import answer
from swapd.host import records
from swapd.model.layout import Layout
from swapd.model.record import LiveRelease, SiteState, TreeIdentity, now
from swapd.model.release import TARBALL_SUFFIXES, DeploymentId, Outcome, ReleaseId, SiteName
from swapd.verbs import VERBS
from tests.support.httpd import PROJECT
from tests.support.scripts import load_script
from tests.support.shells import ALL, BASH, ZSH, Typist, typing
from tests.support.sites import environment

COMPLETIONS = PROJECT / "packaging/completions"
SHOP = SiteName("shop")
LIVE, BEFORE, BAD, OLD = (ReleaseId(f"shop-{n}@{n:012x}") for n in (42, 41, 40, 39))
# What a shell would run, or take for an option, if it came into the line.
HOSTILE = ["$(touch pwned)", "`touch pwned`@000000000000", "; touch pwned #", "-x", "a b", "a\nb", "*", "", "~root"]


def lay_out(root: Path) -> Layout:
    """Two sites, one of them with kept releases."""
    layout = Layout(root)
    layout.sites.mkdir(parents=True)
    for site in ("shop", "blog"):
        layout.site_file(site).touch()
    records.make_state_directories(layout, SHOP)
    live = LiveRelease(LIVE, None, DeploymentId("x"), now(), TreeIdentity(1, 2))
    records.write_state(layout, SHOP, SiteState(live, (BEFORE, BAD, OLD), bad=(BAD,), pinned=(OLD, BEFORE)))
    return layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return lay_out(tmp_path)


Ask = Callable[..., dict[str, str]]


@pytest.fixture
def ask(layout: Layout) -> Ask:
    """The answers to words, each with what it is."""

    def ask(*words: str) -> dict[str, str]:
        lines = []
        with contextlib.suppress(OSError):  # as for whom it is answered
            lines = list(answer(["--root", str(layout.root), *words]))
        return {value: what for value, _, what in (line.partition("\t") for line in lines)}

    return ask


def test_the_table_is_what_the_commands_say() -> None:
    generator = load_script(COMPLETIONS / "generate")
    assert generator.table() == (table.OPTIONS, table.VERBS), "a command has changed: make completions"


class TestAnswers:
    def test_verbs(self, ask: Ask) -> None:
        assert list(ask("")) == list(VERBS)
        assert ask("st") == {"status": VERBS["status"].removesuffix(".")}
        assert not ask("nothing", "")

    def test_options(self, ask: Ask) -> None:
        assert "--json" in ask("check", "-")
        assert list(ask("check", "shop", "--js")) == ["--json"]
        assert not ask("check", "--json", "--js"), "it is given already"
        assert not ask("check", "--", "--js")
        assert list(ask("init", "x", "--strategy", "p")) == ["pinned"]
        assert list(ask("init", "x", "--strategy=p")) == ["--strategy=pinned"]
        assert not ask("deploy", "--wait", "")

    @pytest.mark.parametrize(
        "verb", [verb for verb, (_, positionals, _) in table.VERBS.items() if "site" in positionals]
    )
    def test_sites(self, ask: Ask, verb: str) -> None:
        assert list(ask(verb, "")) == ["blog", "shop"]
        assert list(ask(verb, "--help", "s")) == ["shop"]
        assert not {"blog", "shop"} & ask(verb, "shop", "").keys()

    def test_releases(self, ask: Ask) -> None:
        assert ask("rollback", "shop", "") == {BEFORE: "pinned", BAD: "rolled back from", OLD: "pinned"}
        assert list(ask("rollback", "shop", "--json", "shop-4")) == [BEFORE, BAD]
        assert list(ask("rollback", "--wait", "3", "shop", f"{OLD[:-1]}")) == [OLD]
        assert ask("pin", "shop", "") == {LIVE: "live", BAD: "rolled back from"}
        assert list(ask("unpin", "shop", "")) == [OLD, BEFORE]
        assert not ask("rollback", "blog", "")
        assert not ask("rollback", "../shop", "")

    def test_what_was_dropped(self, layout: Layout, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(table.VERBS, "follow", ("", ("site", "dropped"), {}))
        (layout.spool / "shop").mkdir(parents=True)
        beside = [f".{outcome.value}" for outcome in Outcome] + [".sha256", ".sig", ".sha256.sig"]
        names = [f"{number}{suffix}" for number, suffix in enumerate(TARBALL_SUFFIXES)]
        there = [f"x-{name}{beside[number]}" for number, name in enumerate(names)] + [f"y.tgz{end}" for end in beside]
        for name in [*names, *there, *filter(None, HOSTILE), "; x.tar.gz", "$(x).tar", "rollback", "x.tar.gz\n"]:
            (layout.spool / "shop" / name).touch()
        wanted = [*names, *(f"x-{name}" for name in names), "y.tgz"]
        assert list(ask("follow", "shop", "")) == sorted(wanted)
        assert list(ask("follow", "shop", "y")) == ["y.tgz"]
        layout.site_file("shop").write_text('incoming = "/nonexistent"')
        assert not ask("follow", "shop", "")

    def test_what_git_has(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
        monkeypatch.chdir(tmp_path)
        assert list(ask("pack", "--git", "")) == ["HEAD"]
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.invalid"]
        subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
        for name in ("v1.4", "$(touch,pwned)", "a;b"):
            subprocess.run([*git, "tag", name], check=True)
        assert set(ask("pack", "--git", "")) == {"main", "v1.4", "HEAD"}
        assert list(ask("pack", "--git=v")) == ["--git=v1.4"]

    def test_what_the_shell_knows_best(self, ask: Ask) -> None:
        assert list(ask("deploy", "shop", "")) == [":tarball"]
        assert list(ask("init", "x", "--group", "")) == [":group"]
        assert list(ask("--root", "")) == [":directory"]

    def test_only_what_swapd_allows_gets_into_a_command_line(self, layout: Layout, ask: Ask) -> None:
        for name in HOSTILE[:-1]:
            (layout.sites / f"{name}.toml").touch()
        state = {"live": {"release": HOSTILE[1]}, "previous": [*HOSTILE, BEFORE, 3, {}], "pinned": "x", "bad": 7}
        layout.site_record(SHOP).write_text(tomli_w.dumps(state))
        assert list(ask("status", "")) == ["blog", "shop"]
        assert ask("rollback", "shop", "") == {BEFORE: ""}
        assert list(ask("pin", "shop", "")) == [BEFORE]


def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "swapd", "complete", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**more), cwd=PROJECT)


class TestProgram:
    def test_nothing_is_loaded_that_is_not_needed(self, layout: Layout) -> None:
        program = "import sys; from swapd.cli import main\ntry: main()\nfinally: print(*sorted(sys.modules))"
        command = [sys.executable, "-c", program, "complete", "--root", str(layout.root), "rollback", "shop", ""]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=PROJECT)
        loaded = {name for name in done.stdout.splitlines()[-1].split() if name.startswith("swapd")}
        assert BEFORE in done.stdout
        assert loaded <= {
            *("swapd", "swapd.cli", "swapd.model", "swapd.model.patterns"),
            *("swapd.completion", "swapd.completion.answers", "swapd.completion.table"),
        }
        assert not {"click", "dataclasses", "pathlib", "inspect"} & set(done.stdout.splitlines()[-1].split())

    @pytest.mark.parametrize("content", [b"\xff", b"x = [", b"x = " + b"[" * 100_000], ids=["bytes", "half", "deep"])
    def test_it_never_says_what_went_wrong(self, layout: Layout, content: bytes) -> None:
        layout.site_record(SHOP).write_bytes(content)
        for words in (["rollback", "shop", ""], ["rollback", "blog", ""]):
            done = run("--root", str(layout.root), *words)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert run("--root", "/nonexistent", "status", "").stderr == ""
        assert run().returncode == 0

    def test_whoever_stops_reading_gets_no_error_either(self, layout: Layout) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-m", "swapd", "complete", "--root", str(layout.root), ""]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environment(), cwd=PROJECT)
        os.close(writing)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("script", ["bash/swapd", "zsh/_swapd", "fish/swapd.fish"])
def test_scripts_know_every_kind_of_tarball(script: str) -> None:
    text = (COMPLETIONS / script).read_text()
    assert all(suffix.removeprefix(".") in text.replace("\\", "") for suffix in TARBALL_SUFFIXES)


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(program), reason=f"no {program} on this machine")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where somebody types: a directory with tarballs, and ``swapd`` in the PATH."""
    place = tmp_path_factory.mktemp("shells")
    layout = lay_out(place / "root")
    state = tomllib.loads(layout.site_record(SHOP).read_text())
    state["previous"] += HOSTILE
    layout.site_record(SHOP).write_text(tomli_w.dumps(state))
    for name in filter(None, HOSTILE):
        (layout.sites / f"{name}.toml").touch()
    (place / "bin").mkdir()
    (place / "bin/swapd").write_text(f'#!/bin/sh\nexec {sys.executable} -m swapd "$@"\n')
    (place / "bin/swapd").chmod(0o755)
    (place / "work/tars").mkdir(parents=True)
    for name in ("t-1.tar.gz", "t 2.tgz", "t.txt", "tars/x.tar"):
        (place / "work" / name).touch()
    return place


def shell_environment(place: Path) -> dict[str, str]:
    path = f"{place / 'bin'}:{os.environ['PATH']}"
    return environment(PATH=path, HOME=str(place), ZDOTDIR=str(place), INPUTRC="/dev/null", LC_ALL="C.UTF-8")


BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")


@pytest.fixture(scope="module", params=["bash", "bash alone", "zsh"])
def typist(request: pytest.FixtureRequest, place: Path) -> Iterator[Typist]:
    program = request.param.split()[0]
    if not shutil.which(program) or (request.param == "bash" and not BASH_COMPLETION.exists()):
        pytest.skip(f"no {request.param} on this machine")
    if program == "zsh":
        command, prepare = (
            ["zsh", "-f", "-i"],
            f"fpath=({COMPLETIONS}/zsh $fpath); autoload -U compinit; compinit -u -D{ZSH}",
        )
    else:
        framework = f". {BASH_COMPLETION}; " if request.param == "bash" else ""
        command, prepare = ["bash", "--norc", "-i"], f"{framework}. {COMPLETIONS}/bash/swapd{BASH}"
    with typing(command, f"cd {place}/work; {prepare}", shell_environment(place)) as it:
        yield it


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("swapd roll", "swapd rollback"),
        ("swapd --root ../root status s", "swapd --root ../root status shop"),
        ("swapd --root ../root rollback shop shop-41", f"swapd --root ../root rollback shop {BEFORE}"),
        (f"swapd --root ../root rollback shop {BAD[:-3]}", f"swapd --root ../root rollback shop {BAD}"),
        (f"swapd --root=../root unpin shop {OLD[:8]}", f"swapd --root=../root unpin shop {OLD}"),
        ("swapd init x --strategy=pi", "swapd init x --strategy=pinned"),
        ("swapd init x --str", "swapd init x --strategy"),
        ("swapd deploy shop t-", "swapd deploy shop t-1.tar.gz"),
        ("swapd --root ../root status nothing", "swapd --root ../root status nothing"),
    ],
)
def test_tab_in_a_real_shell(typist: Typist, line: str, becomes: str) -> None:
    assert typist.complete(line) == becomes


def test_every_name_that_is_one_in_its_order_and_none_that_a_shell_would_run(typist: Typist, place: Path) -> None:
    begun = "swapd --root ../root rollback shop "
    assert typist.complete(begun, ALL) == f"{begun}{BEFORE} {BAD} {OLD}"
    assert typist.complete("swapd --root ../root status ", ALL) == "swapd --root ../root status blog shop"
    assert not list(place.rglob("pwned"))


@needs("fish")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("swapd roll", [f"rollback\t{VERBS['rollback'].removesuffix('.')}"]),
        ("swapd --root ../root status s", ["shop"]),
        ("swapd --root ../root rollback shop ", [f"{BEFORE}\tpinned", f"{BAD}\trolled back from", f"{OLD}\tpinned"]),
        (f"swapd --root=../root unpin shop {OLD[:8]}", [OLD]),
        ("swapd init x --strategy=pi", ["--strategy=pinned"]),
        ("swapd deploy shop t", ["t 2.tgz", "t-1.tar.gz", "tars/"]),
        ("swapd --root ../root status nothing", []),
    ],
)
def test_fish_offers(place: Path, line: str, offered: list[str]) -> None:
    script = f"source {COMPLETIONS}/fish/swapd.fish; complete -C '{line}'"
    command = ["fish", "--no-config", "-c", script]
    done = subprocess.run(command, cwd=place / "work", env=shell_environment(place), capture_output=True, text=True)
    assert (done.stdout.splitlines(), done.stderr) == (offered, "")

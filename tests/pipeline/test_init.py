"""``swapd init`` proposes: at a terminal it asks, elsewhere it prints commands; and what it proposes works."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from swapd.host.configuration import read_site, read_sites
from tests.support.dialogue import converse
from tests.support.sites import Scratch
from tests.support.tarballs import site_content, write_tarball
from tests.support.trees import write_tree
from tests.unit.test_vhosts import host, write


@pytest.fixture
def served(scratch: Scratch) -> Scratch:
    """A host with a shop whose public directory is served, and a blog that Capistrano deployed."""
    www = scratch.www
    write_tree(www / "shop", {"public/index.html": "by hand"})
    write_tree(www / "blog/releases/7", {"index.html": "by hand"})
    (www / "blog/current").symlink_to("releases/7")
    write(
        scratch.root,
        host(f"ServerName shop.example.org; DocumentRoot {www}/shop/public")
        + host(f"ServerName www.blog.example; DocumentRoot {www}/blog/current"),
    )
    return scratch


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in text.splitlines() if line and not line.startswith("#")]


def test_without_a_terminal_it_prints_commands_and_they_work(served: Scratch, tmp_path: Path) -> None:
    done = served.run("init")
    assert done.returncode == 2
    assert "several" in done.stderr
    assert not served.layout.configuration.exists(), "nothing is made"
    www = served.www
    found = commands(done.stdout)
    assert found == [
        ["swapd", "init", "shop", "--live", f"{www}/shop"],
        ["swapd", "init", "blog", "--live", f"{www}/blog/current"],
    ]
    for command in found:
        assert served.run(*command[1:]).returncode == 0
    tarball = write_tarball(tmp_path / "new-1.tar.gz", site_content("new"))
    for name in ("shop", "blog"):
        assert served.run("deploy", name, tarball).returncode == 0
    assert (www / "blog/current").is_symlink()
    assert (www / "blog/current/index.html").read_text() == (www / "shop/index.html").read_text()
    assert (www / "blog/releases/7/index.html").read_text() == "by hand", "what others deployed stays"


def test_a_terminal_is_asked_with_the_proposals_as_answers(served: Scratch) -> None:
    questions = ["Which one [1]", "Name of the site [blog]", "Live path", "Owner", "Strategy"]
    answers = [(question, "") for question in questions]
    answers[0] = (answers[0][0], "2")
    status, shown = converse(served.command_line("init"), answers)
    assert status == 0, shown
    site = read_site(served.layout, "blog")
    assert (site.live, site.owner) == (served.www / "blog/current", "")
    assert served.layout.site_file("blog").read_text().count("=") == 1, "what is as always is not written down"
    assert "symlink, because" in shown
    assert list(read_sites(served.layout)) == ["blog"]


def test_other_answers_than_those_that_are_proposed(served: Scratch) -> None:
    answers = [
        ("Which one", "7"),  # there are two
        ("Which one", "1"),
        ("Name of the site", "Not/a name"),
        ("Name of the site", "store"),
        ("Live path", "/store"),
        ("Live path", f"{served.www}/store"),
        ("Owner", "nobody"),
        ("Owner", "nobody-of-that-name:root"),
        ("Owner", "nobody:root"),
        ("Strategy", "rename"),
    ]
    status, shown = converse(served.command_line("init"), answers)
    assert status == 0, shown
    site = read_site(served.layout, "store")
    assert (site.live, site.owner, site.strategy.value) == (served.www / "store", "nobody:root", "rename")


def test_what_is_given_is_not_asked(served: Scratch) -> None:
    status, shown = converse(
        served.command_line("init", "blog", "--owner", "root:root"), [("Live path", ""), ("Strategy", "")]
    )
    assert status == 0, shown
    assert read_site(served.layout, "blog").owner == "root:root"
    status, shown = converse(
        served.command_line("init", "--live", served.www / "shop", "--strategy", "rename"),
        [("Name of the site [shop]", ""), ("Owner", "")],
    )
    assert status == 0, shown
    assert read_site(served.layout, "shop").strategy.value == "rename"


def test_all_of_it_is_given(served: Scratch) -> None:
    status, shown = converse(served.command_line("init", "shop", "--live", served.www / "shop"), [])
    assert (status, "?" in shown) == (0, False)


def test_yes_takes_what_is_proposed_but_does_not_choose(served: Scratch) -> None:
    done = served.run("init", "--yes")
    assert (done.returncode, list(read_sites(served.layout))) == (2, [])
    assert served.run("init", "blog", "--yes").returncode == 0
    assert read_site(served.layout, "blog").live == served.www / "blog/current"
    assert served.run("init", "--live", served.www / "shop/public", "-y").returncode == 0
    assert read_site(served.layout, "shop").live == served.www / "shop/public"


def test_what_is_a_site_is_not_proposed_and_never_overwritten(served: Scratch) -> None:
    file = served.layout.site_file("shop")
    assert served.run("init", "shop", "--yes").returncode == 0
    file.write_text(f"{file.read_text()}keep = 9\n")
    before = file.read_text()
    assert [command[2] for command in commands(served.run("init").stdout)] == ["blog"]
    again = served.run("init", "shop")
    assert (again.returncode, "kept" in again.stdout) == (0, True)
    assert served.run("init", "shop", "--live", served.www / "elsewhere").returncode == 2
    assert served.run("init", "shop", "--owner", "nobody:root").returncode == 2
    assert file.read_text() == before


def test_a_live_path_that_may_not_be(served: Scratch) -> None:
    done = served.run("init", "--live", "/shop")
    assert (done.returncode, done.stdout) == (2, "")
    assert "directly below /" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "no Apache and no nginx"), (host("ServerName x.test; Redirect / https://y.test/"), "no virtual host")],
)
def test_where_nothing_is_served_it_says_how_to_go_on(scratch: Scratch, text: str | None, said: str) -> None:
    if text is not None:
        write(scratch.root, text)
    done = scratch.run("init")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "swapd init SITE --live PATH" in done.stderr


def test_text_from_outside_never_reaches_a_terminal(scratch: Scratch) -> None:
    root = f"{scratch.www}/\x1b[2J"
    write(scratch.root, host(f"ServerName a\x1b[2Jb.test; DocumentRoot {root}") + host("DocumentRoot /srv/shop"))
    done = scratch.run("init")
    assert done.returncode == 2
    assert "\x1b" not in done.stdout + done.stderr

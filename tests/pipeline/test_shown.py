"""What ``status`` and ``history`` show people: on terminals of any width, in pipes, and of text from outside."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swapd.commands.paper import ASCII_BLOCKS, BLOCKS
from swapd.commands.waiting import explain, look_into
from swapd.model.layout import Layout
from tests.support.sites import Scratch, make_directories, make_site
from tests.support.tarballs import drop, release_of, site_content, write_sidecar, write_tarball
from tests.support.terminal import run_on_terminal

HOSTILE = "\x1b[2J\x1b]0;owned\x07\n\u202eshop.tar.gz"
ESCAPED = r"\x1b[2J\x1b]0;owned\x07\n\u202eshop.tar.gz"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # which moves no cursor


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scratch]:
    """With three releases that went live, a tarball that was rejected, and two that wait for a digest."""
    directory = tmp_path_factory.mktemp("shown")
    shop = Scratch(directory / "root")
    incoming = shop.add_site(verify={"require": "digest"})
    shop.start_daemon()
    for number in (1, 2, 3):
        tarball = write_tarball(directory / f"shop-{number}.tar.gz", site_content(str(number)))
        drop(write_sidecar(tarball), incoming)
        drop(tarball, incoming)
        shop.wait_marker(f"{tarball.name}.live")
    bad = directory / "bad-1.tar.gz"
    bad.write_text("no tarball")
    drop(write_sidecar(bad), incoming)
    drop(bad, incoming)
    shop.wait_marker("bad-1.tar.gz.rejected")
    for name in ("shop-4.tar.gz", HOSTILE):
        (incoming / name).write_text("upload")
    shop.wait_marker("shop-4.tar.gz.pending")
    yield shop
    shop.daemon.stop()


def look(shop: Scratch, *arguments: str, columns: int, **variables: str) -> str:
    status, shown = run_on_terminal(shop.command_line(*arguments), columns, **variables)
    assert status == 0, shown
    return shown


def plain(shown: str) -> str:
    return COLOUR.sub("", shown)


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("arguments", [["status"], ["history"], ["history", "-v"]], ids=" ".join)
def test_no_line_is_longer_than_the_terminal_is_wide(shop: Scratch, arguments: list[str], columns: int) -> None:
    shown = look(shop, *arguments, columns=columns)
    assert "\x1b[" in shown, "in colours"
    assert "\x1b" not in plain(shown), "and nothing else"
    assert max(map(len, plain(shown).splitlines())) <= columns
    for number in (1, 2, 3):
        release = release_of(shop.root.parent / f"shop-{number}.tar.gz")
        assert release in plain(shown).replace("\n", " ")


@pytest.mark.parametrize("arguments", [["status"], ["history"]], ids=" ".join)
def test_no_color(shop: Scratch, arguments: list[str]) -> None:
    shown = look(shop, *arguments, columns=80, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", shown), "bold is no colour"
    assert "\x1b" not in plain(shown)


@pytest.fixture
def open_releases(shop: Scratch) -> Iterator[str]:
    """A fault, which is found; the command that mends it."""
    mode = shop.releases().stat().st_mode
    shop.releases().chmod(0o777)
    yield f"chmod o-w {shop.releases()}"
    shop.releases().chmod(mode)


@pytest.mark.parametrize("columns", [40, 80])
def test_findings_fit_the_terminal_and_commands_are_whole(shop: Scratch, open_releases: str, columns: int) -> None:
    shown = look(shop, "check", columns=columns)
    assert "\x1b[33m" in shown, "yellow, for a warning"
    *lines, _ = plain(shown).splitlines()
    assert f"        {open_releases}" in lines
    # A path is never broken.
    assert all(len(line) <= columns for line in lines if " " in line.strip() and open_releases not in line)
    assert "every user of this host can change what visitors get (world-writable)" in " ".join(" ".join(lines).split())


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("PYTHONIOENCODING", "ascii")])
def test_findings_on_terminals_that_lack_something(shop: Scratch, open_releases: str, name: str, value: str) -> None:
    shown = look(shop, "check", "-v", columns=80, **{name: value})
    assert f"        {open_releases}" in plain(shown).splitlines()
    assert ("\x1b" in shown) is (name == "PYTHONIOENCODING")


def test_a_pipe_has_whole_lines_and_no_escapes(shop: Scratch) -> None:
    for arguments in (["status"], ["history", "-v"]):
        piped = shop.run(*arguments, COLUMNS="40", FORCE_COLOR="1").stdout
        assert "\x1b" not in piped
        whole = [line for line in piped.splitlines() if "shop-3@" in line]
        assert any(len(line) > 40 for line in whole), "of the width of a terminal that is somewhere else"
    assert len(whole) == 1
    assert "extract" in whole[0], "the last column too"


def test_when_it_was_is_said_exactly_and_by_how_long_ago_it_was(shop: Scratch) -> None:
    shown = shop.run("status").stdout
    assert re.search(r"live +shop-3@[0-9a-f]{12} since \d\d:\d\d:\d\d \((\d+ s ago|just now|\d+ min ago)\)", shown)
    assert re.search(r"^when +ago +", shop.run("history").stdout, re.MULTILINE)


def test_what_waits_says_why_and_since_when(shop: Scratch) -> None:
    (document,) = shop.json("status")["sites"]
    changed = (shop.incoming / "shop-4.tar.gz").stat().st_ctime
    when = time.strftime("%H:%M:%S", time.localtime(changed))
    reason = "waits for its sidecar shop-4.tar.gz.sha256"
    assert re.search(rf"waiting +shop-4.tar.gz: {reason}, since {when} \(", shop.run("status").stdout)
    waiting = {item["file_name"]: item for item in document["waiting"]}
    assert waiting.keys() == {"shop-4.tar.gz", ESCAPED}
    assert waiting["shop-4.tar.gz"]["reason"] == reason
    (answered,) = document["answered"]
    assert (answered["file_name"], answered["problem"]) == ("bad-1.tar.gz", "wrong-format")


@pytest.mark.parametrize("columns", [40, 120])
def test_names_from_outside_move_no_cursor(shop: Scratch, columns: int) -> None:
    shown = plain(look(shop, "status", columns=columns))
    assert not set(shown) & set("\x1b\x07\u202e\r")
    assert ESCAPED in re.sub(r"\n *", "", shown)


def test_a_forged_marker_says_nothing_strange(tmp_path: Path) -> None:
    """Whoever may write into the drop directory may write there what looks like a marker."""
    layout = Layout(tmp_path)
    site = make_directories(make_site(tmp_path), layout)
    (site.incoming / "shop-1.tar.gz").write_text("upload")
    marker = site.incoming / "shop-1.tar.gz.pending"
    marker.write_text('reason = "\x1b[2J\u202eforged"\n')
    (waiting,) = look_into(site, []).waiting
    assert explain(site, waiting) == r"\x1b[2J\u202eforged"
    if os.geteuid() == 0:
        os.chown(marker, 65534, -1)
        assert explain(site, waiting) == "waits to be taken up", "what is not ours does not count at all"
    marker.unlink()
    os.mkfifo(marker)
    assert explain(site, waiting) == "waits to be taken up"


def test_a_chart_of_durations(shop: Scratch) -> None:
    (line,) = [line for line in shop.run("history").stdout.splitlines() if line.startswith("  took")]
    bars = re.fullmatch(rf"  took +([{BLOCKS}]{{3}})  \S+ m?s to \S+ m?s", line)
    assert bars, line
    assert BLOCKS[-1] in bars[1], "the longest"


def test_a_terminal_without_unicode(shop: Scratch) -> None:
    shown = look(shop, "history", "-v", columns=80, PYTHONIOENCODING="ascii")
    assert shown.isascii()
    assert "claim" in shown
    assert r"\xb5" not in shown, "a microsecond is us"
    assert re.search(rf"  took +[{re.escape(ASCII_BLOCKS)}]{{3}}  ", plain(shown))


def test_only_so_many(shop: Scratch) -> None:
    found = shop.json("history", "-n", "2")["deployments"]
    assert [item["file_name"] for item in found] == ["bad-1.tar.gz", "shop-3.tar.gz"]


def test_nothing_of_it_needs_root(shop: Scratch) -> None:
    """Records, and what swapd says of what is under way, are for everybody; what waits is for who may look."""
    for path in (shop.layout.deployments("shop"), shop.layout.run, shop.layout.daemon_lock):
        assert os.stat(path).st_mode & 0o004, path

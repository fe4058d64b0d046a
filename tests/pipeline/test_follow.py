"""``swapd follow``: whatever was dropped has an answer, whoever is the quicker one."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from swapd.host.progress import read_progress
from swapd.model.release import SiteName
from tests.support.documents import check_lines
from tests.support.httpd import state_of
from tests.support.sites import Scratch
from tests.support.tarballs import drop, release_of, site_content, touch, write_sidecar, write_tarball
from tests.support.terminal import run_on_terminal
from tests.support.waiting import wait_until

Plot = Callable[..., Scratch]


class Following:
    """``swapd follow SITE``, under way; what it says can be waited for."""

    def __init__(self, scratch: Scratch, *arguments: str) -> None:
        self._path = scratch.root / f"following-{scratch.site}"
        with self._path.open("wb") as output:
            command_line = scratch.command_line("follow", scratch.site, *arguments)
            self.process = subprocess.Popen(command_line, stdout=output, stderr=subprocess.STDOUT)

    @property
    def said(self) -> str:
        return self._path.read_text()

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.said, f"{text!r} in what it says")

    def wait(self) -> int:
        return self.process.wait(30)


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_tarball(tmp_path / "shop-1.tar.gz", site_content("one"))


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad-1.tar.gz"
    path.write_text("no tarball")
    return path


def test_what_is_over_already_is_the_answer(plot: Plot, one: Path, bad: Path) -> None:
    shop = plot()
    drop(one, shop.incoming)
    shop.wait_marker(f"{one.name}.live")
    done = shop.run("follow", shop.site)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{shop.site}: {release_of(one)} is live; " in done.stdout
    drop(bad, shop.incoming)
    shop.wait_marker(f"{bad.name}.rejected")
    done = shop.run("follow", shop.site)
    assert done.returncode == 3
    assert "bad-1.tar.gz is not the gzip tarball" in done.stderr
    assert shop.run("follow", shop.site, one.name).returncode == 0, "by its name, also what was before"
    assert shop.run("follow", shop.site, bad.name).returncode == 3
    (rejected, live) = shop.deployments()
    assert shop.run("follow", shop.site, "--deployment", live.id[:13]).returncode == 0
    done = shop.run("follow", shop.site, "--deployment", rejected.id, "--json")
    (ended,) = check_lines(done.stdout)
    assert (ended["event"], ended["deployment"]["id"]) == ("ended", rejected.id)
    assert ended["deployment"]["outcome"] == "rejected"


def test_what_is_not_over_yet_is_followed(plot: Plot, one: Path) -> None:
    """It is asked for right after the upload, as over ssh: mostly before the daemon has looked."""
    shop = plot(settle="500ms")
    drop(one, shop.incoming)
    done = shop.run("follow", shop.site)
    assert done.returncode == 0
    assert f"{release_of(one)} is live" in done.stdout
    touch(drop(one, shop.incoming))
    assert "is live already" in shop.run("follow", shop.site).stdout


def test_this_host_is_at_fault(plot: Plot, one: Path) -> None:
    shop = plot(must_contain=[])
    shop.live().symlink_to("nowhere/at/all")
    shop.live().unlink()
    shop.www.joinpath(f"{shop.site}.releases").write_text("in the way")
    drop(one, shop.incoming)
    done = shop.run("follow", shop.site)
    assert done.returncode == 1
    assert f"{release_of(one)} failed: " in done.stderr


def test_stages_and_percentages(plot: Plot, large: Path) -> None:
    shop = plot()
    drop(large, shop.incoming)
    worker = shop.hold_worker(shop.daemon)
    lines, documents = Following(shop), None
    lines.wait_for(f"{release_of(large)}: extract")
    documents = shop.start("follow", shop.site, "--json")
    assert documents.stdout is not None
    first = documents.stdout.readline()
    standing = shop.json("status", shop.site)["sites"][0]
    os.kill(worker, signal.SIGCONT)
    assert lines.wait() == 0
    rest, _ = documents.communicate()
    assert documents.returncode == 0
    told = check_lines(first + rest)
    assert told[0]["event"] == "progress"
    assert told[0]["progress"]["stage"] == "extract"
    assert told[0]["deployment"] == standing["under_way"]["id"]
    assert (standing["progress"]["stage"], standing["waiting"]) == ("extract", [])
    shares = [item["progress"]["fraction"] or 0.0 for item in told if item["event"] == "progress"]
    assert all(0 <= share <= 1 for share in shares)
    assert told[-1]["event"] == "ended"
    assert read_progress(shop.layout, SiteName(shop.site)) is None, "nothing is under way any more"


def test_a_bar_on_a_terminal(plot: Plot, large: Path) -> None:
    shop = plot()
    drop(large, shop.incoming)
    worker = shop.hold_worker(shop.daemon)

    held = [worker]

    def go_on(shown: str) -> None:
        if "extract" in shown and held:
            os.kill(held.pop(), signal.SIGCONT)

    status, shown = run_on_terminal(shop.command_line("follow", shop.site), 40, go_on)
    assert status == 0
    assert "━" in shown
    assert f"{release_of(large)} is live" in shown.replace("\n", " ")
    assert "\x1b[" not in shown.rpartition(f"{release_of(large)} is live")[2], "the bar is gone before that"
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h"), "and the cursor is shown"


def test_it_says_which_sidecar_is_missing(plot: Plot, one: Path) -> None:
    shop = plot(verify={"require": "digest"})
    dropped = drop(one, shop.incoming)
    done = shop.run("follow", shop.site, "--timeout", "0.5")
    assert done.returncode == 5, "no outcome yet"
    assert f"{one.name}: waits for its sidecar {one.name}.sha256, since " in done.stdout
    assert f"no outcome within 0.5 s: {one.name}: waits for its sidecar" in done.stderr
    (waiting,) = shop.json("status", shop.site)["sites"][0]["waiting"]
    assert (waiting["file_name"], waiting["reason"]) == (one.name, f"waits for its sidecar {one.name}.sha256")
    following = Following(shop, "--json")
    following.wait_for("waits for its sidecar")
    write_sidecar(dropped)
    assert following.wait() == 0
    events = [item["event"] for item in check_lines(following.said)]
    assert (events[0], events[-1]) == ("waiting", "ended")


def test_of_several_that_wait_the_last_one_is_meant(plot: Plot, large: Path, one: Path, bad: Path) -> None:
    shop = plot()
    drop(large, shop.incoming)
    worker = shop.hold_worker(shop.daemon)
    drop(bad, shop.incoming)
    last, named = drop(one, shop.incoming), bad
    shop.wait_marker(f"{last.name}.pending")
    following, other = Following(shop), shop.start("follow", shop.site, named.name)
    following.wait_for(f"{one.name}: waits for its turn, since ")
    assert f"; {release_of(large)} is under way" in following.said
    os.kill(worker, signal.SIGCONT)
    assert following.wait() == 0
    assert f"{release_of(one)} is live" in following.said
    assert other.wait(30) == 3
    other.communicate()


def test_a_deployment_that_is_replaced_is_no_answer(plot: Plot, large: Path, bad: Path) -> None:
    """Who uploads another file under the name of one that is being deployed wants to know of that."""
    shop = plot()
    upload = drop(large, shop.incoming)
    worker = shop.hold_worker(shop.daemon)
    drop(bad, shop.incoming, upload.name)
    following = Following(shop)
    following.wait_for("extract")
    os.kill(worker, signal.SIGCONT)
    assert following.wait() == 3


def test_an_attempt_that_is_cut_short_is_followed_into_the_next(plot: Plot, large: Path) -> None:
    shop = plot()
    drop(large, shop.incoming)
    worker = shop.hold_worker(shop.daemon)
    following = Following(shop)
    following.wait_for("extract")
    os.kill(worker, signal.SIGKILL)
    assert following.wait() == 0, following.said
    assert "large.tar was under way when its process ended" in following.said
    assert f"{release_of(large)} is live" in following.said
    assert [item.attempt for item in shop.deployments()] == [2, 1]


def test_what_a_command_deploys_is_followed_too(scratch: Scratch, large: Path) -> None:
    scratch.add_site()
    command = scratch.start("deploy", "shop", large)
    wait_until(lambda: read_progress(scratch.layout, SiteName("shop")), "the command to say how far it is")
    command.send_signal(signal.SIGSTOP)
    wait_until(lambda: state_of(command.pid) in "TX", "the command to stop")
    following = Following(scratch)
    following.wait_for(large.name.removesuffix(".tar"))
    assert "does not run" not in following.said, "it needs no daemon"
    command.send_signal(signal.SIGCONT)
    assert following.wait() == 0
    command.communicate()


def test_nothing_comes(plot: Plot, one: Path) -> None:
    shop = plot()
    done = shop.run("follow", shop.site, "--timeout", "0.3")
    assert done.returncode == 5
    assert f"no outcome within 0.3 s: nothing came into {shop.incoming}" in done.stderr
    following = Following(shop)
    following.wait_for("nothing is under way")
    drop(one, shop.incoming)
    assert following.wait() == 0
    done = shop.run("follow", shop.site, "shop-2.tar.gz", "--timeout", "0.3", "--json")
    assert [item.get("problem") for item in check_lines(done.stdout)] == [None, "no-outcome"]


def test_an_upload_that_is_taken_back(plot: Plot, one: Path) -> None:
    shop = plot(verify={"require": "digest"})
    dropped = drop(one, shop.incoming)
    following = Following(shop)
    following.wait_for("waits for its sidecar")
    dropped.unlink()
    assert following.wait() == 1
    assert f"{one.name} was removed from {shop.incoming} before it was taken up" in following.said


def test_a_daemon_that_is_down(scratch: Scratch, one: Path) -> None:
    incoming = scratch.add_site()
    drop(one, incoming)
    assert scratch.json("status")["daemon"] == {"is_running": False, "pid": None}
    following = Following(scratch)
    following.wait_for("swapd does not run")
    assert "swapd does not run" in scratch.run("status").stdout
    scratch.start_daemon()
    assert following.wait() == 0, "it came back"
    assert scratch.json("status")["daemon"] == {"is_running": True, "pid": scratch.daemon.process.pid}
    assert "does not run" not in scratch.run("status").stdout
    scratch.daemon.stop()
    drop(one, incoming)
    done = scratch.run("follow", "shop", "--timeout", "0.3", "--json")
    assert done.returncode == 1
    events = [(item["event"], item.get("problem")) for item in check_lines(done.stdout)]
    assert events == [("waiting", None), ("warning", None), ("error", "daemon-down")]


def test_to_break_it_off_stops_no_deployment(plot: Plot, large: Path) -> None:
    shop = plot()
    drop(large, shop.incoming)
    worker = shop.hold_worker(shop.daemon)
    following = Following(shop)
    following.wait_for("extract")
    following.process.send_signal(signal.SIGINT)
    assert following.wait() == 130
    assert f"swapd status {shop.site}" in following.said
    os.kill(worker, signal.SIGCONT)
    shop.wait_marker("large.tar.live")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["blog"], "there is no site blog"),
        (["shop", "--deployment", "0123"], "no deployment is recorded whose id begins with 0123"),
        (["shop", "x.tar", "--deployment", "0123"], "not both"),
    ],
)
def test_what_is_not_there_to_be_followed(scratch: Scratch, arguments: list[str], text: str) -> None:
    scratch.add_site()
    done = scratch.run("follow", *arguments)
    assert done.returncode == 2
    assert text in done.stderr

"""``swapd deploy``: the same deployment without the daemon, and its exit statuses."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from swapd.host import records
from swapd.host.files import locked
from swapd.model.release import Outcome, SiteName
from tests.support.httpd import Httpd
from tests.support.sites import Scratch, leftovers
from tests.support.tarballs import digest_of, drop, release_of, site_content, write_sidecar, write_tarball
from tests.support.terminal import run_on_terminal
from tests.support.trees import texts, write_tree
from tests.support.waiting import wait_until

ONE = site_content("one")


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_tarball(tmp_path / "shop-1.tar.gz", ONE)


def test_done_is_0(scratch: Scratch, httpd: Httpd, one: Path) -> None:
    incoming = scratch.add_site(httpd=httpd.name)
    done = scratch.run("deploy", "shop", one)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"shop: {release_of(one)} is live; 4 httpd processes were paused for ")
    assert texts(scratch.live()) == ONE
    assert httpd.is_running()
    assert one.exists(), "a file from elsewhere stays"
    assert os.listdir(incoming) == [], "and has no marker"

    again = scratch.run("deploy", "shop", one)
    assert again.returncode == 0
    assert "is live already" in again.stdout
    assert [item.outcome for item in scratch.deployments()] == [Outcome.UNCHANGED, Outcome.LIVE]


def test_one_document_for_programs(scratch: Scratch, one: Path) -> None:
    scratch.add_site()
    document = scratch.json("deploy", "shop", one)
    (record,) = scratch.deployments()
    assert (document["id"], document["outcome"]) == (record.id, "live")
    assert (document["release"], document["digest"]) == (release_of(one), digest_of(one))
    one.write_bytes(b"no tarball at all")
    document = scratch.json("deploy", "shop", one, status=3)
    assert (document["outcome"], document["problem"]) == ("rejected", "wrong-format")


def test_one_in_the_drop_directory_is_removed_and_marked(scratch: Scratch, one: Path) -> None:
    incoming = scratch.add_site()
    upload = drop(one, incoming)
    write_sidecar(upload)
    assert scratch.run("deploy", "shop", upload).returncode == 0
    assert os.listdir(incoming) == ["shop-1.tar.gz.live"]


def test_rejected_is_3(scratch: Scratch, tmp_path: Path, one: Path) -> None:
    write_tree(scratch.live(), {"index.html": "by hand"})
    scratch.add_site(must_contain=["index.html"])
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(one.read_bytes()[:-20])
    for file in (bad, write_tarball(tmp_path / "other.tar.gz", {"x": "y"}), write_tarball(tmp_path / "-x.tar", ONE)):
        done = scratch.run("deploy", "shop", "--", file)
        assert (done.returncode, done.stdout) == (3, ""), done
        assert "rejected" in done.stderr
        assert "Traceback" not in done.stderr
    assert texts(scratch.live()) == {"index.html": "by hand"}
    assert leftovers(scratch.releases()) == []


def test_a_digest_that_is_asked_for(scratch: Scratch, one: Path) -> None:
    scratch.add_site(verify={"require": "digest"})
    done = scratch.run("deploy", "shop", one)
    assert done.returncode == 3
    assert "sidecar" in done.stderr
    write_sidecar(one)
    assert scratch.run("deploy", "shop", one).returncode == 0


def test_a_fault_of_this_host_is_1(scratch: Scratch, tmp_path: Path, one: Path) -> None:
    scratch.add_site(owner="nobody-has-this:root")
    done = scratch.run("deploy", "shop", one)
    assert done.returncode == 1
    assert "nobody-has-this" in done.stderr
    assert "Traceback" not in done.stderr
    assert [item.problem for item in scratch.deployments()] == ["unknown-owner"]
    assert not scratch.live().exists()
    scratch.add_site(live=str(tmp_path / "missing/shop"))
    done = scratch.run("deploy", "shop", one)
    assert done.returncode == 1
    assert scratch.deployments()[0].problem == "no-parent"


def test_a_file_that_is_not_there(scratch: Scratch) -> None:
    scratch.add_site()
    done = scratch.run("deploy", "shop", "no-such-file.tar")
    assert done.returncode in (1, 2)
    assert "no-such-file.tar" in done.stderr
    assert scratch.deployments() == []


def test_busy_is_5(scratch: Scratch, one: Path) -> None:
    scratch.add_site()
    records.make_state_directories(scratch.layout, SiteName("shop"))
    with locked(scratch.layout.site_lock("shop"), "a test"):
        done = scratch.run("deploy", "shop", one)
        assert (done.returncode, done.stdout) == (5, "")
        assert "shop" in done.stderr
        waiting = scratch.start("deploy", "shop", one, "--wait", "60")
        # It has nothing else to do than to wait for the lock.
        wait_until(lambda: scratch.layout.run.joinpath("site-shop.lock").exists(), "the lock")
        assert waiting.poll() is None
    assert waiting.wait(60) == 0
    waiting.communicate()
    assert scratch.deployments()[0].outcome is Outcome.LIVE


def test_a_bad_configuration_is_78(scratch: Scratch, one: Path) -> None:
    scratch.configure(keep=0)
    done = scratch.run("deploy", "shop", one)
    assert done.returncode == 78
    assert not scratch.layout.state.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_it_at_its_next_step(scratch: Scratch, large: Path, number: signal.Signals) -> None:
    write_tree(scratch.live(), {"index.html": "by hand"})
    scratch.add_site()
    command = scratch.start("deploy", "shop", large)
    wait_until(lambda: any(scratch.releases().glob(".staging-*/*")), "the extraction")
    command.send_signal(number)
    _, err = command.communicate()
    assert command.returncode == 1
    assert "told to stop" in err
    assert "Traceback" not in err
    (record,) = scratch.deployments()
    assert (record.outcome, record.problem) == (Outcome.FAILED, "interrupted")
    assert texts(scratch.live()) == {"index.html": "by hand"}
    assert leftovers(scratch.releases()) == []
    assert scratch.run("deploy", "shop", large).returncode == 0


def test_a_terminal_gets_a_progress_bar(scratch: Scratch, large: Path) -> None:
    scratch.add_site()
    status, shown = run_on_terminal(scratch.command_line("deploy", "shop", large))
    assert status == 0
    assert "extract" in shown
    assert "%" in shown
    assert f"{release_of(large)} is live" in shown


def test_it_serves_beside_the_daemon(scratch: Scratch, large: Path, one: Path) -> None:
    incoming = scratch.add_site()
    daemon = scratch.start_daemon()
    drop(large, incoming)
    worker = scratch.hold_worker(daemon)
    assert scratch.run("deploy", "shop", one).returncode == 5
    os.kill(worker, signal.SIGCONT)
    scratch.wait_marker("large.tar.live")
    assert scratch.run("deploy", "shop", one, "--wait", "60").returncode == 0
    # At once, and not at the next look at everything, which comes every 30 s.
    daemon.wait_status(f"{release_of(one)} live since", patience=10)

"""A daemon that is stopped or killed in the middle of a deployment: no httpd stays stopped, and the job is finished.

The large tarball takes seconds to extract, so that there is a middle.
"""

from __future__ import annotations

import io
import random
import tarfile
import time
from pathlib import Path

import pytest

from tests.host import journal
from tests.host.conftest import Expected
from tests.host.machine import wait_until
from tests.host.releases import MARK, Packed, mark_text, pack
from tests.host.visitors import Load
from tests.host.webhost import OUTCOMES, Site, Way, WebHost, assert_one_story

FILES = 40_000  # extracting one takes some 50 to 100 microseconds
ROUNDS = 3  # of each kind of kill


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    return pack(tmp_path_factory.mktemp("first"), "first")


@pytest.fixture(scope="module")
def shop(web: WebHost, first: Packed) -> Site:
    site = web.new_site("shop")
    assert site.deploy(first.tarball).outcome == "live"
    return site


def large_tarball(directory: Path, name: str, files: int = FILES) -> Path:
    """A tarball of many small files, made without a tree on the disk."""
    tarball = directory / f"{name}.tar.gz"
    with tarfile.open(tarball, "w:gz", compresslevel=1) as archive:
        for path, content in [(MARK, mark_text(name).encode())] + [
            (f"pages/{number % 200}/{number}.html", b"%d\n" % number) for number in range(files)
        ]:
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return tarball


def upload(site: Site, tarball: Path) -> None:
    """With its digest first, so that it is taken up at once."""
    digest = Packed(tarball.name, tarball, tarball).digest
    sidecar = tarball.with_name(f"{tarball.name}.sha256")
    sidecar.write_text(f"{digest}  {tarball.name}\n")
    site.web.send(Way.SCP, sidecar, f"{site.incoming}/{sidecar.name}")
    site.web.send(Way.SCP, tarball, f"{site.incoming}/{tarball.name}")


def wait_for_stage(site: Site, stage: str) -> None:
    """Until the status line of the unit says that the deployment is in the stage."""
    wait_until(lambda: stage in site.web.unit("StatusText"), f"the stage {stage}", explain=site.web.describe)


def staged_trees(site: Site) -> list[str]:
    return [name for name in site.kept_releases() if name.startswith(".")]


def test_stop_ends_a_deployment_cleanly_and_start_takes_it_up_again(
    web: WebHost, shop: Site, first: Packed, tmp_path: Path
) -> None:
    tarball = large_tarball(tmp_path, "stopped")
    mark = journal.mark(web.host)
    with Load(web.host, shop.domain) as load:
        upload(shop, tarball)
        wait_for_stage(shop, "extract")
        began = time.monotonic()
        web.run("systemctl", "stop", "swapd")
        took = time.monotonic() - began
        assert web.unit("Result") == "success"
        assert web.unit("ExecMainStatus") == "0"
        assert not web.stopped_httpd()
        shop.assert_serves(first.tree)
        marker = shop.read_marker(tarball.name)
        assert marker.outcome == marker["outcome"] == "pending"
        assert marker["reason"]
        assert_one_story(shop.records(after=mark), marker["deployment"], journal.INTERRUPTED)
        assert not staged_trees(shop)
        assert shop.dropped(tarball.name).read_bytes() == tarball.read_bytes()
        again = shop.outcome_after(lambda: web.run("systemctl", "start", "swapd"), tarball.name)
        assert again.outcome == "live"
    load.assert_served({"first", "stopped"})
    assert took < 30, "systemd would soon have killed it"
    assert_one_story(shop.records(after=mark), again["deployment"], journal.DEPLOYMENT_LIVE)
    assert not staged_trees(shop)


def test_a_large_deployment_holds_up_no_other_site(web: WebHost, shop: Site, tmp_path: Path) -> None:
    blog = web.new_site("blog")
    tarball = large_tarball(tmp_path, "unhurried")
    packed = pack(tmp_path, "quick")
    upload(shop, tarball)
    wait_for_stage(shop, "extract")
    upload(blog, packed.tarball)
    wait_for_outcome(blog, packed.tarball)
    blog.assert_serves(packed.tree)
    wait_for_outcome(shop, tarball)
    quick, unhurried = blog.read_marker(packed.tarball.name), shop.read_marker(tarball.name)
    assert (quick.outcome, unhurried.outcome) == ("live", "live")
    assert unhurried["started"] < quick["started"] < unhurried["ended"]


@pytest.mark.parametrize("whom", ["daemon", "worker", "all"])
def test_a_kill_at_any_moment_leaves_nothing_stopped_and_the_job_is_finished(
    web: WebHost, shop: Site, expected: Expected, tmp_path: Path, whom: str
) -> None:
    expected.restarts = True
    expected.warning(MESSAGE="code=killed, status=9/KILL")
    expected.warning(MESSAGE="Failed with result 'signal'")
    expected.warning(MESSAGE="the worker ended by signal 9; its successor recovers")
    expected.warning(MESSAGE_ID=journal.RECOVERED)
    expected.warning(MESSAGE_ID=journal.RESUMED_LEFTOVER)
    expected.warning(SWAPD_OUTCOME="failed", SWAPD_PROBLEM="crashed")
    # How long it takes when nobody interferes.
    began = time.monotonic()
    undisturbed = large_tarball(tmp_path, f"undisturbed-{whom}", FILES // 10)
    upload(shop, undisturbed)
    sent = time.monotonic()
    wait_for_outcome(shop, undisturbed)
    takes = time.monotonic() - sent
    moments = random.Random(began)
    with Load(web.host, shop.domain) as load:
        for number in range(ROUNDS):
            tarball = large_tarball(tmp_path, f"killed-{whom}-{number}", FILES // 10)
            delay = moments.uniform(0.0, takes)
            print(f"round {number}: {whom} killed {delay:.3f} s after the upload; undisturbed it takes {takes:.3f} s")
            upload(shop, tarball)
            time.sleep(delay)  # a random moment is the point
            pid = web.unit("MainPID")
            kill(web, whom)
            # By the unit's ExecStopPost or the guardian, in milliseconds; a restart would take 3 s.
            wait_until(lambda: not web.stopped_httpd(), "all httpd processes run", deadline=2, explain=web.describe)
            if whom != "worker":
                wait_for_another(web, pid)
            wait_for_outcome(shop, tarball)
            marker = shop.read_marker(tarball.name)
            assert marker.outcome in ("live", "unchanged"), marker.content
            assert (shop.tree() / MARK).read_text() == mark_text(f"killed-{whom}-{number}")
            assert not shop.dropped(tarball.name).exists()
    assert not load.failures, load.failures[:5]
    wait_until(lambda: not staged_trees(shop), "no staging is left", explain=web.describe)
    found = shop.records()
    for deployment in {item["SWAPD_DEPLOYMENT"] for item in found if "SWAPD_DEPLOYMENT" in item}:
        told = [item["MESSAGE_ID"] for item in journal.of_deployment(found, deployment)]
        assert len([kind for kind in told if kind in journal.OUTCOMES]) == 1, (deployment, told)


def kill(web: WebHost, whom: str) -> None:
    """Without any chance to clean up: the daemon, its workers (there may be none), or the unit's whole cgroup."""
    match whom:
        case "worker":
            # Their names are "swapd SITE"; the one of the process that watches is in brackets.
            web.host.run("pkill", "--signal", "KILL", "--parent", web.unit("MainPID"), "^swapd [^(]", check=False)
        case "daemon" | "all":
            whom = "main" if whom == "daemon" else whom
            web.run("systemctl", "kill", f"--kill-whom={whom}", "--signal=SIGKILL", "swapd")


def wait_for_another(web: WebHost, pid: str) -> None:
    """Until a daemon runs that is not that process."""
    wait_until(
        lambda: web.unit("ActiveState") == "active" and web.unit("MainPID") not in ("0", pid),
        "the daemon is back",
        explain=web.describe,
    )


def wait_for_outcome(site: Site, tarball: Path) -> None:
    """Until the tarball has the marker of an outcome. It had none before: it was not there."""
    markers = [site.dropped(f"{tarball.name}.{outcome}") for outcome in OUTCOMES]
    wait_until(lambda: any(marker.exists() for marker in markers), "an outcome", deadline=60, explain=site.web.describe)

"""What ``check`` finds of a pause, with real processes that stand for httpd; and of a live path that is far away.

What needs a web server is in tests/host/test_check_web.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swapd.checks.pausing import find_pause
from swapd.checks.serving import _is_on_network, find_mapping, find_serving
from swapd.host import records
from swapd.host.httpd_configuration import read_directives
from swapd.host.linux import boot_id
from swapd.host.processes import read_status
from swapd.host.survey import survey
from swapd.model.config import Site
from swapd.model.findings import Finding, Severity
from swapd.model.layout import Layout
from swapd.model.record import PauseRecord, ProcessIdentity, now
from tests.support.httpd import Httpd, state_of, unique_name
from tests.support.sites import make_directories, make_site
from tests.support.waiting import wait_until

PTRACE_SEIZE = 0x4206


@pytest.fixture
def httpd() -> Iterator[Httpd]:
    with Httpd(workers=2) as httpd:
        yield httpd


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.run.mkdir(parents=True)
    return layout


def site_pausing(layout: Layout, *names: str, mode: str = "always") -> Site:
    return make_directories(make_site(layout.root, pause={"processes": list(names), "mode": mode}), layout)


def found(site: Site, layout: Layout) -> dict[str, Finding]:
    return {finding.problem: finding for finding in find_pause(site, layout)}


def test_what_a_pause_would_stop_is_good_to_know(layout: Layout, httpd: Httpd) -> None:
    (finding,) = found(site_pausing(layout, httpd.name), layout).values()
    assert (finding.problem, finding.severity) == ("httpd", Severity.INFO)
    assert finding.facts["processes"] == "3"
    assert httpd.is_running()
    assert not httpd.was_stopped()


def test_a_site_that_pauses_nobody_has_no_findings(layout: Layout) -> None:
    assert not found(site_pausing(layout, unique_name(), mode="never"), layout)


def test_no_httpd_is_no_trouble_in_a_scratch_directory(layout: Layout) -> None:
    name = unique_name()
    (finding,) = found(site_pausing(layout, name), layout).values()
    assert (finding.problem, finding.severity) == ("no-httpd", Severity.INFO)
    assert name in finding.why


@pytest.mark.root
def test_one_in_a_container_is_named(layout: Layout) -> None:
    with Httpd(workers=1, prefix=["unshare", "--pid", "--fork"]) as httpd:
        assert "a container" in found(site_pausing(layout, httpd.name), layout)["no-httpd"].why


def test_what_somebody_has_stopped_is_told(layout: Layout, httpd: Httpd) -> None:
    (worker, _) = httpd.workers
    os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: state_of(worker) == "T", "the worker to be stopped")
    finding = found(site_pausing(layout, httpd.name), layout)["already-stopped"]
    assert finding.severity is Severity.WARNING
    assert finding.commands == (f"kill -CONT {worker}",)
    subprocess.run(["sh", "-c", *finding.commands], check=True)
    wait_until(httpd.is_running, "all to run")
    assert set(found(site_pausing(layout, httpd.name), layout)) == {"httpd"}


def identify(pid: int) -> ProcessIdentity:
    status = read_status(pid)
    assert status is not None
    return ProcessIdentity(pid, status.start_time)


@pytest.mark.parametrize("is_alive", [False, True])
def test_what_a_pause_has_stopped_is_told_only_when_the_pauser_has_ended(
    layout: Layout, httpd: Httpd, is_alive: bool
) -> None:
    pauser = identify(os.getpid()) if is_alive else ProcessIdentity(os.getpid(), 1)
    workers = tuple(map(identify, httpd.workers))
    masters = (identify(httpd.master),)
    records.write_pause(layout, PauseRecord(boot_id(), pauser, now(), masters, workers, (), (httpd.name,), 1.0))
    for pid in (httpd.master, *httpd.workers):
        os.kill(pid, signal.SIGSTOP)
    wait_until(httpd.is_at_rest, "all to be stopped")
    findings = found(site_pausing(layout, httpd.name), layout)
    assert set(findings) == (set() if is_alive else {"left-stopped"})
    if not is_alive:
        assert findings["left-stopped"].commands == ("sudo swapd resume",)


def test_one_that_is_traced_would_make_the_deployment_fail(layout: Layout, httpd: Httpd) -> None:
    program = f"""import ctypes
assert ctypes.CDLL(None).ptrace({PTRACE_SEIZE}, {httpd.master}, 0, 0) == 0
print(flush=True)
input()"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tracer:
        assert tracer.stdout is not None
        if not tracer.stdout.readline():
            pytest.skip("processes cannot be traced here")
        finding = found(site_pausing(layout, httpd.name), layout)["traced"]
        assert finding.severity is Severity.ERROR
        assert f"process {tracer.pid}" in finding.why
        assert str(httpd.master) in finding.why
        tracer.communicate(b"\n")
    assert set(found(site_pausing(layout, httpd.name), layout)) == {"httpd"}


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has this machine an Apache with the configuration that it is called with, and no nginx."""

    def configure(text: str) -> None:
        file = tmp_path / "etc/apache2/apache2.conf"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        directives = tuple(read_directives(tmp_path) or ())
        monkeypatch.setattr("swapd.checks.seen.directives", lambda _: directives)

    monkeypatch.setattr("swapd.checks.seen.nginx", lambda _: ())
    monkeypatch.setattr("swapd.checks.seen.is_nginx_silent", lambda: False)
    return configure


def test_httpd_maps_what_another_machine_may_remove(
    tmp_path: Path, configured: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On this machine there is no network filesystem to be had: only that question is answered for it."""
    site = make_site(tmp_path)
    assert not _is_on_network(site)
    monkeypatch.setattr("swapd.checks.serving._is_on_network", lambda _: True)
    root = f"DocumentRoot {site.live}\n"
    for text, named in {
        root: "EnableMMAP is on",
        f"{root}EnableSendfile On\n": "EnableMMAP and EnableSendfile are on",
        f"{root}EnableMMAP Off\n": "",
        "DocumentRoot /var/www/html\n": "",
    }.items():
        configured(text)
        whys = {finding.problem: finding.why for finding in find_mapping(site, Layout())}
        assert set(whys) == ({"mapped-over-network"} if named else set())
        assert named in whys.get("mapped-over-network", "")


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("", Severity.WARNING),
        ("DocumentRoot {live}-2\n", Severity.WARNING),
        ("DocumentRoot {live}/public\n", None),
        ("DocumentRoot {live.parent}\n", None),
        ("Alias /shop {live}\n", None),
        ("WSGIScriptAlias / {live}/app.wsgi\n", None),
        ("ProxyPass / unix:{live}/run/app.sock|http://shop/\n", None),
        ("ProxyPass / http://127.0.0.1:3000/\n", Severity.INFO),
        ("DocumentRoot ${{SITES}}/shop\n", None),  # which only the running server knows
        ("VirtualDocumentRoot /srv/%0\n", None),
        ("UserDir public_html\n", None),
        ('<Location "/">\nAlias "/srv/%{{env:SWAPD_TREE}}/"\n</Location>\n', Severity.WARNING),  # another site's route
    ],
)
def test_a_live_path_that_nobody_serves(
    tmp_path: Path, configured: Callable[[str], None], text: str, severity: Severity | None
) -> None:
    site = make_site(tmp_path)
    configured("DocumentRoot /var/www/html\n" + text.format(live=site.live))
    found = {finding.problem: finding.severity for finding in find_serving(site, Layout())}
    assert found == ({"live-not-served": severity} if severity else {})


class TestSurvey:
    def test_php_and_links_are_seen(self, tmp_path: Path) -> None:
        (tmp_path / "release/sub").mkdir(parents=True)
        (tmp_path / "release/sub/a.php").touch()
        (tmp_path / "release/b.phtml").touch()
        (tmp_path / "release/sub/link").symlink_to("/")
        live = tmp_path / "live"
        live.symlink_to("release")
        seen = survey(live)
        assert (seen.php_files, seen.links, seen.is_whole) == (2, [live / "sub/link"], True)
        assert seen.may_have_php

    def test_a_tree_without_php_has_none(self, tmp_path: Path) -> None:
        assert survey(tmp_path / "gone").may_have_php, "what is not there yet may have any"
        (tmp_path / "index.html").touch()
        assert not survey(tmp_path).may_have_php

    def test_a_large_one_is_not_looked_through(self, tmp_path: Path) -> None:
        for number in range(8):
            (tmp_path / f"{number // 3}").mkdir(exist_ok=True)
            (tmp_path / f"{number // 3}/{number}").touch()
        assert survey(tmp_path, 11).is_whole
        seen = survey(tmp_path, 10)
        assert not seen.is_whole
        assert seen.may_have_php

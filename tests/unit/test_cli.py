"""The command line: what it takes, what it prints where, and its exit statuses."""

from __future__ import annotations

import grp
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import swapd
from swapd.cli import main
from swapd.host import records
from swapd.host.configuration import read_site
from swapd.model.layout import Layout
from swapd.model.record import Deployment, LiveRelease, SiteState, TreeIdentity, now
from swapd.model.release import DeploymentId, ListenerQueue, Outcome, PauseCost, ReleaseId, SiteName
from swapd.verbs import VERBS
from tests.support.documents import check_document
from tests.support.httpd import PROJECT
from tests.support.sites import environment
from tests.support.trees import texts, write_tree

SHOP = SiteName("shop")
RELEASE = ReleaseId("shop-2@222222222222")
QUEUES = (ListenerQueue("0.0.0.0:80", 3, 511), ListenerQueue("[::]:443", 0, 128))


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    command: str

    def json(self) -> Any:
        """The document, which is as the schema has it."""
        return check_document(self.command, json.loads(self.out))


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command below the test's own root."""

    def run(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["swapd", "--root", str(tmp_path), *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Done(int(caught.value.code), captured.out, captured.err, str(arguments[0]))

    limits, umask = resource.getrlimit(resource.RLIMIT_NOFILE), os.umask(0o022)
    yield run
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    os.umask(umask)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def configure(layout: Layout, name: str = "shop", text: str = "") -> None:
    layout.sites.mkdir(parents=True, exist_ok=True)
    layout.site_file(name).write_text(text or f'live = "{layout.root}/www/{name}"\n')


class TestUsage:
    def test_an_overview_of_all_verbs(self, run: Run) -> None:
        done = run("--help")
        assert done.status == 0
        assert all(verb in done.out for verb in VERBS)

    @pytest.mark.parametrize("verb", VERBS)
    def test_every_verb_explains_itself(self, run: Run, verb: str) -> None:
        done = run(verb, "--help")
        assert (done.status, done.err) == (0, "")
        assert "Usage: " in done.out

    def test_its_version(self, run: Run) -> None:
        assert swapd.__version__ in run("--version").out

    @pytest.mark.parametrize(
        "arguments",
        [
            ["frobnicate"],
            ["status", "--frobnicate"],
            ["deploy", "shop"],
            ["deploy", "shop", "x.tar", "--wait", "x"],
        ],
    )
    def test_a_wrong_command_line(self, run: Run, arguments: list[str]) -> None:
        done = run(*arguments)
        assert (done.status, done.out) == (2, "")
        assert "Usage: " in done.err

    @pytest.mark.parametrize(
        "arguments", [["status", "blog"], ["history", "blog"], ["check", "blog"], ["deploy", "blog", "x.tar"]]
    )
    def test_a_site_that_is_not_there(self, run: Run, layout: Layout, arguments: list[str]) -> None:
        configure(layout)
        done = run(*arguments)
        assert (done.status, done.out) == (2, "")
        assert "there is no site blog" in done.err
        assert "swapd init blog" in done.err

    @pytest.mark.parametrize("arguments", [["status"], ["history"], ["check"], ["deploy", "shop", "x.tar"]])
    def test_a_bad_configuration(self, run: Run, layout: Layout, arguments: list[str]) -> None:
        configure(layout, text="keep = 1\n")
        done = run(*arguments)
        assert (done.status, done.out) == (78, "")
        assert f"{layout.site_file('shop')}:1: keep: " in done.err
        assert "live: is missing" in done.err
        assert "Traceback" not in done.err

    def test_only_what_a_verb_needs_is_imported(self, tmp_path: Path) -> None:
        program = "import sys; from swapd.cli import main\ntry: main()\nfinally: print(*sorted(sys.modules))"
        command_line = [sys.executable, "-c", program, "--root", tmp_path, "check"]
        done = subprocess.run(command_line, capture_output=True, text=True, env=environment(), cwd=PROJECT)
        assert done.returncode == 0, done
        assert not {"rich", "watchdog", "swapd.daemon", "swapd.commands.status"} & set(done.stdout.split())


class TestCheck:
    def test_a_good_configuration(self, run: Run, layout: Layout) -> None:
        for name in ("shop", "blog"):
            run("init", name, "--live", layout.root / "www" / name)
        assert run("check").out == "nothing is wrong: blog (symlink), shop (symlink)\n"
        done = run("check", "shop")
        assert (done.status, done.out) == (0, "nothing is wrong: shop (symlink)\n")
        assert "is swapped by symlink" in run("check", "shop", "-v").out
        document = run("check", "--json").json()
        assert (document["ok"], document["issues"]) == (True, [])
        keys = {"site", "severity", "problem", "what", "why", "remedy", "commands", "facts"}
        assert all(set(finding) == keys for finding in document["findings"])
        assert document["sites"]["shop"] == read_site(layout, "shop").document()

    def test_what_the_next_deployment_would_fail_by(self, run: Run, layout: Layout) -> None:
        run("init", "shop", "--live", layout.root / "www/shop")
        shutil.rmtree(layout.root / "www")
        done = run("check", "shop")
        assert (done.status, done.err) == (1, "")
        assert "shop: error: " in done.out
        assert "(no-parent)" in done.out
        document = run("check", "--json").json()
        problems = [finding["problem"] for finding in document["findings"] if finding["severity"] != "info"]
        assert (document["ok"], problems) == (False, ["no-parent"])

    def test_no_site_yet(self, run: Run) -> None:
        done = run("check")
        assert done.status == 0
        assert "swapd init" in done.out

    def test_every_mistake_as_json(self, run: Run, layout: Layout) -> None:
        configure(layout, text='live = "shop"\nkeep = 1\n')
        done = run("check", "--json")
        assert done.status == 78
        document = done.json()
        assert document["ok"] is False
        assert [(issue["line"], issue["key"]) for issue in document["issues"]] == [(1, "live"), (2, "keep")]
        assert all(set(issue) == {"file", "line", "key", "message", "right"} for issue in document["issues"])


class TestInit:
    def test_a_site_with_all_its_directories(self, run: Run, layout: Layout) -> None:
        live = layout.root / "www/shop"
        done = run("init", "shop", "--live", live)
        assert done.status == 0, done
        document = tomllib.loads(layout.site_file("shop").read_text())
        assert document == {"live": str(live)}
        assert layout.site_file("shop").stat().st_mode & 0o777 == 0o644
        incoming = layout.spool / "shop"
        assert stat.S_IMODE(incoming.stat().st_mode) == 0o2770
        assert stat.S_IMODE(layout.claims("shop").stat().st_mode) == 0o700
        assert stat.S_IMODE(layout.deployments("shop").stat().st_mode) == 0o755
        assert (layout.root / "www/shop.releases").is_dir()
        assert not live.exists(), "the first release makes it"
        assert str(incoming) in done.out.split("Next:")[1]
        assert run("check").status == 0

    def test_what_people_have_there_is_not_touched(self, run: Run, layout: Layout) -> None:
        live = write_tree(layout.root / "www/shop", {"index.html": "by hand"})
        done = run("init", "shop", "--live", live)
        assert "is a directory" in done.out
        assert "adopted@" in done.out
        assert texts(live) == {"index.html": "by hand"}

    def test_a_live_path_relative_to_here(self, run: Run, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(layout.root)
        assert run("init", "shop", "--live", "www/../www/shop").status == 0
        assert read_site(layout, "shop").live == layout.root / "www/shop"

    def test_again(self, run: Run, layout: Layout) -> None:
        live = layout.root / "www/shop"
        run("init", "shop", "--live", live)
        layout.site_file("shop").write_text(f'live = "{live}"\nkeep = 9\n')
        (layout.spool / "shop").rmdir()
        done = run("init", "shop", "--live", live)
        assert done.status == 0
        assert "kept " in done.out
        assert read_site(layout, "shop").keep == 9
        assert (layout.spool / "shop").is_dir(), "what was lost is made again"

    def test_an_existing_site_is_not_overwritten(self, run: Run, layout: Layout) -> None:
        run("init", "shop", "--live", layout.root / "www/shop")
        before = layout.site_file("shop").read_text()
        done = run("init", "shop", "--live", layout.root / "www/other")
        assert done.status == 2
        assert layout.site_file("shop").read_text() == before

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root, or a member, gives a directory to a group")
    def test_a_group_of_its_own(self, run: Run, layout: Layout) -> None:
        group, live = grp.getgrgid(1).gr_name, layout.root / "www/shop"
        done = run("init", "shop", "--live", live, "--group", group)
        assert done.status == 0, done
        status = (layout.spool / "shop").stat()
        assert (status.st_gid, stat.S_IMODE(status.st_mode)) == (1, 0o2770)
        assert tomllib.loads(layout.site_file("shop").read_text()) == {"live": str(live), "group": group}
        os.chown(layout.spool / "shop", -1, 0)
        assert run("init", "shop", "--live", live).status == 0, "what the file says is kept"
        assert (layout.spool / "shop").stat().st_gid == 1
        other = run("init", "shop", "--live", live, "--group", grp.getgrgid(0).gr_name)
        assert other.status == 2
        assert f"group = {group}" in other.err

    @pytest.mark.parametrize("is_default", [False, True])
    def test_a_group_that_is_not_there(self, run: Run, layout: Layout, is_default: bool) -> None:
        layout.configuration.mkdir(parents=True)
        if is_default:
            layout.defaults_file.write_text('group = "swapd-test-nobody"\n')
        options = [] if is_default else ["--group", "swapd-test-nobody"]
        done = run("init", "shop", "--live", layout.root / "www/shop", *options)
        assert done.status == 1
        assert "groupadd swapd-test-nobody" in done.err
        assert not layout.site_file("shop").exists()
        assert not layout.spool.exists()

    @pytest.mark.parametrize("name", ["Shop", "-x", "a/b", "../shop", "", "a" * 64, "a\nb"])
    def test_a_name_that_no_site_may_have(self, run: Run, layout: Layout, name: str) -> None:
        done = run("init", "--live", layout.root / "www/shop", "--", name)
        assert (done.status, done.out) == (2, "")
        assert not layout.configuration.exists()

    @pytest.mark.parametrize("live", ["/", "/shop"])
    def test_a_live_path_that_may_not_be(self, run: Run, layout: Layout, live: str) -> None:
        done = run("init", "shop", "--live", live)
        assert done.status == 78
        assert "directly below /" in done.err
        assert not layout.site_file("shop").exists()
        assert not layout.spool.exists()

    def test_a_place_that_another_site_has(self, run: Run, layout: Layout) -> None:
        run("init", "shop", "--live", layout.root / "www/shop")
        done = run("init", "blog", "--live", layout.root / "www/shop")
        assert done.status == 78
        assert "overlaps" in done.err
        assert not layout.site_file("blog").exists()
        assert not (layout.spool / "blog").exists()
        assert run("check").status == 0


class TestStatusAndHistory:
    @pytest.fixture
    def deployed(self, layout: Layout) -> Layout:
        """A site with a live release, a kept one, and a rejected tarball that lies there still."""
        configure(layout)
        records.make_state_directories(layout, SHOP)
        (layout.spool / "shop").mkdir(parents=True)
        for name in ("bad.tar.gz", "bad.tar.gz.rejected", "next.tar.gz"):
            (layout.spool / "shop" / name).touch()
        kept = ReleaseId("shop-1@111111111111")
        live = LiveRelease(RELEASE, None, DeploymentId("two"), now(), TreeIdentity(1, 2), PauseCost(1700, 5, QUEUES))
        records.write_state(layout, SHOP, SiteState(live, (kept,)))
        common: dict[str, Any] = {"site": SHOP, "is_dropped": True, "is_told": True}
        for deployment in (
            Deployment(DeploymentId("one"), outcome=Outcome.LIVE, started=now(), ended=now(), release=kept, **common),
            Deployment(
                DeploymentId("two"),
                outcome=Outcome.LIVE,
                started=now(),
                ended=now(),
                release=RELEASE,
                uploader="alice",
                pause=PauseCost(1700, 5),
                **common,
            ),
            Deployment(
                DeploymentId("three"),
                outcome=Outcome.REJECTED,
                started=now(),
                ended=now(),
                file_name="bad.tar.gz",
                problem="wrong-format",
                reason="it is no tarball",
                hint="Pack it again.",
                **common,
            ),
        ):
            records.write_deployment(layout, deployment)
        return layout

    def test_no_site(self, run: Run) -> None:
        assert "swapd init" in run("status").out
        none = {"version": 1, "daemon": {"is_running": False, "pid": None}, "issues": [], "sites": []}
        assert run("status", "--json").json() == none
        assert run("history").out == "no deployment yet\n"
        assert run("history", "--json").json() == {"version": 1, "deployments": []}

    def test_a_site_before_its_first_deployment(self, run: Run, layout: Layout) -> None:
        configure(layout)
        assert "no release" in run("status").out
        (site,) = run("status", "--json").json()["sites"]
        assert (site["site"], site["live"], site["previous"], site["last"]) == ("shop", None, [], None)
        assert site["live_path"] == f"{layout.root}/www/shop"

    @pytest.mark.parametrize("arguments", [["status"], ["status", "shop"]])
    def test_how_a_site_stands(self, run: Run, deployed: Layout, arguments: list[str]) -> None:
        done = run(*arguments)
        assert (done.status, done.err) == (0, "")
        for text in (str(deployed.root / "www/shop"), RELEASE, "5 httpd processes were paused for 1.7 ms"):
            assert text in done.out
        assert "0.0.0.0:80 3 of 511, [::]:443 0 of 128" in done.out
        for text in ("shop-1@111111111111", "bad.tar.gz rejected", "it is no tarball", "Pack it again.", "next.tar.gz"):
            assert text in done.out

    @pytest.mark.usefixtures("deployed")
    def test_how_a_site_stands_for_programs(self, run: Run) -> None:
        (site,) = run("status", "--json").json()["sites"]
        assert site["live"]["release"] == RELEASE
        assert (site["live"]["pause"]["duration_usec"], site["live"]["pause"]["processes"]) == (1700, 5)
        assert site["previous"] == ["shop-1@111111111111"]
        assert site["under_way"] is None
        assert (site["last"]["outcome"], site["last"]["problem"]) == ("rejected", "wrong-format")
        assert "next.tar.gz" in [item["file_name"] for item in site["waiting"]]

    @pytest.mark.usefixtures("deployed")
    def test_the_deployments_newest_first(self, run: Run) -> None:
        lines = run("history").out.splitlines()
        order = [line for line in lines if "shop-" in line or "bad.tar.gz" in line]
        assert [("bad" in line, RELEASE in line) for line in order] == [(True, False), (False, True), (False, False)]
        assert "rejected (wrong-format)" in order[0]
        assert "1.7 ms" in order[1]
        assert "alice" in order[1]
        found = run("history", "shop", "--json").json()["deployments"]
        assert [item["id"] for item in found] == ["three", "two", "one"]
        assert found[1]["pause"]["duration_usec"] == 1700

    @pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
    def test_a_chart_of_the_pauses(self, layout: Layout, encoding: str) -> None:
        """In the order in which they were, and as high as they were long; of what did not pause there is none."""
        configure(layout)
        records.make_state_directories(layout, SHOP)
        for number, milliseconds in enumerate((1, 2, 4, 0, 8)):
            pause = PauseCost(milliseconds * 1000, 5) if milliseconds else None
            started = now() - timedelta(minutes=10 - number)
            deployment = Deployment(
                DeploymentId(str(number)), SHOP, Outcome.LIVE, started, ended=started, release=RELEASE, pause=pause
            )
            records.write_deployment(layout, deployment)
        command_line = [sys.executable, "-m", "swapd", "--root", layout.root, "history"]
        variables = environment(PYTHONIOENCODING=encoding)
        done = subprocess.run(
            command_line, capture_output=True, text=True, env=variables, check=True, encoding=encoding
        )
        bars = "▂▃▅█" if encoding == "utf-8" else ".:=#"
        assert f"  paused     {bars}  1 ms to 8 ms\n" in done.stdout

    def test_strange_text_never_reaches_a_terminal(self, run: Run, deployed: Layout) -> None:
        (deployed.spool / "shop/\x1b[2J\n.tar").touch()
        assert "\x1b[2J" not in run("status").out
        assert "\\x1b[2J\\n.tar" in run("status").out

    @pytest.mark.usefixtures("deployed")
    def test_nor_does_a_strange_reason(self, run: Run, layout: Layout) -> None:
        strange = Deployment(
            DeploymentId("four"),
            SHOP,
            Outcome.REJECTED,
            now(),
            ended=now(),
            file_name="x.tar",
            reason="because\x1b[2J",
            hint="so\u202e",
            signer="who\x07",
        )
        records.write_deployment(layout, strange)
        shown = run("status").out + run("history", "-v").out + run("follow", "shop", "x.tar").err
        assert not set(shown) & set("\x1b\u202e\x07")
        for text in (r"because\x1b[2J", r"so\u202e", r"who\x07"):
            assert text in shown

    def test_a_state_that_nobody_understands(self, run: Run, deployed: Layout) -> None:
        deployed.site_record("shop").write_text("half a rec")
        done = run("status")
        assert done.status == 1
        assert str(deployed.site_record("shop")) in done.out
        assert "Traceback" not in done.err

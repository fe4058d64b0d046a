"""Every swap on a real filesystem: what is live before, inside and after it, and what is kept."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from swapd.host.files import identify
from swapd.host.renames import is_half_swapped, put_back
from swapd.model.config import Site, Strategy
from swapd.model.errors import Failed
from swapd.model.layout import Layout
from swapd.model.record import How, LiveRelease, SiteState, now
from swapd.model.release import DeploymentId, ReleaseId, StagedRelease, Tree, is_release_id
from swapd.stages import swap
from swapd.stages.choose import choose
from tests.support.sites import leftovers, make_site, prepare_route
from tests.support.trees import snapshot, texts, write_tree

NEW = {"index.html": "new", "sub/page.html": "new"}
OLD = {"index.html": "old", "upload/photo.jpg": "precious"}
RELEASE = ReleaseId("shop-2@222222222222")
KEPT = ReleaseId("shop-1@111111111111")
LIVES = ["missing", "directory", "kept link", "absolute link", "relative link", "dangling link"]
STRATEGIES = ["auto", "symlink", "exchange", "rename", "pinned"]


def make_live(site: Site, kind: str) -> Path | None:
    """Something that is live before swapd comes; the tree that it leads to."""
    site.live.parent.mkdir(parents=True, exist_ok=True)
    site.releases.mkdir(exist_ok=True)
    elsewhere = site.live.parent / "elsewhere/by hand"
    match kind:
        case "directory":
            return write_tree(site.live, OLD)
        case "kept link":
            site.live.symlink_to(write_tree(site.releases / KEPT, OLD))
            return site.releases / KEPT
        case "absolute link":
            site.live.symlink_to(write_tree(elsewhere, OLD))
            return elsewhere
        case "relative link":
            write_tree(elsewhere, OLD)
            site.live.symlink_to("elsewhere/by hand")
            return elsewhere
        case "dangling link":
            site.live.symlink_to("nowhere")
    return None


def stage(site: Site, content: dict[str, str], release: ReleaseId = RELEASE) -> tuple[StagedRelease, DeploymentId]:
    """A staged release, as the stages before leave it."""
    prepare_route(Layout(site.live.parents[1]))
    deployment = DeploymentId(str(uuid.uuid4()))
    tree = write_tree(site.releases / f".staging-{deployment}", content)
    return StagedRelease(release, (Tree(tree),)), deployment


def planned(site: Site, content: dict[str, str] = NEW, state: SiteState | None = None) -> swap.Plan:
    staged, deployment = stage(site, content)
    (plan,) = swap.plan(site, staged, [choose(site).strategy], state or SiteState(), deployment)
    return plan


def ready(site: Site, content: dict[str, str] = NEW, state: SiteState | None = None) -> swap.Plan:
    plan = planned(site, content, state)
    swap.make_ready([plan])
    return plan


def finish(plan: swap.Plan) -> ReleaseId | None:
    """Which release was live before."""
    outgoing = swap.finish(plan.site, [plan.intent])
    return outgoing[0] if outgoing else None


def abandon(plan: swap.Plan) -> None:
    deployment = DeploymentId(plan.staging.name.removeprefix(".staging-"))
    swap.abandon(plan.site, deployment, [plan.intent])


def state_of(site: Site, release: ReleaseId) -> SiteState:
    """What is recorded when the release is live."""
    return SiteState(LiveRelease(release, None, DeploymentId("x"), now(), identify(site.live)))


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    return make_site(tmp_path, strategy=getattr(request, "param", "auto"))


@pytest.mark.parametrize("kind", LIVES)
@pytest.mark.parametrize("site", STRATEGIES, indirect=True)
class TestEveryWay:
    def test_the_new_tree_is_live_and_the_old_one_kept_byte_for_byte(self, site: Site, kind: str) -> None:
        old = make_live(site, kind)
        before = snapshot(old) if old else None
        plan = ready(site)
        assert texts(site.live) == (OLD if old else {}), "nothing has happened yet"
        assert not swap.is_live(site, [plan.intent])
        swap.commit([plan])
        assert texts(site.live) == NEW
        assert swap.is_live(site, [plan.intent])
        previous = finish(plan)

        assert texts(site.live) == NEW
        assert site.live.is_symlink() == (plan.link is not None)
        assert leftovers(site.releases) == []
        assert leftovers(site.live.parent) == []
        if before is None:
            assert previous is None
            return
        assert previous is not None
        assert is_release_id(previous)
        assert previous == KEPT or previous.startswith("adopted@")
        assert snapshot((site.releases / previous).resolve()) == before

    def test_what_was_finished_can_be_finished_again(self, site: Site, kind: str) -> None:
        make_live(site, kind)
        plan = ready(site)
        swap.commit([plan])
        first = finish(plan)
        before = snapshot(site.live.parent)
        assert finish(plan) == first
        assert snapshot(site.live.parent) == before

    def test_what_is_live_is_never_abandoned(self, site: Site, kind: str) -> None:
        make_live(site, kind)
        plan = ready(site)
        swap.commit([plan])
        before = snapshot(site.live.parent)
        abandon(plan)
        assert snapshot(site.live.parent) == before
        finish(plan)
        before = snapshot(site.live.parent)
        abandon(plan)
        assert snapshot(site.live.parent) == before

    @pytest.mark.parametrize("when", ["planned", "ready"])
    def test_what_is_abandoned_before_leaves_nothing(self, site: Site, kind: str, when: str) -> None:
        make_live(site, kind)
        before = snapshot(site.live.parent, times=False)
        plan = ready(site) if when == "ready" else planned(site)
        abandon(plan)
        assert snapshot(site.live.parent, times=False) == before

    def test_one_release_after_the_other(self, site: Site, kind: str) -> None:
        make_live(site, kind)
        state, names = SiteState(), []
        for number in range(3, 7):
            release = ReleaseId(f"shop-{number}@{number:012}")
            staged, deployment = stage(site, {"index.html": release}, release)
            (plan,) = swap.plan(site, staged, [choose(site).strategy], state, deployment)
            swap.make_ready([plan])
            swap.commit([plan])
            previous = finish(plan)
            assert texts(site.live) == {"index.html": release}
            if names:
                assert previous == names[-1]
                assert texts(site.releases / names[-1]) == {"index.html": names[-1]}
            names.append(release)
            state = state_of(site, release)
        for name in names[:-1]:
            assert texts(site.releases / name) == {"index.html": name}
        assert leftovers(site.releases) == []


RENAMES = {
    ("missing", "auto"): (How.RENAME, "link"),
    ("kept link", "auto"): (How.RENAME, "link"),
    ("directory", "auto"): (How.EXCHANGE, "tree"),
    ("directory", "symlink"): (How.EXCHANGE, "link"),
    ("absolute link", "exchange"): (How.EXCHANGE, "tree"),
    ("missing", "exchange"): (How.RENAME, "tree"),
    ("missing", "rename"): (How.RENAME, "tree"),
    ("directory", "rename"): (How.TWICE, "tree"),
    ("relative link", "rename"): (How.TWICE, "tree"),
}


@pytest.mark.parametrize(("kind", "strategy"), RENAMES)
def test_the_renames_are_those_that_the_strategy_means(tmp_path: Path, kind: str, strategy: str) -> None:
    site = make_site(tmp_path, strategy=strategy)
    make_live(site, kind)
    plan = planned(site)
    assert (plan.intent.swap.how, "link" if plan.link else "tree") == RENAMES[kind, strategy]


class TestAdoption:
    def test_everything_of_a_tree_that_people_filled_is_kept(self, site: Site) -> None:
        live = write_tree(site.live, OLD)
        (live / "private").mkdir(mode=0o700)
        (live / "private/key").write_bytes(os.urandom(5000))
        (live / "private/key").chmod(0o600)
        (live / "link").symlink_to("index.html")
        (live / "out").symlink_to("/etc/hostname")
        os.mkfifo(live / "fifo")
        os.utime(live / "index.html", ns=(1, 2))
        os.setxattr(live / "index.html", "user.note", b"kept")
        os.link(live / "index.html", live / "second name")
        inodes = {path.name: path.lstat().st_ino for path in live.iterdir()}
        before = snapshot(live)
        site.releases.mkdir()
        plan = ready(site)
        swap.commit([plan])
        adopted = site.releases / str(finish(plan))
        assert adopted.name.startswith("adopted@")
        assert snapshot(adopted) == before
        assert {path.name: path.lstat().st_ino for path in adopted.iterdir()} == inodes
        assert os.getxattr(adopted / "index.html", "user.note") == b"kept"

    def test_a_working_directory_and_open_files_follow_the_old_tree(self, site: Site) -> None:
        live = write_tree(site.live, OLD)
        directory = os.open(live, os.O_RDONLY)
        try:
            site.releases.mkdir()
            plan = ready(site)
            swap.commit([plan])
            finish(plan)
            os.stat("upload/photo.jpg", dir_fd=directory)
        finally:
            os.close(directory)

    def test_a_link_through_linked_parents_is_kept_where_it_really_leads(self, tmp_path: Path) -> None:
        # /var/www is a link to /srv/pub/www, and live in it a link to ../data: that is /srv/pub/data.
        (tmp_path / "srv/pub/www").mkdir(parents=True)
        write_tree(tmp_path / "srv/pub/data", OLD)
        (tmp_path / "www").symlink_to("srv/pub/www")
        site = make_site(tmp_path)
        site.live.symlink_to("../data")
        site.releases.mkdir()
        plan = ready(site)
        swap.commit([plan])
        assert texts(site.releases / str(finish(plan))) == OLD
        assert texts(site.live) == NEW

    def test_a_recorded_release_is_known_by_its_tree(self, site: Site) -> None:
        write_tree(site.live, OLD)
        site.releases.mkdir()
        assert planned(site, state=state_of(site, KEPT)).intent.outgoing == KEPT
        # Somebody put another tree there since.
        state = state_of(site, KEPT)
        site.live.rename(site.live.with_name("aside"))
        write_tree(site.live, OLD)
        assert str(planned(site, state=state).intent.outgoing).startswith("adopted@")


class TestLink:
    def test_it_is_relative_and_belongs_to_the_trees_owner(self, site: Site) -> None:
        make_live(site, "missing")
        plan = planned(site)
        if os.geteuid() == 0:
            os.chown(plan.staging, 1234, 4321)
        swap.make_ready([plan])
        swap.commit([plan])
        assert os.readlink(site.live) == f"shop.releases/{RELEASE}"
        status, tree = site.live.lstat(), site.live.stat()
        assert (status.st_uid, status.st_gid) == (tree.st_uid, tree.st_gid)

    def test_releases_in_a_directory_of_their_own(self, tmp_path: Path) -> None:
        site = make_site(tmp_path, releases=str(tmp_path / "kept/of/shop"))
        site.live.parent.mkdir(parents=True)
        site.releases.mkdir(parents=True)
        plan = ready(site)
        swap.commit([plan])
        finish(plan)
        assert texts(site.live) == NEW
        assert os.readlink(site.live) == f"../kept/of/shop/{RELEASE}"

    def test_linked_parents(self, tmp_path: Path) -> None:
        (tmp_path / "srv/deep/www").mkdir(parents=True)
        (tmp_path / "www").symlink_to("srv/deep/www")
        (tmp_path / "kept").mkdir()
        site = make_site(tmp_path, releases=str(tmp_path / "kept"))
        plan = ready(site)
        swap.commit([plan])
        assert texts(site.live) == NEW

    def test_a_kept_tree_of_the_same_release_comes_back_when_it_is_abandoned(self, site: Site) -> None:
        make_live(site, "absolute link")
        write_tree(site.releases / RELEASE, {"index.html": "kept before"})
        before = snapshot(site.live.parent, times=False)
        plan = ready(site)
        assert texts(site.releases / RELEASE) == NEW
        abandon(plan)
        assert snapshot(site.live.parent, times=False) == before

    def test_there_is_a_whole_tree_at_every_instant_when_the_live_one_is_deployed_again(self, site: Site) -> None:
        # Its record is lost, so it is not known that it is live already.
        site.releases.mkdir(parents=True)
        site.live.symlink_to(write_tree(site.releases / RELEASE, OLD))
        plan = ready(site)
        assert texts(site.live) in (OLD, NEW)
        swap.commit([plan])
        finish(plan)
        assert texts(site.live) == NEW


class TestCrash:
    """Between any two renames; `finish` and `abandon` put it right from the intent alone."""

    @pytest.mark.parametrize("kind", ["directory", "relative link"])
    def test_after_the_first_of_two_renames(self, tmp_path: Path, kind: str) -> None:
        site = make_site(tmp_path, strategy="rename")
        old = make_live(site, kind)
        assert old is not None
        before = snapshot(old)
        plan = ready(site)
        assert not is_half_swapped(plan.intent.swap)
        os.rename(site.live, plan.intent.swap.outgoing)
        assert is_half_swapped(plan.intent.swap)
        assert not swap.is_live(site, [plan.intent])
        previous = finish(plan)
        assert not is_half_swapped(plan.intent.swap)
        assert texts(site.live) == NEW
        assert snapshot((site.releases / str(previous)).resolve()) == before
        assert leftovers(site.releases) == []

    def test_the_first_rename_can_be_undone(self, tmp_path: Path) -> None:
        site = make_site(tmp_path, strategy="rename")
        make_live(site, "directory")
        plan = ready(site)
        assert swap.undo([plan]) == (plan.intent.swap,)
        os.rename(site.live, plan.intent.swap.outgoing)
        put_back(swap.undo([plan]))
        abandon(plan)
        assert texts(site.live) == OLD
        assert leftovers(site.releases) == []

    def test_only_two_renames_have_something_to_undo(self, tmp_path: Path) -> None:
        for strategy in ("auto", "symlink", "exchange"):
            site = make_site(tmp_path / strategy, strategy=strategy)
            make_live(site, "directory")
            assert swap.undo([planned(site)]) == ()

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_after_the_swap_and_before_anything_else(self, tmp_path: Path, strategy: str) -> None:
        site = make_site(tmp_path, strategy=strategy)
        make_live(site, "directory")
        plan = ready(site)
        swap.commit([plan])
        # A restart knows the intent, and nothing else.
        intent = replace(plan.intent)
        assert swap.is_live(site, [intent])
        swap.finish(site, [intent])
        assert texts(site.releases / str(intent.outgoing)) == OLD
        assert leftovers(site.releases) == []

    @pytest.mark.parametrize("name", [".staging-", ".staged-", ".link-"])
    def test_before_anything_was_written_down(self, site: Site, name: str) -> None:
        make_live(site, "directory")
        before = snapshot(site.live.parent, times=False)
        deployment = DeploymentId(str(uuid.uuid4()))
        if name == ".link-":
            (site.releases / f"{name}{deployment}").symlink_to("nowhere")
        else:
            write_tree(site.releases / f"{name}{deployment}", NEW)
        swap.abandon(site, deployment, [])
        assert snapshot(site.live.parent, times=False) == before

    def test_what_other_deployments_left_is_not_touched(self, site: Site) -> None:
        make_live(site, "directory")
        other = write_tree(site.releases / ".staging-other", OLD)
        plan = ready(site)
        abandon(plan)
        assert texts(other) == OLD

    def test_no_releases_directory_at_all(self, site: Site) -> None:
        swap.abandon(site, DeploymentId("x"), [])


class TestRefusals:
    def test_a_second_rename_that_fails_is_undone(self, tmp_path: Path) -> None:
        site = make_site(tmp_path, strategy="rename")
        make_live(site, "directory")
        before = snapshot(site.live)
        plan = ready(site)
        plan.path.rename(plan.path.with_name("taken away"))
        with pytest.raises(FileNotFoundError):
            swap.commit([plan])
        assert snapshot(site.live) == before
        assert leftovers(site.releases) == []

    @pytest.mark.parametrize("strategy", ["auto", "rename"])
    def test_a_live_path_that_came_meanwhile_is_not_replaced(self, tmp_path: Path, strategy: str) -> None:
        site = make_site(tmp_path, strategy=strategy)
        make_live(site, "missing")
        plan = ready(site)
        write_tree(site.live, OLD)
        with pytest.raises(OSError, match=r"directory|exists|empty"):
            swap.commit([plan])
        assert texts(site.live) == OLD

    @pytest.mark.parametrize("number", [errno.EXDEV, errno.EBUSY, errno.EACCES])
    def test_every_refusal_is_explained(self, site: Site, number: int) -> None:
        make_live(site, "directory")
        failed = swap.explain_commit([planned(site)], OSError(number, os.strerror(number)))
        assert failed.problem == "cannot-swap"
        assert os.strerror(number) in failed.message
        assert "untouched" in failed.hint

    def test_a_link_that_stands_in_the_way(self, site: Site) -> None:
        make_live(site, "missing")
        plan = planned(site)
        assert plan.link is not None
        plan.link.symlink_to("somewhere")
        with pytest.raises(Failed) as caught:
            swap.make_ready([plan])
        assert caught.value.problem == "cannot-write"
        abandon(plan)
        assert leftovers(site.releases) == []
        assert os.listdir(site.releases) == []


@dataclass
class Looker:
    """A process that looks at the live path as fast as it can, and counts when it is not there."""

    process: subprocess.Popen[str]

    @classmethod
    def start(cls, live: Path) -> Looker:
        program = (
            "import os, sys, select\n"
            "path, missed, looks = sys.argv[1], 0, 0\n"
            "print(flush=True)\n"
            "while not select.select([0], [], [], 0)[0]:\n"
            "    for _ in range(200):\n"
            "        looks += 1\n"
            "        try: os.stat(path)\n"
            "        except FileNotFoundError: missed += 1\n"
            "print(missed, looks)"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program, live / "index.html"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        return cls(process)

    def missed(self) -> tuple[int, int]:
        missed, looks = self.process.communicate()[0].split()
        return int(missed), int(looks)


@pytest.mark.parametrize(("kind", "strategy"), [("directory", Strategy.EXCHANGE), ("kept link", Strategy.SYMLINK)])
def test_a_visitor_finds_the_site_at_every_instant(tmp_path: Path, kind: str, strategy: Strategy) -> None:
    site = make_site(tmp_path, strategy=strategy.value)
    make_live(site, kind)
    looker = Looker.start(site.live)
    if strategy is Strategy.EXCHANGE:
        plan = ready(site)
        for _ in range(2000):
            swap.commit([plan])  # there and back again
    else:
        for number in range(150):
            release = ReleaseId(f"shop-{number}@{number:012}")
            staged, deployment = stage(site, {"index.html": release}, release)
            (plan,) = swap.plan(site, staged, [strategy], SiteState(), deployment)
            swap.make_ready([plan])
            swap.commit([plan])
    missed, looks = looker.missed()
    assert looks > 100
    assert missed == 0

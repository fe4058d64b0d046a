"""A site that is deployed to by processes which may be killed at any step, and what must hold after that."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections import Counter as Tally
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from swapd.host.configuration import read_site
from swapd.host.routes import find_kept_tree, read_route
from swapd.model.config import Site, Strategy
from swapd.model.events import Event
from swapd.model.message_ids import MessageId
from swapd.model.record import Deployment
from swapd.model.release import MARKER_SUFFIXES, OWN, Outcome, Upload
from swapd.model.route import route_base
from swapd.stages.arrive import scan
from swapd.strategies.exchanging import PROBE
from swapd.worker import Worker, upload_document
from tests.crash.children import Child, Ended
from tests.crash.steps import Act, install
from tests.support.sites import Scratch
from tests.support.tarballs import write_sidecar, write_tarball
from tests.support.trees import texts, write_tree
from tests.support.waiting import wait_until

KINDS = ("DEPLOYMENT_", "ROLLBACK_", "INTERRUPTED")  # of the records that tell an outcome
MAX_PAUSE = 1.0  # seconds; as the default is


def content(mark: str) -> dict[str, str]:
    """A small site with a directory, a program's file among its files, whose every file bears the mark."""
    return {"index.html": f"{mark}\n", "assets/site.css": f"/* {mark} */\n", "lib/page.php": f"<?php echo '{mark}';\n"}


class Workshop:
    """A site, and workers of the daemon's that take up what lies in its drop directory."""

    def __init__(self, scratch: Scratch, journal: Path) -> None:
        self.scratch = scratch
        self.incoming = scratch.incoming
        self.site = read_site(scratch.layout, scratch.site)
        self.journal = journal

    @property
    def uploads(self) -> list[Upload]:
        """What the daemon would take up."""
        return [
            Upload(self.incoming, seen.name, True, True, seen.fingerprint, seen.sidecars)
            for seen in scan(self.incoming)
        ]

    def emit(self, event: Event) -> None:
        """As an event log does, into a file."""
        with self.journal.open("a") as file:
            print(json.dumps({"MESSAGE_ID": event.id.name, "MESSAGE": event.message, **event.fields}), file=file)

    def find_told(self, deployments: Collection[str]) -> dict[str, set[str]]:
        """As an event log does."""
        found: dict[str, set[str]] = {deployment: set() for deployment in deployments}
        for entry in self.told():
            if entry.get("SWAPD_DEPLOYMENT") in found:
                found[entry["SWAPD_DEPLOYMENT"]].add(MessageId[entry["MESSAGE_ID"]].value)
        return found

    def told(self) -> list[dict[str, Any]]:
        """The journal's records."""
        return [json.loads(line) for line in self.journal.read_text().splitlines()] if self.journal.exists() else []

    def start(self, act: Act | None = None, prepare: Callable[[Act], None] = install) -> Child:
        """A worker of the daemon's, to its end: it recovers, and takes up what is there.

        ``act`` is called before each of its steps.
        """
        return self._start(self.uploads, act, prepare)

    def work(self, act: Act | None = None, prepare: Callable[[Act], None] = install) -> Ended:
        """As ``start``, to its end."""
        return self.start(act, prepare).wait()

    def recover(self, act: Act | None = None) -> Ended:
        """A worker that is started because of what a crash left, and is not told to take up anything."""
        return self._start([], act).wait()

    def _start(self, uploads: list[Upload], act: Act | None, prepare: Callable[[Act], None] = install) -> Child:
        requests = io.StringIO("".join(json.dumps(upload_document(upload)) + "\n" for upload in uploads))

        def work() -> None:
            if act is not None:
                prepare(act)
            with (self.scratch.root / "reports").open("a") as reports:
                Worker(self.site, self.scratch.layout, self, reports).run(requests)  # type: ignore[arg-type]

        return Child(work)

    def deployments(self) -> list[Deployment]:
        return self.scratch.deployments()


class World(Workshop):
    """One site, brought to where a test begins: ``old`` is what its live path holds, None where there is none.

    With ``part``, a directory of the release, it has a second live path, at which that directory goes live.
    """

    def __init__(
        self, root: Path, strategy: str, beginning: str, httpd: str = "", journal: Path | None = None, part: str = ""
    ) -> None:
        scratch = Scratch(root)
        mode = {"mode": "always", "max": f"{MAX_PAUSE}s"} if httpd else {"mode": "never"}
        paths = [{"live": str(scratch.www / "second/place"), "part": part}] if part else []
        scratch.add_site(httpd=httpd, strategy=strategy, keep=2, pause=mode, path=paths)
        super().__init__(scratch, journal or root.with_name(f"{root.name}.journal"))
        self.live, self.releases = self.site.live, self.site.releases
        for place in self.site.parts:
            place.releases.mkdir(parents=True)
        self.asked = "new.tar.gz"  # the file in the drop directory by which ``new`` is to go live
        self.known: dict[str, dict[str, str]] = {}  # what each release holds, by the beginning of its id
        self.old: dict[str, str] | None = None
        getattr(self, f"_begin_with_{beginning}")()

    def _begin_with_nothing(self) -> None:
        self.new = self.drop("new")

    def _begin_with_directory(self) -> None:
        self.old = self.known["adopted"] = content("by hand")
        for place in self.site.parts:
            write_tree(place.live, self.share(self.old, place))
        self.new = self.drop("new")

    def _begin_with_link(self) -> None:
        self.old = self.known["adopted"] = content("by hand")
        for place in self.site.parts:
            place.live.symlink_to(write_tree(place.live.parent / "by-hand", self.share(self.old, place)))
        self.new = self.drop("new")

    def _begin_with_releases(self) -> None:
        """As many as are kept: the next one has one to prune."""
        for mark in ("first", "second"):
            self.old = self.drop(mark)
            self.work().check()
        self.new = self.drop("new")

    def _begin_with_kept(self) -> None:
        """The tarball that comes next is that of a release that is kept."""
        for mark in ("new", "second"):
            self.old = self.drop(mark)
            self.work().check()
        self.new = self.drop("new")

    def _begin_with_rollback(self) -> None:
        """What is to go live was live before, and is kept."""
        for mark in ("new", "second"):
            self.old = self.drop(mark)
            self.work().check()
        self.new = self.known["new"]
        self.asked = "rollback"
        (self.incoming / self.asked).touch()

    def _begin_with_undone(self) -> None:
        """What is to go live was rolled back from, and is named now: no release is bad after that."""
        for mark in ("second", "new"):
            self.drop(mark)
            self.work().check()
        (self.incoming / "rollback").touch()
        self.work().check()
        self.old, self.new = self.known["second"], self.known["new"]
        self.asked = "rollback@new"
        (self.incoming / self.asked).touch()

    def drop(self, mark: str) -> dict[str, str]:
        """A tarball in the drop directory, with its sidecar; its content. The same mark gives the same bytes."""
        self.known[mark] = content(mark)
        tarball = self.scratch.root / f"{mark}.tar.gz"
        if not tarball.exists():
            write_tarball(tarball, self.known[mark])
        write_sidecar(Path(shutil.copy(tarball, self.incoming)))
        return self.known[mark]

    # What must hold.

    def share(self, content: dict[str, str], place: Site) -> dict[str, str]:
        """What of a release's content goes to this live path."""
        inside = {name: text for name, text in content.items() if name.startswith(f"{place.part}/")}
        if place.part:
            return {name.removeprefix(f"{place.part}/"): text for name, text in inside.items()}
        others = tuple(f"{path.part}/" for path in self.site.paths)
        return {name: text for name, text in content.items() if not name.startswith(others)}

    def standing(self) -> str:
        """What visitors get now: ``old``, ``new``, ``nothing``, ``broken``, or, of several live paths, ``mixed``."""
        found = {self._standing_at(place) for place in self.site.parts}
        return found.pop() if len(found) == 1 else "mixed"

    def _standing_at(self, place: Site) -> str:
        found = self._holding(place, place.live)
        tree = read_route(place.route.map) if place.strategy is Strategy.PINNED else ""
        if not tree or found == "broken":
            return found
        # What the route leads to is what visitors get; the live path, whole as well, follows.
        return self._holding(place, route_base(place) / tree)

    def _holding(self, place: Site, path: Path) -> str:
        """Which release the path leads to."""
        if not os.path.lexists(path):
            return "nothing" if self.old is not None else "old"
        try:
            served = texts(path)
        except OSError:
            return "broken"
        if served == self.share(self.new, place):
            return "new"
        is_old = self.old is not None and served == self.share(self.old, place) and path.is_dir()
        return "old" if is_old else "broken"

    def check_recovered(self) -> None:
        """After a recovery: whole, told, and nothing of swapd's lies about."""
        assert self.standing() in ("old", "new")
        # A guardian has resumed everything before it removes the record.
        wait_until(lambda: not self.scratch.layout.pause_record.exists(), "the end of the pause")
        written = list(self.scratch.layout.deployments("shop").glob("*.toml"))
        assert len(self.deployments()) == len(written), "a record cannot be read"
        for deployment in self.deployments():
            assert deployment.ended is not None, deployment
            assert deployment.outcome is not Outcome.PENDING
        self._check_told()
        for place in self.site.parts:
            if place.strategy is Strategy.PINNED and self.standing() == "new":
                assert read_route(place.route.map) == find_kept_tree(place), (
                    "visitors and the live path have one release"
                )
            there = os.listdir(place.releases)
            left = [name for name in there if name.startswith((".sta", ".link-", ".outgoing-"))]
            assert not left, left
            if self.old is not None and self.standing() == "new":
                kept = [name for name in there if texts(place.releases / name) == self.share(self.old, place)]
                assert kept, "what was live before must be kept"
        markers = self._markers()
        assert len(markers) <= 1, markers
        if self.standing() == "old":
            assert self.uploads
            assert markers <= {f"{self.asked}.pending"} or self.deployments()[0].file_name != self.asked, markers
        elif not self.uploads:
            assert markers <= {f"{self.asked}.live", f"{self.asked}.unchanged"}, markers
        if self.asked != "new.tar.gz":
            self._check_kept()

    def _check_kept(self) -> None:
        """Of a rollback: no release is lost, and visitors who hold the files of the other one get those of this."""
        for release in self.scratch.state().previous:
            for place in self.site.parts:
                assert self._holds(place, release, release.partition("@")[0]), release
        bad = [release.partition("@")[0] for release in self.scratch.state().bad]
        is_undone = self.asked != "rollback"
        if self.standing() != "new":
            assert bad == (["new"] if is_undone else [])
            return
        assert bad == ([] if is_undone else ["second"])
        assert all(deployment.is_closed for deployment in self.deployments())
        for place in self.site.parts:
            (kept,) = place.releases.glob("second@*")
            for name in self.share(self.new, place):
                assert int((place.live / name).stat().st_mtime) > int((kept / name).stat().st_mtime), name

    def _markers(self) -> set[str]:
        return {name for name in self.scratch.markers() if name.startswith(f"{self.asked}.")}

    def _check_told(self) -> None:
        """The journal has one start and one outcome of each deployment that has a record."""
        starts: Tally[str] = Tally()
        outcomes: dict[str, list[str]] = {}
        for entry in self.told():
            if entry["MESSAGE_ID"] in ("DEPLOYMENT_STARTED", "ROLLBACK_STARTED"):
                starts[entry["SWAPD_DEPLOYMENT"]] += 1
            elif "SWAPD_OUTCOME" in entry and entry["MESSAGE_ID"].startswith(KINDS):
                outcomes.setdefault(entry["SWAPD_DEPLOYMENT"], []).append(entry["SWAPD_OUTCOME"])
        for deployment in self.deployments():
            told = outcomes.get(deployment.id, [])
            assert starts[deployment.id] == 1, deployment
            assert told == [deployment.outcome.value], (told, deployment.id)

    def check_next(self) -> None:
        """The tarball is taken up again where it is still there, and the deployment after that goes well, too."""
        if self.uploads:
            self.work().check()
        assert self.standing() == "new"
        assert not self.uploads
        self.check_recovered()
        assert self._markers() <= {f"{self.asked}.live", f"{self.asked}.unchanged"}
        self.drop("next")
        self.work().check()
        for place in self.site.parts:
            assert texts(place.live) == self.share(self.known["next"], place)
        assert self.deployments()[0].outcome is Outcome.LIVE
        self._check_told()
        self._check_tidy()

    def _check_tidy(self) -> None:
        """No file of ours under a name for a while, and every release that the state names is there and whole."""
        state = self.scratch.state()
        layout = self.scratch.layout
        assert state.live is not None
        beside = [directory for place in self.site.parts for directory in (place.releases, place.live.parent)]
        state_directories = layout.deployments("shop"), layout.site_state("shop"), layout.run
        for directory in (*beside, self.incoming, *state_directories):
            hidden = [name for name in os.listdir(directory) if name.startswith(".")]
            # These go once they are old: beside the live path and in the drop directory others may be at work.
            hidden = [name for name in hidden if not name.startswith((OWN, PROBE))]
            assert not hidden, (directory, hidden)
        visible = [name for name in os.listdir(self.incoming) if not name.startswith(OWN)]
        assert all(name.endswith(MARKER_SUFFIXES) for name in visible), visible
        assert not os.listdir(layout.claims("shop"))
        for place in self.site.parts:
            assert self._holds(place, state.previous[0], "new")
            for release in state.previous:
                assert self._holds(place, release, release.partition("@")[0]), release
            there = set(os.listdir(place.releases)) - {state.live.release}
            assert there == set(state.previous), (there, state.previous)

    def _holds(self, place: Site, release: str, mark: str) -> bool:
        return texts(place.releases / release) == self.share(self.known[mark], place)

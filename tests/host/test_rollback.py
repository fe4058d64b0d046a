"""Back to the release before, on a real host: by a command and by one scp or sftp, while visitors come."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.host import journal
from tests.host.conftest import Expected
from tests.host.releases import MARK, Packed, describe_tree, pack
from tests.host.visitors import Load, fetch
from tests.host.webhost import AUTHOR, UPLOADER, Marker, Site, Way, WebHost, assert_one_story
from tests.support.trees import write_tree

# A live path that is a symbolic link, and one that is a directory, which is exchanged.
KINDS = ("linked", "exchanged")


@dataclass
class Shop:
    """A site and the releases that it has had."""

    site: Site
    packed: dict[str, Packed] = field(default_factory=dict)  # by id

    def deploy(self, packed: Packed) -> None:
        self.site.assert_live(packed, self.site.deploy(packed.tarball))
        self.packed[packed.release] = packed

    def status(self) -> dict[str, object]:
        (status,) = json.loads(self.site.web.run("swapd", "status", self.site.name, "--json"))["sites"]
        assert isinstance(status, dict)
        return status

    def check_live(self, release: str) -> None:
        """Served byte for byte, and told by the status."""
        packed = self.packed[release]
        self.site.assert_serves(packed.tree)
        assert describe_tree(self.site.tree()) == describe_tree(packed.tree)
        assert release in self.site.web.status_line()

    def ask(self, name: str = "rollback", way: Way = Way.SCP) -> Marker:
        """Somebody who has nothing but scp asks for it."""
        request = self.site.web.host.path(f"/home/{AUTHOR}/{name}.local")
        request.touch()
        source = f"/home/{AUTHOR}/{name}.local"
        command, stdin = way.command(source, f"{self.site.incoming}/{name}")
        return self.site.outcome_after(lambda: self.site.web.run(*command, user=AUTHOR, stdin=stdin), name)


@pytest.fixture(scope="module", params=KINDS)
def shop(request: pytest.FixtureRequest, web: WebHost, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """With three releases, the last of which is live."""
    name = request.param
    if name == "exchanged":
        write_tree(web.host.path(f"/var/www/{name}"), {"index.html": "by hand"})
    shop = Shop(web.new_site(name))
    place = tmp_path_factory.mktemp(name)
    for number in (1, 2, 3):
        shop.deploy(pack(place, f"{name}-{number}"))
    return shop


def test_by_command_under_load(shop: Shop) -> None:
    _, two, three = shop.packed
    held = fetch(shop.site.web.host, shop.site.domain, MARK)
    mark = journal.mark(shop.site.web.host)
    with Load(shop.site.web.host, shop.site.domain, rate=100) as load:
        document = json.loads(shop.site.web.run("swapd", "rollback", shop.site.name, "--json"))
    load.assert_served({shop.packed[two].name, shop.packed[three].name})
    assert (document["outcome"], document["release"], document["previous"]) == ("live", two, three)
    shop.check_live(two)
    assert shop.status()["bad"] == [three]
    # Whoever holds a file of the other release gets this one's.
    answer = fetch(shop.site.web.host, shop.site.domain, MARK, since=held.modified)
    assert (answer.status, answer.body.decode().strip()) == (200, shop.packed[two].name)
    # A command's records are not the unit's.
    found = journal.records(shop.site.web.host, f"SWAPD_SITE={shop.site.name}", after=mark)
    outcome = assert_one_story(found, document["id"], journal.ROLLBACK_LIVE)
    assert outcome["SWAPD_RELEASE"] == two
    assert three in outcome["MESSAGE"]
    assert outcome["SWAPD_OPERATOR"] == document["operator"] != ""
    assert int(outcome["SWAPD_PAUSED"]) > 1


@pytest.mark.parametrize("way", [Way.SCP, Way.SFTP_RENAME], ids=lambda way: way.name.lower())
def test_by_a_control_file(shop: Shop, way: Way) -> None:
    """By scp further back than by the command before; by sftp forward again, which is to name it."""
    one, _, three = shop.packed
    wanted, name = (one, "rollback") if way is Way.SCP else (three, f"rollback@{three}")
    held = fetch(shop.site.web.host, shop.site.domain, MARK)
    mark = journal.mark(shop.site.web.host)
    with Load(shop.site.web.host, shop.site.domain) as load:
        marker = shop.ask(name, way)
    assert not load.failures
    assert (marker.outcome, marker["release"]) == ("live", wanted)
    assert not shop.site.dropped(name).exists()
    shop.check_live(wanted)
    answer = fetch(shop.site.web.host, shop.site.domain, MARK, since=held.modified)
    assert (answer.status, answer.body.decode().strip()) == (200, shop.packed[wanted].name)
    outcome = assert_one_story(shop.site.records(after=mark), marker["deployment"], journal.ROLLBACK_LIVE)
    assert (outcome["SWAPD_RELEASE"], outcome["SWAPD_UPLOADER"]) == (wanted, UPLOADER)


def test_the_history_says_who_rolled_back(shop: Shop) -> None:
    lines = shop.site.web.run("swapd", "history", shop.site.name).splitlines()
    rollbacks = [line for line in lines if "rollback from" in line]
    assert len(rollbacks) == 3
    assert sum(line.rstrip().endswith(UPLOADER) for line in rollbacks) == 2


def test_what_is_asked_for_in_vain(shop: Shop, expected: Expected) -> None:
    """It stays, with the reason, and is gone with its file."""
    expected.warning(MESSAGE_ID=journal.ROLLBACK_REJECTED)
    marker = shop.ask("rollback@nothing")
    assert (marker.outcome, marker["problem"]) == ("rejected", "unknown-release")
    assert all(release in marker["hint"] for release in shop.packed)
    shop.site.sftp(f'rm "{shop.site.incoming}/rollback@nothing"')


def test_the_journal_explains_itself(shop: Shop) -> None:
    explained = shop.site.web.run("journalctl", "--catalog", f"MESSAGE_ID={journal.ROLLBACK_LIVE}")
    assert "Defined-By: swapd" in explained
    assert "@SWAPD_" not in explained


def test_everything_goes_on_as_ever(shop: Shop, tmp_path: Path) -> None:
    shop.deploy(pack(tmp_path, f"{shop.site.name}-4"))

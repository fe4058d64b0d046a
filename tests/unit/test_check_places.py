"""What `check` finds on a host that is broken on purpose, as far as a scratch directory can be; and where nothing is.

What needs a booted host is in `tests/host/test_check.py`.
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from swapd.checks import find, labelling, programs
from swapd.checks.clock import judge
from swapd.commands.init import make_site
from swapd.host import clock, records
from swapd.host.configuration import read_site
from swapd.host.files import identify
from swapd.model.config import Site
from swapd.model.findings import Finding, Severity
from swapd.model.layout import Layout
from swapd.model.record import LiveRelease, SiteState, now
from swapd.model.release import DeploymentId, ReleaseId, SiteName
from tests.support.sites import make_site as as_configured
from tests.support.trees import write_tree

SHOP = SiteName("shop")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFb0e2b1pjKzvCUXVYHX0GdZbFz1NPvHQ2tqwdvTQbrm"
NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def set_up(layout: Layout, **keys: object) -> Site:
    """A healthy site with a live release, whose group, but for root's, this machine has."""
    group = {"group": grp.getgrgid(pwd.getpwuid(1).pw_gid).gr_name} if os.geteuid() == 0 else {}
    live = layout.root / "www/shop"
    site, _ = make_site(layout, "shop", {"live": str(live), **group, **keys})
    release = ReleaseId("shop-1@111111111111")
    tree = write_tree(site.releases / release, {"index.html": "one"})
    live.symlink_to(tree)
    live_release = LiveRelease(release, None, DeploymentId("one"), now(), identify(tree), live=str(live))
    records.write_state(layout, SHOP, SiteState(live_release))
    return site


def problems(layout: Layout) -> list[str]:
    """What is found and matters."""
    return [finding.problem for finding in find([read_site(layout, "shop")], layout) if finding.is_trouble]


@pytest.mark.parametrize("strategy", ["auto", "symlink"])
def test_nothing_is_found_where_nothing_is_wrong(layout: Layout, strategy: str) -> None:
    set_up(layout, strategy=strategy)
    assert problems(layout) == []


def without_incoming(_: Layout, site: Site) -> None:
    site.incoming.rmdir()


def incoming_is_a_file(_: Layout, site: Site) -> None:
    site.incoming.rmdir()
    site.incoming.touch()


def incoming_is_for_everybody(_: Layout, site: Site) -> None:
    site.incoming.chmod(0o2777)


def incoming_has_another_group(_: Layout, site: Site) -> None:
    os.chown(site.incoming, -1, 0)
    site.incoming.chmod(0o2770)


def incoming_is_not_for_its_group(_: Layout, site: Site) -> None:
    site.incoming.chmod(0o2750)


def incoming_has_no_setgid(_: Layout, site: Site) -> None:
    site.incoming.chmod(0o770)


def spool_is_closed(layout: Layout, _: Site) -> None:
    layout.spool.chmod(0o700)


def spool_can_be_passed(layout: Layout, _: Site) -> None:
    layout.spool.chmod(0o701)


def spool_is_for_another_group(layout: Layout, _: Site) -> None:
    layout.spool.chmod(0o750)
    os.chown(layout.spool, -1, NOBODY)


def sites_are_for_a_group(layout: Layout, _: Site) -> None:
    layout.sites.chmod(0o775)
    os.chown(layout.sites, -1, NOBODY)


def web_servers_directory_is_its_own(_: Layout, site: Site) -> None:
    """Whoever comes to the live path comes to the releases beside it."""
    site.live.parent.chmod(0o710)


def releases_are_closed(_: Layout, site: Site) -> None:
    site.releases.chmod(0o700)


def releases_are_for_their_owner(layout: Layout, site: Site) -> None:
    """Whom the web server runs as."""
    os.chown(site.releases, NOBODY, NOBODY)
    site.releases.chmod(0o750)
    configured(f'owner = "{NOBODY}:{NOBODY}"\n')(layout, site)


def releases_are_open(_: Layout, site: Site) -> None:
    site.releases.chmod(0o777)


def live_is_open(_: Layout, site: Site) -> None:
    Path(os.path.realpath(site.live)).chmod(0o777)


def claims_are_open(layout: Layout, site: Site) -> None:
    layout.claims(site.name).chmod(0o755)


def records_are_open(layout: Layout, site: Site) -> None:
    layout.site_record(site.name).chmod(0o666)


def run_is_open(layout: Layout, _: Site) -> None:
    layout.run.chmod(0o777)


def configuration_is_open(layout: Layout, _: Site) -> None:
    layout.sites.chmod(0o777)


def configuration_is_somebody_elses(layout: Layout, site: Site) -> None:
    os.chown(layout.site_file(site.name), NOBODY, -1)


def configured(text: str) -> Callable[[Layout, Site], None]:
    def append(layout: Layout, site: Site) -> None:
        with layout.site_file(site.name).open("a") as file:
            file.write(text)

    append.__name__ = text.strip()
    return append


def group_is_gone(layout: Layout, site: Site) -> None:
    layout.site_file(site.name).write_text(f'live = "{site.live}"\ngroup = "swapd-test-nobody"\n')


def signed(signers: str | None, mode: int = 0o644) -> Callable[[Layout, Site], None]:
    def require(layout: Layout, site: Site) -> None:
        if signers is not None:
            layout.allowed_signers.write_text(signers)
            layout.allowed_signers.chmod(mode)
        configured('[verify]\nrequire = "signature"\n')(layout, site)

    return require


def bad_revoked_keys(layout: Layout, site: Site) -> None:
    signed(f"alice {KEY}\n")(layout, site)
    (layout.configuration / "revoked_keys").write_text("no key\n")


def clock_was_set_back(layout: Layout, site: Site) -> None:
    state = records.read_state(layout, site.name)
    assert state.live is not None
    live = replace(state.live, since=now() + timedelta(hours=1))
    records.write_state(layout, site.name, replace(state, live=live))


def live_is_another_tree(_: Layout, site: Site) -> None:
    site.live.unlink()
    write_tree(site.live, {"index.html": "by hand"})


def kept_release_is_gone(layout: Layout, site: Site) -> None:
    state = records.read_state(layout, site.name)
    records.write_state(layout, site.name, replace(state, previous=(ReleaseId("shop-0@000000000000"),)))


def record_is_damaged(layout: Layout, site: Site) -> None:
    (layout.deployments(site.name) / "one.toml").write_text("outcome = \n")


def many_are_to_be_kept(_: Layout, site: Site) -> None:
    with (site.live / "large").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 8 << 20)


Break = Callable[[Layout, Site], None]
# Each fault, and all that is found of it.
CASES: list[tuple[Break, list[str]]] = [
    (without_incoming, ["incoming-missing"]),
    (incoming_is_a_file, ["incoming-missing"]),
    (incoming_is_for_everybody, ["incoming-world-writable"]),
    (group_is_gone, ["no-group"]),
    (releases_are_open, ["world-writable"]),
    (live_is_open, ["world-writable"]),
    (claims_are_open, ["claims-not-private"]),
    (records_are_open, ["unsafe-state"]),
    (run_is_open, ["unsafe-state"]),
    (configuration_is_open, ["unsafe-configuration"]),
    (configured('owner = "nobody-of-this-host:daemon"\n'), ["unknown-owner"]),
    (signed(f"alice {KEY}\n"), []),
    (signed(f'alice namespaces="swapd:shop" {KEY}\n'), []),
    (signed(None), ["no-signers"]),
    (signed(f"alice {KEY}\n", 0o666), ["unsafe-signers"]),
    (signed("# nobody yet\n"), ["nobody-may-sign"]),
    (signed(f'alice namespaces="swapd:blog" {KEY}\n'), ["nobody-may-sign"]),
    (signed(f'alice valid-before="20200101" {KEY}\n'), ["nobody-may-sign"]),
    (bad_revoked_keys, ["bad-revoked-keys"]),
    (clock_was_set_back, ["clock-behind"]),
    (live_is_another_tree, ["live-changed"]),
    (kept_release_is_gone, ["kept-gone"]),
    (record_is_damaged, ["bad-record"]),
]
# The same for those that only root can make.
ROOT_CASES: list[tuple[Break, list[str]]] = [
    (incoming_has_another_group, ["incoming-not-writable"]),
    (incoming_is_not_for_its_group, ["incoming-not-writable"]),
    (incoming_has_no_setgid, ["incoming-not-setgid"]),
    (spool_is_closed, ["incoming-unreachable"]),
    (spool_can_be_passed, []),
    (spool_is_for_another_group, ["incoming-unreachable"]),
    (sites_are_for_a_group, ["unsafe-configuration"]),
    (web_servers_directory_is_its_own, []),
    (releases_are_closed, ["releases-unreachable"]),
    (releases_are_for_their_owner, []),
    (configuration_is_somebody_elses, ["unsafe-configuration"]),
]


def name_of(value: object) -> str | None:
    return value.__name__ if callable(value) else None


def check_each(layout: Layout, breaks: Break, expected: list[str]) -> None:
    """What it finds; and where it has commands for that, they mend it."""
    site = set_up(layout)
    breaks(layout, site)
    found = [item for item in find([read_site(layout, "shop")], layout) if item.is_trouble]
    assert [item.problem for item in found] == expected, found
    assert all(item.what and item.why and item.remedy for item in found)
    commands = [command for item in found for command in item.commands]
    # Those for a host would go past the scratch directory.
    if commands and all(command.startswith(("ch", "mkdir")) for command in commands) and os.geteuid() == 0:
        for command in commands:
            subprocess.run(["sh", "-ec", command], check=True)
        assert problems(layout) == [], commands


@pytest.mark.parametrize(("breaks", "expected"), CASES, ids=name_of)
def test_each_fault_is_found_and_nothing_else(layout: Layout, breaks: Break, expected: list[str]) -> None:
    check_each(layout, breaks, expected)


@root_only
@pytest.mark.parametrize(("breaks", "expected"), ROOT_CASES, ids=name_of)
def test_each_fault_of_owners_and_groups(layout: Layout, breaks: Break, expected: list[str]) -> None:
    check_each(layout, breaks, expected)


def test_a_way_closed_to_others_is_none_to_a_live_directory(layout: Layout) -> None:
    """It is exchanged: what visitors get is at the live path, and never below the releases."""
    site = set_up(layout)
    site.live.unlink()
    write_tree(site.live, {"index.html": "by hand"})
    records.write_state(layout, SHOP, SiteState())
    site.releases.chmod(0o700)
    assert "releases-unreachable" not in problems(layout)


def test_room_for_all_that_keep_asks_for(layout: Layout) -> None:
    """With the numbers."""
    site = set_up(layout)
    many_are_to_be_kept(layout, site)
    assert problems(layout) == []
    free = os.statvfs(site.releases)
    keep = (free.f_bavail * free.f_frsize) // (8 << 20) + 100
    layout.site_file("shop").write_text(layout.site_file("shop").read_text() + f"keep = {keep}\n")
    (found,) = (item for item in find([read_site(layout, "shop")], layout) if item.is_trouble)
    assert found.problem == "little-space"
    assert f"keep = {keep}" in found.what
    assert "8.0 MiB" in found.why


def test_no_program_for_what_needs_one(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without them has none in its PATH."""
    site = set_up(layout)
    signed(f"alice {KEY}\n")(layout, site)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert sorted(problems(layout)) == ["no-ssh-keygen", "no-zstd"]


def test_a_python_that_lacks_modules(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that Debian's Python always has, and one that Debian 12 does not have at all."""
    monkeypatch.setattr(programs, "has", lambda _: False)
    found = {item.problem: item.severity for item in programs.find_decompressors([], layout)}
    assert found == {"no-xz": Severity.WARNING, "no-bzip2": Severity.WARNING, "no-isal": Severity.INFO}


@root_only
def test_a_group_without_members_is_good_to_know(layout: Layout) -> None:
    """This host may have some in a directory that does not tell (LDAP)."""
    lonely = next(
        group.gr_name
        for group in grp.getgrall()
        if not group.gr_mem and all(user.pw_gid != group.gr_gid for user in pwd.getpwall())
    )
    site = set_up(layout, group=lonely)
    found = {item.problem: item for item in find([site], layout)}
    assert found["no-uploader"].severity is Severity.INFO
    assert found["no-uploader"].facts == {"group": lonely}


def test_a_clock_that_nobody_keeps_right_matters_to_who_goes_by_it(tmp_path: Path) -> None:
    plain, careful = as_configured(tmp_path), as_configured(tmp_path, "blog", verify={"newer_only": True})
    assert not list(judge(0, [careful]))
    (known,) = judge(clock.TIME_ERROR, [plain])
    (warned,) = judge(clock.TIME_ERROR, [plain, careful])
    assert (known.problem, known.severity) == ("clock-not-synchronised", Severity.INFO)
    assert (warned.problem, warned.severity) == ("clock-not-synchronised", Severity.WARNING)
    assert "blog" in warned.what
    assert "shop" not in warned.what


class TestLabels:
    """With an attribute that every filesystem has, in the place of SELinux's; the policy's word is made up."""

    ATTRIBUTE = "user.swapd-test"
    LIVE, OTHER = "unconfined_u:object_r:httpd_sys_content_t:s0", "system_u:object_r:var_t:s0"

    @pytest.fixture
    def site(self, layout: Layout) -> Site:
        site = set_up(layout)
        os.setxattr(os.path.realpath(site.live), self.ATTRIBUTE, self.LIVE.encode() + b"\0")
        return site

    def compare(self, site: Site, policy: labelling.Policy) -> list[Finding]:
        return list(labelling.compare(site, policy, self.ATTRIBUTE))

    def test_the_policy_has_the_same_type(self, site: Site) -> None:
        assert not self.compare(site, lambda _: "system_u:object_r:httpd_sys_content_t:s0")

    def test_the_policy_says_nothing(self, site: Site) -> None:
        assert not self.compare(site, lambda _: "<<none>>")

    def test_what_the_policy_says_is_asked_of_matchpathcon(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """Or that nobody can be asked, on a host that has labels."""
        programs = site.live.parent / "bin"
        programs.mkdir()
        monkeypatch.setenv("PATH", str(programs))
        monkeypatch.setattr(labelling, "has_labels", lambda: True)
        (found,) = labelling.find_labels(site, Layout())
        assert (found.problem, found.severity) == ("label-unknown", Severity.UNKNOWN)
        (programs / "matchpathcon").write_text('#!/bin/sh\n[ "$1 $2 $3" = "-m dir -n" ] && echo "u:r:type_of$4_t:s0"\n')
        (programs / "matchpathcon").chmod(0o755)
        assert labelling.type_of(labelling.ask_policy(site.live)) == f"type_of{site.live}_t"

    def test_the_policy_has_another_type_for_the_releases_alone(self, site: Site) -> None:
        (found,) = self.compare(site, lambda path: self.OTHER if site.releases in path.parents else self.LIVE)
        assert found.problem == "label-differs"
        assert found.commands[0] == f"semanage fcontext -a -t httpd_sys_content_t '{site.releases}(/.*)?'"

    def test_the_policy_has_another_type_for_the_live_path(self, site: Site) -> None:
        (found,) = self.compare(site, lambda _: self.OTHER)
        assert found.commands[1] == f"restorecon -Rv {site.live}"

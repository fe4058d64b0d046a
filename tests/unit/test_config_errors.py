"""Every mistake in a configuration: its file, its line, its key, what would be right; all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from swapd.host.configuration import read_site, read_sites
from swapd.model.config_parser import Source, parse_sites
from swapd.model.errors import ConfigurationError, ConfigurationIssue, ExitStatus, UsageError
from swapd.model.layout import Layout

LAYOUT = Layout(Path("/scratch"))
LIVE = 'live = "/var/www/shop"\n'


def issues_of(*texts: str, defaults: str | None = None, names: tuple[str, ...] = ()) -> list[ConfigurationIssue]:
    """What is wrong with sites that say ``texts``; their files are called ``shop.toml``, ``site2.toml``, …"""
    names = names or ("shop", *(f"site{number}" for number in range(2, len(texts) + 1)))
    sources = {name: Source(f"{name}.toml", text) for name, text in zip(names, texts, strict=True)}
    behind = None if defaults is None else Source("swapd.toml", defaults)
    with pytest.raises(ConfigurationError) as caught:
        parse_sites(sources, behind, LAYOUT)
    assert caught.value.problem == "bad-configuration"
    assert caught.value.exit_status is ExitStatus.CONFIGURATION
    assert caught.value.message == "\n".join(map(str, caught.value.issues))
    return list(caught.value.issues)


def the_issue(text: str) -> ConfigurationIssue:
    """The only mistake; below a live path, so that it is on line 2."""
    (issue,) = issues_of(LIVE + text)
    return issue


WRONG_VALUES = [
    ("strategy", '"swap"', '"exchange"'),
    ("strategy", "1", '"exchange"'),
    ("keep", "1", "2 or more"),
    ("keep", "2.5", "2 or more"),
    ("keep", "true", "2 or more"),
    ("keep", '"5"', "2 or more"),
    ("owner", '"www-data"', "USER:GROUP"),
    ("owner", '"a b:c"', "USER:GROUP"),
    ("owner", "33", "in quotes"),
    ("mtime", '"now"', '"archive"'),
    ("strip_components", "-1", "0 to 32"),
    ("strip_components", "33", "0 to 32"),
    ("strip_components", "true", "0 to 32"),
    ("strip_components", '"none"', '"auto"'),
    ("incoming", '"drop"', "from /"),
    ("incoming", '"/var/spool/../shop"', "from /"),
    ("incoming", '"/var/spool/shop/"', "from /"),
    ("incoming", '"/var//spool"', "from /"),
    ("incoming", '"//var/spool"', "from /"),
    ("incoming", '"/var/sp\\u001bool"', "from /"),
    ("incoming", '"/var/sp\\nool"', "from /"),
    ("incoming", "[]", "in quotes"),
    ("releases", '"./x"', "from /"),
    ("must_contain", '"index.php"', "a list"),
    ("must_contain", '["/index.php"]', "inside a release"),
    ("must_contain", '["a/../b"]', "inside a release"),
    ("must_contain", '["."]', "inside a release"),
    ("must_contain", '[""]', "inside a release"),
    ("must_contain", '["a//b"]', "inside a release"),
    ("must_contain", "[1]", "inside a release"),
    ("must_contain", '["a\\u0000b"]', "inside a release"),
    ("must_contain", '["a\\nb"]', "inside a release"),
    ("shared", '["../uploads"]', "inside a release"),
    ("shared", '["uploads\\u0000"]', "inside a release"),
    ("shared", '["uploads", "uploads/2024"]', ""),
    ("shared", '["uploads/2024", "uploads"]', ""),
    ("shared", '["uploads", "uploads"]', ""),
    ("verify.require", '"hope"', '"digest"'),
    ("verify.allowed_signers", '"signers"', "from /"),
    ("verify.settle", "2", "with its unit"),
    ("verify.settle", '"2"', "with its unit"),
    ("verify.settle", '"2 fortnights"', "with its unit"),
    ("verify.settle", '"-2s"', "with its unit"),
    ("verify.settle", '"nans"', "with its unit"),
    ("verify.settle", '"0s"', "from 0.1s"),
    ("verify.settle", '"2h"', "to 3600s"),
    ("verify.max_tarball", "4096", "with its unit"),
    ("verify.max_tarball", '"4Gib"', "with its unit"),
    ("verify.max_tarball", '"0B"', "with its unit"),
    ("verify.max_extracted", '"1e9B"', "with its unit"),
    ("verify.max_entries", "0", "1 or more"),
    ("verify.newer_only", '"yes"', "true or false"),
    ("verify.newer_only", "1", "true or false"),
    ("verify.allow_links_to", '"/srv/media"', "a list"),
    ("verify.allow_links_to", '["media"]', "from /"),
    ("verify.allow_links_to", '["/srv/media/../x"]', "from /"),
    ("verify.allow_links_to", '["/srv/media/"]', "from /"),
    ("verify.allow_links_to", '["/srv", "/"]', "name the directories"),
    ("verify.allow_links_to", "[1]", "in quotes"),
    ("extract.reuse", "true", '"never"'),
    ("extract.reuse", '"always"', '"auto"'),
    ("group", "5", "in quotes"),
    ("group", '""', "shop-deploy"),
    ("group", '"a b"', "shop-deploy"),
    ("group", '"www-data:adm"', "shop-deploy"),
    ("pause.mode", '"sometimes"', '"never"'),
    ("pause.processes", '"httpd"', "a list"),
    ("pause.processes", "[]", "a list"),
    ("pause.processes", '["/usr/sbin/httpd"]', "a list"),
    ("pause.processes", '["sshd"]', "a list"),
    ("pause.processes", '["httpd", "systemd"]', "a list"),
    ("pause.processes", '["swapd"]', "a list"),
    ("pause.max", '"0s"', "from 0.01s"),
    ("pause.max", '"11s"', "to 10s"),
    ("pause.processes", '["sshd-session"]', "a list"),
    ("pause.processes", '["systemd-journal"]', "a list"),  # as the kernel calls systemd-journald
    ("pause.processes", '["init"]', "a list"),
    ("pause.processes", '["python3"]', "a list"),  # which swapd itself is called until it has named itself
    ("pause.user", '"www data"', "a name"),
    ("pause.unit", '"apache2"', "apache2.service"),
    ("pause.unit", '"system.slice"', "apache2.service"),
    ("pause.unit", '"a/b.service"', "apache2.service"),
    ("pause.unit", "[]", "in quotes"),
    *(
        ("pause.unit", f'"{name}.service"', "apache2.service")
        for name in ("swapd", "ssh", "sshd", "sshd@22-a", "systemd-journald", "dbus", "user@1000", "init")
    ),
    ("pause.exe", '"apache2"', "from /"),
    ("pause.exe", '"/usr/sbin/../apache2"', "from /"),
    ("pause.exe", '"/usr/sbin/sshd"', "/usr/sbin/apache2"),
    ("pause.exe", '"/usr/bin/python3.13"', "/usr/sbin/apache2"),
    ("pause.exe", '"/usr/lib/systemd/systemd"', "/usr/sbin/apache2"),
]


@pytest.mark.parametrize(("key", "value", "right"), WRONG_VALUES)
def test_a_wrong_value_is_told_with_its_place_and_what_would_be_right(key: str, value: str, right: str) -> None:
    issue = the_issue(f"{key} = {value}\n")
    assert (issue.file, issue.line, issue.key) == ("shop.toml", 2, key)
    assert right in issue.right
    assert str(issue) == f"shop.toml:2: {key}: {issue.message}; {issue.right}"
    assert str(issue).isprintable()


@pytest.mark.parametrize(
    ("text", "line", "key", "right"),
    [
        ('path = "/srv/x"', 2, "path", "[[path]]"),
        ("path = [1]", 2, "path", "[[path]]"),
        ('[[path]]\nlive = "/srv/a/x"', 2, "path.part", 'part = "…"'),
        ('[[path]]\npart = "x"', 2, "path.live", 'live = "…"'),
        ('[[path]]\nlive = "/srv/a/x"\npart = "../x"', 4, "path.part", "inside a release"),
        ('[[path]]\nlive = "/srv/a/x"\npart = ""', 4, "path.part", "inside a release"),
        ('[[path]]\nlive = "x"\npart = "x"', 3, "path.live", "from /"),
        ('[[path]]\nlive = "/srv/a/x"\npart = "x"\nreleases = "r"', 5, "path.releases", "from /"),
        ('[[path]]\nlive = "/srv/a/x"\npart = "x"\nkeep = 3', 5, "path.keep", "live, part, releases"),
        ('[[path]]\nlive = "/srv/a/x"\npart = "x"\n[[path]]\nlive = "/srv/a/y"\npart = 3', 7, "path.part", "inside"),
        ('[[path]]\nlive = "/srv/a/x"\npart = "x"\n[[path]]\nlive = "/srv/a/y"\npart = "x/y"', 2, "path", "its own"),
        ('shared = ["x/uploads"]\n[[path]]\nlive = "/srv/a/x"\npart = "x"', 2, "shared", "main part"),
        ('[[path]]\nlive = "/var/www/shop/cgi"\npart = "x"\nreleases = "/srv/r"', 2, "path", "of its own"),
        ('[[path]]\nlive = "/srv/a/x"\npart = "x"\nreleases = "/var/www/shop.releases"', 2, "path", "of its own"),
    ],
)
def test_a_further_live_path_that_is_wrong(text: str, line: int, key: str, right: str) -> None:
    issue = the_issue(text)
    assert (issue.line, issue.key) == (line, key)
    assert right in issue.right


def test_two_sites_with_one_further_live_path() -> None:
    path = '[[path]]\nlive = "/srv/a/x"\npart = "x"\n'
    issues = issues_of(LIVE + path, 'live = "/var/www/blog"\n' + path)
    assert {(issue.file, issue.key) for issue in issues} == {("site2.toml", "path")}


def test_further_live_paths_are_each_sites_own() -> None:
    (issue,) = issues_of(LIVE, defaults='[[path]]\nlive = "/srv/a/x"\npart = "x"\n')
    assert (issue.file, issue.key) == ("swapd.toml", "path")


@pytest.mark.parametrize(
    ("live", "right"),
    [
        ('"shop"', "from /"),
        ('"/"', "directory of its own"),
        ('"/shop"', "directory of its own"),
        ('"/var/www/shop/"', "from /"),
        ('"/var/www/' + "x" * 201 + '"', "shorter"),
        ('""', "from /"),
        ("3", "in quotes"),
    ],
)
def test_a_wrong_live_path(live: str, right: str) -> None:
    (issue,) = issues_of(f"live = {live}")
    assert (issue.line, issue.key) == (1, "live")
    assert right in issue.right


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 0),
        ("keep = 3", 0),
        ("# only a comment\n", 0),
    ],
)
def test_a_site_without_a_live_path(text: str, line: int) -> None:
    (issue,) = issues_of(text)
    assert (issue.file, issue.line, issue.key, issue.message) == ("shop.toml", line, "live", "is missing")
    assert 'live = "/' in issue.right


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("live = /var/www/shop\n", 1),
        (LIVE + "keep = \n", 2),
        (LIVE + "keep = 3\nkeep = 4\n", 3),
        (LIVE + '[verify]\nsettle = "2s\n', 3),
        (LIVE + "[verify\n", 2),
        (LIVE + "must_contain = [", 2),
    ],
)
def test_what_is_not_toml_is_told_with_its_line(text: str, line: int) -> None:
    (issue,) = issues_of(text)
    assert (issue.line, issue.key) == (line, "")
    assert issue.message.startswith("not TOML")


@pytest.mark.parametrize(
    ("text", "key", "right"),
    [
        ("stratgy = 1", "stratgy", "strategy"),
        ("Keep = 5", "Keep", "keep"),
        ("[verify]\nsettel = '2s'", "verify.settel", "settle"),
        ("[pause]\nprocess = []", "pause.process", "processes"),
        ("[verfy]\n", "verfy", "verify"),
        ("qqqq = 1", "qqqq", "must_contain"),  # nothing is near: all keys are listed
    ],
)
def test_an_unknown_key_and_what_was_meant(text: str, key: str, right: str) -> None:
    issue = the_issue(text)
    assert (issue.key, issue.message) == (key, "unknown key")
    assert right in issue.right
    assert issue.line == 2 + text.count("\n", 0, -1)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("pause.by = 'x'", "pause.by"),
        *((f"[{table}]", table) for table in ("hooks", "health", "database", "assets", "php", "balancer")),
    ],
)
def test_a_key_of_a_later_version_says_so(text: str, key: str) -> None:
    issue = the_issue(text)
    assert (issue.line, issue.key) == (2, key)
    assert "this version does not have" in issue.message


@pytest.mark.parametrize("text", ["verify = 3", "pause = []", 'verify = "digest"'])
def test_a_table_that_is_none(text: str) -> None:
    issue = the_issue(text)
    assert (issue.line, issue.key) == (2, text.split()[0])
    assert f"[{issue.key}]" in issue.right


def test_all_mistakes_of_all_files_come_at_once() -> None:
    first = 'live = "shop"\nkeep = 0\n\n[verify]\nsettle = 2\nsize = 1\n\n[pause]\nmax = "1d"\n'
    second = "strategy = 'fast'\n"
    defaults = '\n\nmtime = "never"\n'
    found = issues_of(first, second, 'live = "broken', defaults=defaults)
    assert {(issue.file, issue.line, issue.key) for issue in found} == {
        ("swapd.toml", 3, "mtime"),
        ("shop.toml", 1, "live"),
        ("shop.toml", 2, "keep"),
        ("shop.toml", 5, "verify.settle"),
        ("shop.toml", 6, "verify.size"),
        ("shop.toml", 9, "pause.max"),
        ("site2.toml", 0, "live"),
        ("site2.toml", 1, "strategy"),
        ("site3.toml", 1, ""),
    }
    assert len(found) == 9, "each is told once"


@pytest.mark.parametrize("key", ["live", "incoming", "releases"])
def test_what_each_site_must_say_itself_is_no_default(key: str) -> None:
    (issue,) = issues_of(LIVE, defaults=f'# defaults\n{key} = "/srv/one/place"\n')
    assert (issue.file, issue.line, issue.key, issue.message) == ("swapd.toml", 2, key, "cannot be a default")


def test_a_bad_default_is_told_though_every_site_has_its_own_value() -> None:
    (issue,) = issues_of(LIVE + "keep = 3\n", defaults="keep = 1\n")
    assert (issue.file, issue.line, issue.key) == ("swapd.toml", 1, "keep")


@pytest.mark.parametrize("name", ["Shop", "-shop", "shöp", "a" * 64, "a.b", "a b", "a\nb"])
def test_a_file_that_cannot_name_a_site(name: str) -> None:
    (issue,) = issues_of(LIVE, names=(name,))
    assert "cannot name a site" in issue.message
    assert issue.message.isprintable()


@pytest.mark.parametrize(
    ("shop", "other", "key"),
    [
        ('live = "/srv/www/a"', 'live = "/srv/www/a"', "live"),
        ('live = "/srv/www/a"', 'live = "/srv/www/a/sub"', "live"),
        ('live = "/srv/www/a/sub"', 'live = "/srv/www/a"', "live"),
        ('live = "/srv/www/a"', 'live = "/srv/www/a.releases"', "live"),
        ('live = "/srv/www/a"', 'live = "/srv/www/a.releases/x"', "live"),
        ('live = "/srv/www/a"', 'live = "/srv/www/a.shared"', "live"),
        ('live = "/srv/www/a"', 'live = "/srv/www/a.shared/x"', "live"),
        ('live = "/srv/www/a"', 'live = "/srv/www/b"\nreleases = "/srv/www/a.releases"', "releases"),
        ('live = "/srv/www/a"', 'live = "/srv/www/b"\nincoming = "/scratch/var/spool/swapd/shop"', "incoming"),
        ('live = "/srv/www/a"', 'live = "/srv/www/b"\nincoming = "/srv/www/a/drop"', "incoming"),
    ],
)
def test_two_sites_may_not_be_in_one_place(shop: str, other: str, key: str) -> None:
    found = issues_of(shop, other)
    assert {issue.file for issue in found} == {"site2.toml"}
    assert key in {issue.key for issue in found}
    line = next(number for number, text in enumerate(other.splitlines(), 1) if text.startswith(key))
    assert line in {issue.line for issue in found if issue.key == key}
    assert any("shop" in issue.message for issue in found)


@pytest.mark.parametrize("key", ["releases", "incoming"])
@pytest.mark.parametrize("place", ["/var/www/shop", "/var/www/shop/inside", "/var/www", "/var/www/shop.shared"])
def test_a_site_may_not_be_in_its_own_way(key: str, place: str) -> None:
    found = issues_of(LIVE + f'{key} = "{place}"')
    # What nobody wrote down, LIVE.shared, has no line.
    assert {(issue.line, issue.key) for issue in found} <= {(2, key), (0, "shared")}
    assert all(place in issue.message for issue in found)


def test_neighbours_do_not_overlap() -> None:
    sources = {
        name: Source(name, f'live = "/srv/www/{name}"\nincoming = "/srv/drop/{name}"') for name in ("a", "ab", "a-b")
    }
    assert len(parse_sites(sources, None, LAYOUT)) == 3


class TestLines:
    """tomllib keeps no positions: the lines are found in the text."""

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("[verify]\n\n  settle   =  1\n", 4),
            ("verify.settle = 1\n", 2),
            ("[ verify ]\n'settle' = 1\n", 3),
            ('["verify"]\n"settle" = 1\n', 3),
            ("verify . settle = 1\n", 2),
            ("verify = { settle = 1 }\n", 2),
            ("verify = {\n} # settle = 1\n", 0),
            ("# settle = 1\n[pause]\nmode = 'auto' # settle = 9\n[verify]\nsettle = 1\n", 6),
            ("must_contain = [\n  'verify',\n  'settle',\n]\n[verify]\nsettle = 1\n", 7),
            ("must_contain = ['''\nsettle = 1''']\nverify.settle = 1\n", 4),
            ("owner = '''\n[verify]\nsettle = 1'''\n[verify]\nsettle = 1\n", 6),
            ("must_contain = [\n  ['verify'],\n]\nverify.settle = 1\n", 5),
            ("# \u2028 \x85\nverify.settle = 1\n", 3),
            ("keep = 3\r\nverify.settle = 1\r\n", 3),
        ],
    )
    def test_of_a_key(self, text: str, line: int) -> None:
        found = [issue for issue in issues_of(LIVE + text) if issue.key == "verify.settle" or not line]
        assert [issue.line for issue in found] == [line or found[0].line]

    def test_of_a_key_with_a_dot_in_it(self) -> None:
        assert the_issue('"verify.settle" = 1\n').line == 2


class TestFiles:
    """What is read from the disk."""

    @pytest.fixture
    def layout(self, tmp_path: Path) -> Layout:
        layout = Layout(tmp_path)
        layout.sites.mkdir(parents=True)
        return layout

    def test_no_files_are_no_sites(self, tmp_path: Path) -> None:
        assert read_sites(Layout(tmp_path / "missing")) == {}

    def test_every_toml_file_is_a_site_but_hidden_ones(self, layout: Layout) -> None:
        for name in ("shop.toml", "blog.toml", ".shop.toml.swp", ".hidden.toml", "notes.txt", "shop.toml~"):
            layout.sites.joinpath(name).write_text(f'live = "/var/www/{name.split(".")[0]}"')
        assert set(read_sites(layout)) == {"shop", "blog"}

    def test_unreadable_files_are_mistakes_like_all_others(self, layout: Layout) -> None:
        layout.site_file("shop").write_bytes(b'live = "/var/www/shop"\nowner = "\xff"\n')
        layout.site_file("blog").mkdir()
        layout.site_file("wiki").write_text("keep = 1")
        layout.defaults_file.write_text("keep = 0")
        with pytest.raises(ConfigurationError) as caught:
            read_sites(layout)
        found = {(Path(issue.file).name, issue.line, issue.key) for issue in caught.value.issues}
        assert found == {
            ("shop.toml", 2, ""),
            ("blog.toml", 0, ""),
            ("wiki.toml", 0, "live"),
            ("wiki.toml", 1, "keep"),
            ("swapd.toml", 1, "keep"),
        }

    def test_one_site_by_its_name(self, layout: Layout) -> None:
        layout.site_file("shop").write_text('live = "/var/www/shop"')
        assert read_site(layout, "shop").name == "shop"
        for name in ("blog", "../shop", "", "shop\n"):
            with pytest.raises(UsageError) as caught:
                read_site(layout, name)
            assert caught.value.problem == "unknown-site"
            assert caught.value.message.isprintable()
            assert "shop" in caught.value.message

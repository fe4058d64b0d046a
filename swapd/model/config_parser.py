"""What a site's configuration may say, and every mistake in it at once.

Pure: texts in, ``Site`` values or a ``ConfigurationError`` out; ``host/configuration.py`` reads the files.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import tomli_w

from swapd.model import config_values
from swapd.model.config import (
    DROP_GROUP,
    Drift,
    LivePath,
    Mtime,
    Pause,
    PauseMode,
    Queue,
    Require,
    Reuse,
    Site,
    Strategy,
    Verify,
)
from swapd.model.config_values import WrongValue, shown
from swapd.model.errors import ConfigurationError, ConfigurationIssue
from swapd.model.layout import Layout
from swapd.model.release import SITE_NAME, SiteName, printable

T = TypeVar("T")

NOWHERE = Path("/nonexistent/live")  # stands in for a live path that is missing or wrong
OF_HOST = ("metrics",)  # tables that no site can have
PER_SITE = ("live", "incoming", "releases", "path")  # keys that cannot have a default for all sites
LATER_KEYS = {
    *("hooks", "health", "database", "assets", "php", "balancer"),
    "pause.by",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A configuration file's name and text."""

    file: str
    text: str


class Document:
    """One parsed file: its values, and the lines on which they stand."""

    def __init__(self, source: Source, issues: list[ConfigurationIssue]) -> None:
        self.file = source.file
        self.lines = _find_lines(source.text)
        self.values: Mapping[str, Any] = {}
        try:
            self.values = tomllib.loads(source.text)
        except tomllib.TOMLDecodeError as error:
            where = re.search(r"at line (\d+)", str(error))
            line = int(where[1]) if where else source.text.count("\n") + 1
            issues.append(
                ConfigurationIssue(self.file, line, "", f"not TOML: {error}", 'write KEY = VALUE, texts in "quotes"')
            )

    def line(self, *key: str) -> int:
        """The line of a key, or of the nearest table around it; 0 where the file does not have it."""
        while key:
            if key in self.lines:
                return self.lines[key]
            key = key[:-1]
        return 0


_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"


def _find_lines(text: str) -> dict[tuple[str, ...], int]:
    """The line on which each key stands: tomllib keeps no positions."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    depth = 0  # of the brackets of a value that goes on over several lines
    for number, line in enumerate(_LONG_TEXT.sub(_blank, text).split("\n"), 1):
        header = re.match(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]", line)
        assignment = re.match(rf"\s*({_DOTTED})\s*=", line)
        if depth:
            pass
        elif header:
            table = _split_key(header[2])
            lines.setdefault(table, number)
            if header[1] == "[[":  # of several tables of this name, each is told from the others by its number
                count = 1
                while (*table, str(count)) in lines:
                    count += 1
                table = (*table, str(count))
                lines[table] = number
            continue
        elif assignment:
            lines.setdefault((*table, *_split_key(assignment[1])), number)
        bare = _SHORT_TEXT.sub("", line)
        depth += sum(bare.count(bracket) for bracket in "[{") - sum(bare.count(bracket) for bracket in "]}")
    return lines


# Texts in three quotes, and then what may hide a bracket on one line: texts and comments.
_LONG_TEXT = re.compile(r"(\"\"\"|''')(.*?)\1", re.DOTALL)
_SHORT_TEXT = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'[^']*'|#.*")


def _blank(match: re.Match[str]) -> str:
    return '""' + "\n" * match[0].count("\n")


def _split_key(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(_KEY, dotted))


class _Table:
    """Typed access to one table that is spread over a site's file and the defaults behind it."""

    def __init__(
        self, path: tuple[str, ...], layers: list[Document], issues: list[ConfigurationIssue], number: int = 0
    ) -> None:
        """``number``: which of several tables of that path; its values are in ``layers`` only for number 0."""
        self.path = path
        self.place = (*path, str(number)) if number else path
        self.issues = issues
        self.known: set[str] = set()
        self.layers: list[tuple[Document, Mapping[str, Any]]] = []
        for document in layers:
            values: Any = document.values
            for key in path:
                values = values.get(key, {})
            if isinstance(values, dict):
                self.layers.append((document, values))
            else:
                self.report(document, "", f"{shown(values)} is not a table", f"write [{'.'.join(path)}] above its keys")

    def report(self, document: Document, key: str, message: str, right: str) -> None:
        path = (*self.path, key) if key else self.path
        line = document.line(*self.place, key) if key else document.line(*self.place)
        issue = ConfigurationIssue(document.file, line, ".".join(path), message, right)
        if issue not in self.issues:
            self.issues.append(issue)

    def take(self, key: str, parse: Callable[[object], T], default: T) -> T:
        """The key's value from the first layer that has it; a wrong one is reported and ``default`` stands in."""
        self.known.add(key)
        for document, values in self.layers:
            if key in values:
                try:
                    return parse(values[key])
                except WrongValue as wrong:
                    self.report(document, key, wrong.message, wrong.right)
                    return default
        return default

    def finish(self, tables: tuple[str, ...] = ()) -> None:
        """Reports every key that nobody took."""
        for document, values in self.layers:
            for key in values:
                if key in self.known or key in tables:
                    continue
                path = ".".join((*self.path, key))
                if path in LATER_KEYS:
                    self.report(document, key, "this version does not have this key yet", "remove it")
                    continue
                if path in OF_HOST:
                    self.report(document, key, "is of this host, not of a site", "write it into swapd.toml")
                    continue
                near = difflib.get_close_matches(key, [*self.known, *tables], 1)
                right = f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(sorted(self.known))}"
                self.report(document, key, "unknown key", right)


def _parse_paths(top: _Table, issues: list[ConfigurationIssue]) -> tuple[LivePath, ...]:
    """The tables ``[[path]]``, which one file alone has."""
    paths = []
    top.known.add("path")
    for document, values in top.layers:
        tables = values.get("path", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            top.report(document, "path", f"{shown(tables)} is not a list of tables", "write [[path]] above its keys")
            continue
        for number, keys in enumerate(tables, 1):
            table = _Table(("path",), [], issues, number)
            table.layers = [(document, keys)]
            for key in ("live", "part"):
                if key not in keys:
                    right = f'write {key} = "…" below [[path]] number {number}'
                    table.report(document, key, "is missing", right)
            live = table.take("live", config_values.parse_live_path, NOWHERE)
            releases = live.with_name(f"{live.name}.releases")
            paths.append(
                LivePath(
                    live,
                    table.take("part", config_values.parse_part, ""),
                    table.take("releases", config_values.parse_absolute_path, releases),
                )
            )
            table.finish()
    _report_nested_parts(top, paths)
    return tuple(paths)


def _report_nested_parts(top: _Table, paths: Sequence[LivePath]) -> None:
    """No directory of a release goes to two places."""
    for index, path in enumerate(paths):
        for other in paths[:index]:
            if path.part and other.part and is_inside(path.part, other.part):
                message = f'part = "{path.part}" is or holds part = "{other.part}" of another [[path]], or is in it'
                top.report(top.layers[0][0], "path", message, "give each [[path]] a directory of its own")


def _report_shared_parts(top: _Table, site: Site) -> None:
    """What outlives releases is linked into the main part of them."""
    for path in site.paths:
        for shared in site.shared:
            if path.part and is_inside(path.part, shared):
                message = f'"{shared}" is or holds part = "{path.part}" of a [[path]], or is in it'
                top.report(top.layers[0][0], "shared", message, "share paths of the main part only")


def is_inside(one: str, other: str) -> bool:
    """Whether one of two relative paths is the other, or is in it."""
    first, second = PurePosixPath(one), PurePosixPath(other)
    return first == second or first in second.parents or second in first.parents


def _parse_layers(name: SiteName, layers: list[Document], layout: Layout, issues: list[ConfigurationIssue]) -> Site:
    top = _Table((), layers, issues)
    live = top.take("live", config_values.parse_live_path, NOWHERE)
    verify = _Table(("verify",), layers, issues)
    extract = _Table(("extract",), layers, issues)
    pause = _Table(("pause",), layers, issues)
    site = Site(
        name=name,
        live=live,
        strategy=top.take("strategy", config_values.parse_choice(Strategy), Strategy.AUTO),
        incoming=top.take("incoming", config_values.parse_absolute_path, layout.spool / name),
        releases=top.take("releases", config_values.parse_absolute_path, live.with_name(f"{live.name}.releases")),
        keep=top.take(
            "keep", config_values.parse_integer(2, ": the live release and the one before it are always kept"), 5
        ),
        owner=top.take("owner", config_values.parse_owner, ""),
        mtime=top.take("mtime", config_values.parse_choice(Mtime), Mtime.RELEASE),
        strip_components=top.take("strip_components", config_values.parse_strip_components, None),
        must_contain=top.take("must_contain", config_values.parse_inner_paths, ()),
        shared=top.take("shared", config_values.parse_shared, ()),
        verify=Verify(
            require=verify.take("require", config_values.parse_choice(Require), Require.INTEGRITY),
            allowed_signers=verify.take("allowed_signers", config_values.parse_absolute_path, layout.allowed_signers),
            settle=verify.take("settle", config_values.parse_seconds(0.1, 3600), 2.0),
            max_tarball=verify.take("max_tarball", config_values.parse_bytes, 4 * 2**30),
            max_extracted=verify.take("max_extracted", config_values.parse_bytes, 16 * 2**30),
            max_entries=verify.take("max_entries", config_values.parse_integer(1), 1_000_000),
            newer_only=verify.take("newer_only", config_values.parse_boolean, False),
            allow_links_to=verify.take("allow_links_to", config_values.parse_link_targets, ()),
        ),
        queue=top.take("queue", config_values.parse_choice(Queue), Queue.ALL),
        drift=top.take("drift", config_values.parse_choice(Drift), Drift.REFUSE),
        group=top.take("group", config_values.parse_group, DROP_GROUP),
        pause=Pause(
            mode=pause.take("mode", config_values.parse_choice(PauseMode), PauseMode.AUTO),
            processes=pause.take("processes", config_values.parse_processes, ("httpd", "apache2")),
            max=pause.take("max", config_values.parse_seconds(0.01, 10), 1.0),
            user=pause.take("user", config_values.parse_user, ""),
            unit=pause.take("unit", config_values.parse_unit, ""),
            exe=pause.take("exe", config_values.parse_exe, ""),
        ),
        route=layout.route(name),
    )
    site = replace(site, reuse=extract.take("reuse", config_values.parse_choice(Reuse), Reuse.AUTO))
    site = replace(site, paths=_parse_paths(top, issues))
    _report_shared_parts(top, site)
    if site.strategy is Strategy.PINNED and site.paths:
        right = 'take the [[path]] tables out, or write strategy = "exchange"'
        top.report(top.layers[0][0], "strategy", "a route leads to one tree, and this site has several", right)
    top.finish(("verify", "extract", "pause"))
    verify.finish()
    extract.finish()
    pause.finish()
    return site


def parse_metrics_file(defaults: Source, issues: list[ConfigurationIssue]) -> Path | None:
    """The file that ``[metrics]`` asks for in the defaults, if any; what is wrong there is added to ``issues``."""
    return _take_metrics_file(Document(defaults, issues), issues)


def _take_metrics_file(document: Document, issues: list[ConfigurationIssue]) -> Path | None:
    metrics = _Table(("metrics",), [document], issues)
    file = metrics.take("textfile", config_values.parse_metrics_file, None)
    metrics.finish()
    return file


def parse_document(name: str, document: Mapping[str, Any], layout: Layout) -> Site:
    """The site whose ``Site.document`` this is."""
    return parse_site(name, Source("", tomli_w.dumps(document)), None, layout)


def parse_site(name: str, source: Source, defaults: Source | None, layout: Layout) -> Site:
    """One site's configuration; ``ConfigurationError`` with every mistake of its file and of the defaults."""
    return parse_sites({name: source}, defaults, layout)[SiteName(name)]


def parse_sites(sources: Mapping[str, Source], defaults: Source | None, layout: Layout) -> dict[SiteName, Site]:
    """All sites, by name; ``ConfigurationError`` with every mistake of every file when there is any."""
    issues: list[ConfigurationIssue] = []
    behind: list[Document] = []
    if defaults is not None:
        document = Document(defaults, issues)
        for key in PER_SITE:
            if key in document.values:
                issues.append(
                    ConfigurationIssue(
                        document.file, document.line(key), key, "cannot be a default", "say it in each site's own file"
                    )
                )
        _take_metrics_file(document, issues)
        apart = (*PER_SITE, *OF_HOST)
        document.values = {key: value for key, value in document.values.items() if key not in apart}
        behind.append(document)
        _parse_layers(SiteName("default"), behind, layout, issues)
    sites: dict[SiteName, Site] = {}
    for name, source in sorted(sources.items()):
        if not SITE_NAME.fullmatch(name):
            right = "name the file after the site: lower-case letters, digits, - and _, at most 63"
            issues.append(ConfigurationIssue(source.file, 0, "", f"{printable(name)} cannot name a site", right))
        document = Document(source, issues)
        if document.values and "live" not in document.values:
            right = 'write live = "/the/path/that/httpd/serves"'
            issues.append(ConfigurationIssue(source.file, 0, "live", "is missing", right))
        elif not document.values and not any(issue.file == source.file for issue in issues):
            issues.append(ConfigurationIssue(source.file, 0, "live", "is missing", 'write live = "/the/path"'))
        sites[SiteName(name)] = _parse_layers(SiteName(name), [document, *behind], layout, issues)
    _report_overlaps(sites, sources, issues)
    if issues:
        raise ConfigurationError(issues)
    return sites


def _report_overlaps(
    sites: Mapping[SiteName, Site], sources: Mapping[str, Source], issues: list[ConfigurationIssue]
) -> None:
    """Two sites in one place would swap each other's trees away."""
    places = [
        (site.name, key, path)
        for site in sites.values()
        if site.live != NOWHERE
        for key, path in (
            ("live", site.live),
            ("releases", site.releases),
            ("incoming", site.incoming),
            ("shared", site.shared_directory),
            *(("path", place) for path in site.paths if path.live != NOWHERE for place in (path.live, path.releases)),
        )
    ]
    # Which places are at a path, and which are at it or below it: each with each would be a second for a hundred sites.
    at: dict[Path, list[int]] = {}
    within: dict[Path, list[int]] = {}
    for index, (name, key, path) in enumerate(places):
        around = (index for parent in path.parents for index in at.get(parent, ()))
        for other_index in sorted({*around, *within.get(path, ())}):
            other_name, other_key, other = places[other_index]
            message = f"{path} overlaps {other_key} = {other} of site {other_name}"
            line = _find_lines(sources[name].text).get((key,), 0)
            issues.append(
                ConfigurationIssue(sources[name].file, line, key, message, "give each a directory of its own")
            )
        at.setdefault(path, []).append(index)
        for place in (path, *path.parents):
            within.setdefault(place, []).append(index)

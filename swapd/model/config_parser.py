"""What a site's configuration may say, and every mistake in it at once.

Pure: texts in, ``Site`` values or a ``ConfigurationError`` out; ``host/configuration.py`` reads the files.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import tomli_w

from swapd.model.config import Mtime, Pause, PauseMode, Require, Site, Strategy, Verify
from swapd.model.errors import ConfigurationError, ConfigurationIssue
from swapd.model.layout import Layout
from swapd.model.release import SITE_NAME, SiteName, printable
from swapd.model.units import DURATION_UNITS, SIZE_UNITS, exact_duration, parse_duration, parse_size

T = TypeVar("T")

# What the contract names and a later version brings: an error that says so, never silently something weaker.
NOT_YET: dict[Enum, str] = {
    Strategy.PINNED: "this version has auto, exchange, symlink and rename",
    Require.SIGNATURE: "this version has integrity and digest",
}
LATER_KEYS = {
    *("group", "queue", "drift", "path", "hooks", "health", "database", "assets", "php", "balancer", "extract"),
    *("verify.newer_only", "verify.allow_links_to", "allow_links_to"),
    *("pause.unit", "pause.exe", "pause.by"),
}
# Pausing one of these stops the machine, the way into it, or swapd itself.
NEVER_PAUSED = {"systemd", "init", "sshd", "swapd", "dbus-daemon", "systemd-journald", "systemd-logind", "journald"}


class WrongValue(ValueError):
    """A value that a key cannot have: what is wrong, and what would be right."""

    def __init__(self, message: str, right: str) -> None:
        super().__init__(message)
        self.message = message
        self.right = right


def _shown(value: object) -> str:
    return printable(repr(value), 60)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise WrongValue(f"{_shown(value)} is not a text", 'write a text in quotes, such as "…"')
    return value


def _choice(kind: type[Enum]) -> Callable[[object], Any]:
    def parse(value: object) -> Enum:
        for member in kind:
            if member.value == value:
                if member in NOT_YET:
                    raise WrongValue(f'"{value}" is not available yet', NOT_YET[member])
                return member
        right = ", ".join(f'"{member.value}"' for member in kind if member not in NOT_YET)
        raise WrongValue(f"{_shown(value)} is not one of its values", f"write one of {right}")

    return parse


def _integer(least: int, why: str = "") -> Callable[[object], int]:
    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise WrongValue(f"{_shown(value)} will not do", f"write a whole number, {least} or more{why}")
        return value

    return parse


def _strip_components(value: object) -> int | None:
    if value == "auto":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 32:
        return value
    raise WrongValue(f"{_shown(value)} will not do", 'write "auto" or a whole number from 0 to 32')


def _duration(least: float, most: float) -> Callable[[object], float]:
    limits = f"{exact_duration(least)} to {exact_duration(most)}"
    right = f'write a number with its unit ({", ".join(DURATION_UNITS)}), from {limits}, such as "2s"'

    def parse(value: object) -> float:
        try:
            seconds = parse_duration(value if isinstance(value, str) else "")
        except ValueError:
            raise WrongValue(f"{_shown(value)} is not a duration", right) from None
        if not least <= seconds <= most:
            raise WrongValue(f"{_shown(value)} is out of range", right)
        return seconds

    return parse


def _size(value: object) -> int:
    right = f'write a number with its unit ({", ".join(SIZE_UNITS)}), such as "4GiB"'
    try:
        size = parse_size(value if isinstance(value, str) else "")
    except ValueError:
        raise WrongValue(f"{_shown(value)} is not a size", right) from None
    if size < 1:
        raise WrongValue(f"{_shown(value)} leaves no room", right)
    return size


def _absolute_path(value: object) -> Path:
    text = _text(value)
    path = PurePosixPath(text)
    right = 'write a whole path from /, without "." or "..", such as "/var/www/shop"'
    if not path.is_absolute() or ".." in path.parts or text != str(path) or text.startswith("//"):
        raise WrongValue(f"{_shown(value)} is not an absolute path in its normal form", right)
    if text != printable(text, 4096):
        raise WrongValue(f"{_shown(value)} has characters that cannot be printed", right)
    return Path(text)


def _live_path(value: object) -> Path:
    path = _absolute_path(value)
    if path.parent == Path("/") or path == Path("/"):
        # The sandbox opens the live path's parent directory: that must not be the whole machine.
        raise WrongValue(f"{_shown(value)} stands directly below /", "move the site into a directory of its own")
    if len(path.name.encode()) > 200:
        raise WrongValue("its last component is longer than 200 bytes", "choose a shorter one")
    return path


def _inner_paths(value: object) -> tuple[str, ...]:
    right = 'write a list of paths inside a release, such as ["index.php"], without leading / and without ".."'
    if not isinstance(value, list):
        raise WrongValue(f"{_shown(value)} is not a list", right)
    for item in value:
        path = PurePosixPath(item) if isinstance(item, str) else PurePosixPath("/")
        if path.is_absolute() or ".." in path.parts or not path.parts or str(path) != item.rstrip("/"):
            raise WrongValue(f"{_shown(item)} is not a path inside a release", right)
    return tuple(item.rstrip("/") for item in value)


def _processes(value: object) -> tuple[str, ...]:
    right = 'write a list of process names, such as ["httpd", "apache2"]'
    if not isinstance(value, list) or not value:
        raise WrongValue(f"{_shown(value)} is not a list of names", right)
    for item in value:
        if not isinstance(item, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", item):
            raise WrongValue(f"{_shown(item)} is not a process's name", right)
        if item in NEVER_PAUSED:
            raise WrongValue(f"{_shown(item)} must never be stopped", right)
    return tuple(value)


def _owner(value: object) -> str:
    text = _text(value)
    if text and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?:[A-Za-z0-9_][A-Za-z0-9_.-]*\$?", text):
        raise WrongValue(f"{_shown(value)} is not an owner", 'write "USER:GROUP", such as "www-data:www-data"')
    return text


def _user(value: object) -> str:
    text = _text(value)
    if text and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?", text):
        raise WrongValue(f"{_shown(value)} is not a user's name", 'write a name, such as "www-data"')
    return text


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
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(rf"\s*\[\[?\s*({_DOTTED})\s*\]", line)
        if header:
            table = tuple(part.strip().strip("\"'") for part in header[1].split("."))
            lines.setdefault(table, number)
            continue
        assignment = re.match(rf"\s*({_DOTTED})\s*=", line)
        if assignment:
            key = tuple(part.strip().strip("\"'") for part in assignment[1].split("."))
            lines.setdefault((*table, *key), number)
    return lines


class _Table:
    """Typed access to one table that is spread over a site's file and the defaults behind it."""

    def __init__(self, path: tuple[str, ...], layers: list[Document], issues: list[ConfigurationIssue]) -> None:
        self.path = path
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
                self._report(
                    document, "", f"{_shown(values)} is not a table", f"write [{'.'.join(path)}] above its keys"
                )

    def _report(self, document: Document, key: str, message: str, right: str) -> None:
        path = (*self.path, key) if key else self.path
        issue = ConfigurationIssue(document.file, document.line(*path), ".".join(path), message, right)
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
                    self._report(document, key, wrong.message, wrong.right)
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
                    self._report(document, key, "this version does not have this key yet", "remove it")
                    continue
                near = difflib.get_close_matches(key, [*self.known, *tables], 1)
                right = f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(sorted(self.known))}"
                self._report(document, key, "unknown key", right)


def _parse_layers(name: SiteName, layers: list[Document], layout: Layout, issues: list[ConfigurationIssue]) -> Site:
    top = _Table((), layers, issues)
    live = top.take("live", _live_path, Path("/nonexistent/live"))
    verify = _Table(("verify",), layers, issues)
    pause = _Table(("pause",), layers, issues)
    site = Site(
        name=name,
        live=live,
        strategy=top.take("strategy", _choice(Strategy), Strategy.AUTO),
        incoming=top.take("incoming", _absolute_path, layout.spool / name),
        releases=top.take("releases", _absolute_path, live.with_name(f"{live.name}.releases")),
        keep=top.take("keep", _integer(2, ": the live release and the one before it are always kept"), 5),
        owner=top.take("owner", _owner, ""),
        mtime=top.take("mtime", _choice(Mtime), Mtime.RELEASE),
        strip_components=top.take("strip_components", _strip_components, None),
        must_contain=top.take("must_contain", _inner_paths, ()),
        shared=top.take("shared", _inner_paths, ()),
        verify=Verify(
            require=verify.take("require", _choice(Require), Require.INTEGRITY),
            allowed_signers=verify.take("allowed_signers", _absolute_path, layout.allowed_signers),
            settle=verify.take("settle", _duration(0.1, 3600), 2.0),
            max_tarball=verify.take("max_tarball", _size, 4 * 2**30),
            max_extracted=verify.take("max_extracted", _size, 16 * 2**30),
            max_entries=verify.take("max_entries", _integer(1), 1_000_000),
        ),
        pause=Pause(
            mode=pause.take("mode", _choice(PauseMode), PauseMode.AUTO),
            processes=pause.take("processes", _processes, ("httpd", "apache2")),
            max=pause.take("max", _duration(0.01, 10), 1.0),
            user=pause.take("user", _user, ""),
        ),
    )
    top.finish(("verify", "pause"))
    verify.finish()
    pause.finish()
    return site


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
        for key in ("live", "incoming", "releases"):
            if key in document.values:
                issues.append(
                    ConfigurationIssue(
                        document.file, document.line(key), key, "cannot be a default", "say it in each site's own file"
                    )
                )
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
        if site.live != Path("/nonexistent/live")
        for key, path in (("live", site.live), ("releases", site.releases), ("incoming", site.incoming))
    ]
    for index, (name, key, path) in enumerate(places):
        for other_name, other_key, other in places[:index]:
            if path == other or path in other.parents or other in path.parents:
                message = f"{path} overlaps {other_key} = {other} of site {other_name}"
                line = _find_lines(sources[name].text).get((key,), 0)
                issues.append(
                    ConfigurationIssue(sources[name].file, line, key, message, "give each a directory of its own")
                )

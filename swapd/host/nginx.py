"""nginx's configuration as nginx itself prints it (``nginx -T``): who serves which directory, and how.

Facts that this rests on:

- ``-T`` tests the configuration and prints each file of it once, below a line with the file's path. What a file
  includes stands in a section of its own, so that ``include`` has to be followed here; patterns find the files in the
  order of their names.
- What is set in a block holds for the blocks in it, unless one of them sets it itself. Of ``fastcgi_param``, a block
  that has any of its own inherits none.
- It is what the server would read now: one that was not reloaded since a change still runs by the configuration before.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from swapd.host.asking import ask, find_program

_FILE = re.compile(r"^# configuration file (.+):\n", re.MULTILINE)
_TOKEN = re.compile(
    r"""(?P<blank>\s+|\#[^\n]*)
      | "(?P<double>(?:[^"\\]|\\.)*)"
      | '(?P<single>(?:[^'\\]|\\.)*)'
      | (?P<mark>[;{}])
      | (?P<word>(?:\\.|\$\{[^}]*\}|[^\s;{}"'\\]|(?<=[^\s;{}])["'])+)""",
    re.VERBOSE | re.DOTALL,
)
# OpenResty's: what is in their braces is a program, in which braces are balanced but for strings and comments.
_LUA = "_by_lua_block"
_OF_LUA = re.compile(r"""[{}]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|--[^\n]*""", re.DOTALL)
_TIME = re.compile(r"(\d+)(ms|[smhdwMy]?)")
_SECONDS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 2592000, "y": 31536000}
DEEPEST = 20  # files that include each other are nginx's to complain of


@dataclass(frozen=True, slots=True)
class Directive:
    """A directive, and what is in its braces, includes followed; ``block`` is None where it has none."""

    name: str
    arguments: tuple[str, ...]
    file: str
    line: int
    block: tuple[Directive, ...] | None = None

    def find(self, name: str) -> list[Directive]:
        """Those of that name that stand right in its braces."""
        return [item for item in self.block or () if item.name == name]


@dataclass(frozen=True, slots=True)
class Place:
    """A ``server`` or a ``location`` of one, with what holds there, inherited or its own."""

    server: Directive
    location: str  # as it is written, such as ``~ \\.php$``; empty for the server itself
    settings: Mapping[str, Directive]  # the last of each name
    parameters: Mapping[str, Directive]  # its fastcgi_param directives, by the parameter's name

    @property
    def names(self) -> tuple[str, ...]:
        """What visitors may call the server."""
        return tuple(name for item in self.server.find("server_name") for name in item.arguments if name)

    @property
    def listens(self) -> tuple[str, ...]:
        """The addresses as they are written; nginx's own default where there is none."""
        return tuple(item.arguments[0] for item in self.server.find("listen") if item.arguments) or ("80",)

    def value(self, name: str) -> str:
        """The first argument of the setting; empty where it is not set."""
        item = self.settings.get(name)
        return item.arguments[0] if item is not None and item.arguments else ""

    @property
    def directory(self) -> str:
        """Where its files are, as its ``alias`` or ``root`` says; empty where neither does."""
        return self.value("alias") or self.value("root")


def read_nginx() -> list[Directive] | None:
    """The configuration of this machine's nginx; None where there is none, or it finds fault with it.

    As root: nginx opens its logs and its keys for the test.
    """
    program = find_program(["nginx"])
    if program is None:
        return None
    answer = ask(program, "-T", "-q")
    return parse_dump(answer.output) if answer.status == 0 and _FILE.search(answer.output) else None


def find_fault() -> str:
    """What nginx says is wrong with its configuration, on one line; empty where nothing is."""
    program = find_program(["nginx"])
    answer = ask(program, "-t", "-q") if program is not None else None
    return answer.words if answer is not None and answer.status != 0 else ""


def parse_dump(text: str) -> list[Directive]:
    """What ``nginx -T`` printed, as one configuration; ``ValueError`` where it is none."""
    parts = _FILE.split(text)
    files = dict(zip(parts[1::2], parts[2::2], strict=True))
    if not files:
        raise ValueError("no configuration file in it")
    return list(_Reader(files).read(next(iter(files))))


class _Reader:
    """Reads the files of a dump; what they include is read where it is included."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files
        self._base = posixpath.dirname(next(iter(files)))
        self._depth = 0

    def read(self, file: str) -> Iterator[Directive]:
        self._depth += 1
        tokens = _Tokens(self._files[file])
        while tokens.is_open():
            yield from self._block(tokens, file)
        self._depth -= 1

    def _block(self, tokens: _Tokens, file: str) -> Iterator[Directive]:
        """To the end of the block that is open, or of the file."""
        words: list[str] = []
        line = 0
        while (token := tokens.take()) is not None:
            word, is_mark, number = token
            if not is_mark:
                line = line if words else number
                words.append(word)
                continue
            if word == "}":
                return
            if not words:
                continue
            name, arguments = words[0], tuple(words[1:])
            words = []
            if word == ";":
                yield from self._simple(Directive(name, arguments, file, line))
            elif name.endswith(_LUA):
                tokens.skip_program()
            else:
                yield Directive(name, arguments, file, line, tuple(self._block(tokens, file)))

    def _simple(self, directive: Directive) -> Iterator[Directive]:
        if directive.name != "include" or len(directive.arguments) != 1:
            yield directive
            return
        pattern = posixpath.join(self._base, directive.arguments[0])
        # glob(7): what a star stands for has no slash in it.
        found = [
            name for name in self._files if fnmatchcase(name, pattern) and name.count("/") == pattern.count("/")
        ] or [name for name in self._files if name == pattern]
        for name in sorted(found):
            if self._depth < DEEPEST:
                yield from self.read(name)


class _Tokens:
    """Words and marks of a file, one after the other."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line, self._counted = 1, 0

    def is_open(self) -> bool:
        """Whether there is more of the file."""
        return self._at < len(self._text)

    def take(self) -> tuple[str, bool, int] | None:
        """The next word or mark, whether it is a mark, and its line; None at the end."""
        while (match := _TOKEN.match(self._text, self._at)) is not None:
            start, self._at = match.span()
            if match["blank"] is None:
                self._line += self._text.count("\n", self._counted, start)
                self._counted = start
                if (mark := match["mark"]) is not None:
                    return mark, True, self._line
                quoted = match["double"] if match["double"] is not None else match["single"]
                return (match["word"] if quoted is None else quoted.replace('\\"', '"')), False, self._line
        self._at = len(self._text)
        return None

    def skip_program(self) -> None:
        depth = 1
        while depth and (found := _OF_LUA.search(self._text, self._at)) is not None:
            depth += {"{": 1, "}": -1}.get(found[0], 0)
            self._at = found.end()


def find_places(configuration: Sequence[Directive]) -> Iterator[Place]:
    """Every server for HTTP, and then each of its locations, however deep."""
    for http in (item for item in configuration if item.name == "http"):
        outer = _inherit({}, {}, http)
        for server in http.find("server"):
            yield from _descend(server, server, "", *_inherit(*outer, server))


def _inherit(
    settings: Mapping[str, Directive], parameters: Mapping[str, Directive], block: Directive
) -> tuple[dict[str, Directive], dict[str, Directive]]:
    own = {item.name: item for item in block.block or () if item.block is None and item.name != "fastcgi_param"}
    given = {item.arguments[0]: item for item in block.find("fastcgi_param") if item.arguments}
    inherited = dict(settings)
    # A root of its own takes the place of the alias around it, and the other way round.
    if own.keys() & {"root", "alias"}:
        inherited.pop("root", None)
        inherited.pop("alias", None)
    return {**inherited, **own}, given or dict(parameters)


def _descend(
    server: Directive,
    block: Directive,
    location: str,
    settings: Mapping[str, Directive],
    parameters: Mapping[str, Directive],
) -> Iterator[Place]:
    yield Place(server, location, settings, parameters)
    for inner in (item for item in block.block or () if item.name in ("location", "if") and item.block is not None):
        name = " ".join(inner.arguments) if inner.name == "location" else location
        yield from _descend(server, inner, name, *_inherit(settings, parameters, inner))


def find_upstreams(configuration: Sequence[Directive]) -> dict[str, tuple[str, ...]]:
    """The servers of each ``upstream``, by its name."""
    return {
        item.arguments[0]: tuple(server.arguments[0] for server in item.find("server") if server.arguments)
        for http in configuration
        if http.name == "http"
        for item in http.find("upstream")
        if item.arguments
    }


def parse_time(text: str) -> float | None:
    """Seconds of a time as nginx has it, such as ``1m 30s`` or ``75``; None where it is none."""
    parts = [_TIME.fullmatch(part) for part in re.findall(r"\d+[A-Za-z]*|\S", text)]
    if not parts or None in parts:
        return None
    return sum(int(part[1]) * _SECONDS[part[2]] for part in parts if part)

"""httpd's configuration as its files have it: enough of it to see which virtual host takes a file in, and what else.

Read as text, because a deployment runs in a sandbox that httpd's own program, with whatever modules it loads, was not
made for. So conditions (``<IfModule>``, ``<IfDefine>``) are taken to hold; the running server has the last word.
"""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

# The main file, as Debian and as everybody else has it, and what it takes relative paths to be relative to.
MAIN_FILES = (("etc/apache2/apache2.conf", "etc/apache2"), ("etc/httpd/conf/httpd.conf", "etc/httpd"))
# A configuration that includes itself is httpd's to complain of, which goes as deep (AP_MAX_INCLUDE_DEPTH).
MOST_FILES, DEEPEST = 1000, 20
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'|(\S+)')
_EVERYWHERE = ("", "*", "_default_", "0.0.0.0")  # noqa: S104 - nothing is bound here
_DEFINED = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Section:
    """An open ``<NAME ARGUMENTS>``, told from others of the same text by where it stands."""

    name: str  # in lower case
    arguments: tuple[str, ...]
    file: Path
    line: int

    def read_lines(self) -> list[str]:
        """What is written in it, up to its end, other sections included."""
        try:
            lines = self.file.read_text("utf-8", "replace").splitlines()[self.line :]
        except OSError:
            return []
        end = f"</{self.name}>"
        inside = itertools.takewhile(lambda line: not line.strip().lower().startswith(end), lines)
        return [line.strip() for line in inside if line.strip() and not line.strip().startswith("#")]


@dataclass(frozen=True, slots=True)
class Directive:
    """One line of the configuration, and the sections that it is in, outermost first."""

    name: str  # in lower case
    arguments: tuple[str, ...]
    sections: tuple[Section, ...]
    text: str  # as it is written
    file: Path = Path()
    line: int = 0

    def section(self, name: str) -> Section | None:
        """The innermost section of this name that it is in."""
        return next((section for section in reversed(self.sections) if section.name == name), None)


def read_directives(root: Path) -> list[Directive] | None:
    """All directives of httpd's configuration below ``root``, in their order; None where there is no httpd."""
    for main, server_root in MAIN_FILES:
        if (root / main).is_file():
            reader = _Reader(root, root / server_root)
            return list(reader.read(root / main, ()))
    return None


def read_file(file: Path, server_root: Path) -> list[Directive]:
    """All directives of one file, and of those that it includes."""
    return list(_Reader(Path("/"), server_root).read(file, ()))


class _Reader:
    """Reads files, and those that they include, once each time that they are included."""

    def __init__(self, root: Path, server_root: Path) -> None:
        self._root = root
        self._server_root = server_root
        self._defined: dict[str, str] = {}
        self._left = MOST_FILES
        self._depth = 0

    def read(self, file: Path, outer: tuple[Section, ...]) -> Iterator[Directive]:
        self._left -= 1
        try:
            text = file.read_text("utf-8", "replace")
        except OSError:
            return
        open_sections = list(outer)
        for number, line in _logical_lines(text):
            bare = line.rstrip(">") if line.startswith("<") else line
            words = [self._expand("".join(match)) for match in _WORD.findall(bare)]
            if line.startswith("</"):
                if len(open_sections) > len(outer):
                    open_sections.pop()
            elif line.startswith("<"):
                open_sections.append(Section(words[0][1:].lower(), tuple(words[1:]), file, number))
            else:
                yield Directive(words[0].lower(), tuple(words[1:]), tuple(open_sections), line, file, number)
                yield from self._follow(words, tuple(open_sections))

    def _follow(self, words: list[str], sections: tuple[Section, ...]) -> Iterator[Directive]:
        match [words[0].lower(), *words[1:]]:
            case ["include" | "includeoptional", pattern]:
                for path in self._find(pattern):
                    if self._left > 0 and self._depth < DEEPEST:
                        self._depth += 1
                        yield from self.read(path, sections)
                        self._depth -= 1
            case ["serverroot", directory]:
                self._server_root = self._place(directory)
            case ["define", name, value]:
                self._defined[name] = value

    def _expand(self, word: str) -> str:
        return _DEFINED.sub(lambda match: self._defined.get(match[1], match[0]), word)

    def _place(self, path: str) -> Path:
        """Where a path of the configuration is, below the root."""
        given = Path(path)
        if not given.is_absolute():
            return self._server_root / path
        return given if given.is_relative_to(self._root) else self._root / path.lstrip("/")

    def _find(self, pattern: str) -> Iterator[Path]:
        for name in sorted(glob.glob(str(self._place(pattern)))):
            path = Path(name)
            if path.is_dir():
                yield from sorted(item for item in path.rglob("*") if item.is_file())
            else:
                yield path


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that say something, with those that a backslash continues put together; numbered by their first one."""
    begun, number = "", 0
    for count, line in enumerate(text.splitlines(), 1):
        number = number or count
        if line.endswith("\\"):
            begun += line[:-1]
            continue
        whole, first = (begun + line).strip(), number
        begun, number = "", 0
        if whole and not whole.startswith("#"):
            yield first, whole


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """A virtual host as one can visit it."""

    name: str  # what goes into the Host header; empty: its server has no name
    address: str
    port: int
    is_encrypted: bool

    @property
    def url(self) -> str:
        """For people."""
        return f"{'https' if self.is_encrypted else 'http'}://{self.name or self.address}:{self.port}"


def find_including(directives: list[Directive], file: Path) -> list[VirtualHost]:
    """The virtual hosts that include the file; one that has no name stands for the server outside of any."""
    sections = find_including_sections(directives, file)
    return list(dict.fromkeys(host for section in sections for host in _describe_host(directives, section)))


def find_including_sections(directives: Sequence[Directive], file: Path) -> list[Section | None]:
    """The ``<VirtualHost>`` sections that include the file; None for the server outside of any."""
    return [
        directive.section("virtualhost")
        for directive in directives
        if directive.name in ("include", "includeoptional")
        and any(fnmatch(str(file), argument) or Path(argument) == file.parent for argument in directive.arguments)
    ]


def _describe_host(directives: list[Directive], host: Section | None) -> list[VirtualHost]:
    own = [directive for directive in directives if directive.section("virtualhost") == host]
    values = {directive.name: directive.arguments for directive in reversed(own) if directive.arguments}
    name = values.get("servername", ("",))[0].rpartition("://")[2].partition(":")[0]
    is_encrypted = values.get("sslengine", ("off",))[0].lower() == "on"
    addresses = list(host.arguments) if host else []
    if not addresses:
        addresses = [directive.arguments[0] for directive in directives if directive.name == "listen"]
    return [VirtualHost(name, *_split_address(address), is_encrypted) for address in addresses]


def _split_address(text: str) -> tuple[str, int]:
    """An address to connect to, and a port: who serves every address is asked over the loopback device."""
    address, _, port = text.rpartition(":") if re.search(r":\d+$|:\*$", text) else ("", "", text)
    if not address and not port.isdigit():
        address, port = port, "80"
    address = address.strip("[]")
    here = "::1" if address == "::" else "127.0.0.1" if address in _EVERYWHERE else address
    return here, int(port) if port.isdigit() else 80

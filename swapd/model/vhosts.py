"""What Apache says of its virtual hosts and of how it runs, as values (``-t -D DUMP_VHOSTS -D DUMP_RUN_CFG``).

The text comes from the server's own program, which says which sections are in force, whatever conditions and macros
they stand in; what is in them, such as a DocumentRoot, it does not say. Lines that mean nothing here are passed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

_NAMED = re.compile(r"(?P<name>\S+) \((?P<file>.+):(?P<line>\d+)\)\Z")
_QUOTED = re.compile(r'(?P<key>ServerRoot|Main DocumentRoot): "(?P<value>.*)"\Z')
_ID = re.compile(r'(?P<key>User|Group): name="(?P<value>[^"]*)"')
_MODULE = re.compile(r"(\w+_module) \((?:static|shared)\)\Z")
_VERSION = re.compile(r"Apache/(\d+)\.(\d+)\.(\d+)")
_MACRO = re.compile(r'used on line (\d+) of "([^"]+)"')


@dataclass(frozen=True, slots=True)
class VirtualHostLine:
    """A virtual host that is in force: ``file`` and ``line`` say where its ``<VirtualHost>`` stands."""

    name: str
    address: str  # as it is bound: *:80, [::1]:443
    file: str
    line: int
    aliases: tuple[str, ...] = ()
    is_default: bool = False  # who asks this address for any other name gets it


@dataclass(frozen=True, slots=True)
class ServerDump:
    """What the server said; ``user`` and ``group`` are those of the processes that answer visitors."""

    hosts: tuple[VirtualHostLine, ...] = ()
    server_root: str = ""
    document_root: str = ""  # outside of any virtual host
    user: str = ""
    group: str = ""
    modules: frozenset[str] = frozenset()


def parse_dump(text: str) -> ServerDump:
    """The dump as a value; a text that is none of Apache's gives one without anything in it."""
    hosts: list[VirtualHostLine] = []
    values: dict[str, str] = {}
    modules = set()
    address = ""  # of the addresses that have several hosts: the one whose hosts follow
    for line in (raw.strip() for raw in text.splitlines()):
        match line.split():
            case [bound, "is", "a", "NameVirtualHost"]:
                address = bound
            case ["default", "server", *_]:
                _add(hosts, address, line.removeprefix("default server "), is_default=True)
            case ["port", _, "namevhost", *_]:
                _add(hosts, address, line.partition(" namevhost ")[2])
            case ["alias", alias] | ["wild", "alias", alias] if hosts:
                hosts[-1] = replace(hosts[-1], aliases=(*hosts[-1].aliases, alias))
            case [bound, _, *_] if re.search(r":(\d+|\*)\Z", bound) and _NAMED.search(line):
                _add(hosts, bound, line.partition(" ")[2].strip(), is_default=True)
            case _:
                if found := _QUOTED.match(line) or _ID.match(line):
                    values.setdefault(found["key"], found["value"])
                elif module := _MODULE.match(line):
                    modules.add(module[1])
    return ServerDump(
        tuple(hosts),
        values.get("ServerRoot", ""),
        values.get("Main DocumentRoot", ""),
        values.get("User", ""),
        values.get("Group", ""),
        frozenset(modules),
    )


def _add(hosts: list[VirtualHostLine], address: str, text: str, *, is_default: bool = False) -> None:
    found = _NAMED.match(text)
    if found is None:
        return
    file, line = found["file"], int(found["line"])
    if macro := _MACRO.search(file):  # mod_macro's: where it is used says more than the line in it
        file, line = macro[2], int(macro[1])
    host = VirtualHostLine(found["name"], address, file, line, (), is_default)
    # The default server is named once more among its address's hosts, with its aliases.
    before = next((known for known in hosts if (known.address, known.file, known.line) == (address, file, line)), None)
    if before is not None:
        hosts.remove(before)
        host = replace(host, is_default=host.is_default or before.is_default)
    hosts.append(host)


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The version in what ``-v`` prints; None where it has none."""
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


@dataclass(frozen=True, slots=True)
class ServedDirectory:
    """A directory that visitors get from a virtual host of a web server."""

    names: tuple[str, ...]  # what visitors ask for, the main name first; none: whoever asks for anything else
    root: Path  # the DocumentRoot
    server: str  # Apache or nginx
    addresses: tuple[str, ...] = ()
    file: str = ""
    line: int = 0
    is_default: bool = False

    @property
    def place(self) -> str:
        """Where it is configured, for people."""
        return f"{self.file}:{self.line}" if self.line else self.file

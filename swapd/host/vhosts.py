"""The directories that Apache serves on this host: its own word on the virtual hosts that are in force, and its files'.

Its program says which sections are in force and where they stand; what stands in them is read there. Below a scratch
root, where no server runs, the files have the only word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swapd.host.httpd_configuration import Directive, Section, read_directives, read_file
from swapd.host.httpd_program import find_apache
from swapd.model.errors import Issue
from swapd.model.release import printable
from swapd.model.vhosts import ServedDirectory, ServerDump, VirtualHostLine, parse_dump, parse_version

APACHE = "Apache"
_REMARK = re.compile(r"AH\d+: (Warning|\w+: )|Action '.*' failed|The Apache error log may")
_EVERYTHING = ("/", "^/", "^", "^/(.*)$", "^(.*)$", "^")


@dataclass(frozen=True, slots=True)
class WebServer:
    """A web server of this host as its configuration has it; ``issue`` says why nothing is known of it."""

    name: str
    served: tuple[ServedDirectory, ...] = ()
    left_out: tuple[str, ...] = ()  # virtual hosts that may well serve files, from a place that is not to be told
    is_running: bool = False
    version: tuple[int, int, int] | None = None
    user: str = ""
    modules: frozenset[str] = frozenset()
    issue: Issue | None = None


def read_apache(root: Path = Path("/")) -> WebServer | None:
    """The Apache that runs, else as it is installed; None where there is none. Takes a tenth of a second."""
    if root != Path("/"):
        return _read_text(root)
    program = find_apache()
    if program is None:
        return None
    is_running = program.pid != 0
    # One question: each reads the whole configuration.
    answer = program.ask("-t", "-D", "DUMP_VHOSTS", "-D", "DUMP_RUN_CFG", "-D", "DUMP_MODULES")
    version = parse_version(program.ask("-v").output)
    if answer.status != 0:
        issue = _broken(answer.complaint or answer.output)
        return WebServer(APACHE, is_running=is_running, version=version, issue=issue)
    dump = parse_dump(answer.output)
    served, left_out = find_served(dump, read_directives(root) or [])
    return WebServer(APACHE, served, left_out, is_running, version, dump.user, dump.modules)


def _broken(said: str) -> Issue:
    # What it only warns of comes first.
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip() and not _REMARK.match(line)]
    why = printable(" ".join(lines), 400) or "it does not say which"
    hint = "Correct that until apachectl configtest finds nothing wrong, and run this again."
    return Issue("server-configuration-broken", f"the web server's own configuration has a mistake: {why}", hint)


def _read_text(root: Path) -> WebServer | None:
    directives = read_directives(root)
    if directives is None:
        return None
    sections = dict.fromkeys(section for item in directives if (section := item.section("virtualhost")) is not None)
    hosts = tuple(
        VirtualHostLine("", address, str(section.file), section.line)
        for section in sections
        for address in section.arguments or ("",)
    )
    mains = [item for item in directives if item.section("virtualhost") is None and item.arguments]
    values = {item.name: item.arguments[0] for item in mains}
    dump = ServerDump(
        hosts,
        values.get("serverroot", ""),
        values.get("documentroot", ""),
        values.get("user", ""),
        modules=frozenset(item.arguments[0] for item in mains if item.name == "loadmodule"),
    )
    served, left_out = find_served(dump, directives)
    return WebServer(APACHE, served, left_out, user=dump.user, modules=dump.modules)


def find_served(
    dump: ServerDump, directives: Sequence[Directive]
) -> tuple[tuple[ServedDirectory, ...], tuple[str, ...]]:
    """The directories that the virtual hosts serve, and, in words, those hosts of which it cannot be said."""
    if not dump.hosts:
        return _find_main(dump, directives), ()
    own: dict[tuple[str, int], list[Directive]] = {}
    for item in directives:
        if (section := item.section("virtualhost")) is not None:
            own.setdefault(_place(section), []).append(item)
    found: dict[tuple[str, int], ServedDirectory] = {}
    left_out: dict[str, None] = {}
    for host in dump.hosts:
        place = (host.file, host.line)
        content = own.get(place)
        if content is None:  # not below the file that this distribution has as its main one
            content = [
                item
                for item in read_file(Path(host.file), Path(dump.server_root))
                if (section := item.section("virtualhost")) is not None and _place(section) == place
            ]
        root = _find_root(content, dump)
        if root == "":
            continue
        if isinstance(root, str):
            left_out[f"{printable(host.name)} ({printable(host.file)}:{host.line}) {root}"] = None
        elif place in found:
            known = found[place]
            addresses = (*known.addresses, host.address)
            found[place] = _described(host, content, root, addresses, is_default=known.is_default or host.is_default)
        else:
            found[place] = _described(host, content, root, (host.address,), is_default=host.is_default)
    return tuple(found.values()), tuple(left_out)


def _place(section: Section) -> tuple[str, int]:
    return str(section.file), section.line


def _find_main(dump: ServerDump, directives: Sequence[Directive]) -> tuple[ServedDirectory, ...]:
    """What the server serves that has no virtual host."""
    if not dump.document_root:
        return ()
    outside = [item for item in directives if item.section("virtualhost") is None and item.arguments]
    places = [item for item in outside if item.name == "documentroot"]
    file, line = (str(places[-1].file), places[-1].line) if places else ("", 0)
    addresses = tuple(item.arguments[0] for item in outside if item.name == "listen")
    return (ServedDirectory(_names(outside, ()), Path(dump.document_root), APACHE, addresses, file, line, True),)


def _described(
    host: VirtualHostLine, content: Sequence[Directive], root: Path, addresses: tuple[str, ...], *, is_default: bool
) -> ServedDirectory:
    names = _names(content, host.aliases)
    return ServedDirectory(names, root, APACHE, addresses, host.file, host.line, is_default)


def _names(content: Sequence[Directive], aliases: Sequence[str]) -> tuple[str, ...]:
    """What visitors ask for. A host that has no name of its own is said to have the machine's, which tells nothing."""
    named = [item.arguments[0] for item in content if item.name == "servername" and item.arguments]
    names = [name.rpartition("://")[2].partition(":")[0] for name in named[-1:]]
    others = [name for item in content if item.name == "serveralias" for name in item.arguments]
    return tuple(dict.fromkeys(printable(name).lower() for name in (*names, *others, *aliases)))


def _find_root(content: Sequence[Directive], dump: ServerDump) -> Path | str:
    """The directory that a virtual host serves; else why that is none, empty where it obviously serves no files."""
    roots = [item.arguments[0] for item in content if item.name == "documentroot" and item.arguments]
    if not content:
        return "stands where no section can be read, as those of macros do"
    if any(item.name.startswith("virtualdocumentroot") for item in content):
        return "has a directory for each name (VirtualDocumentRoot)"
    if any(map(_takes_everything, content)):
        return ""
    root = roots[-1] if roots else dump.document_root
    if not root:
        return "has no DocumentRoot that can be read in its files"
    if "${" in root or "$" in root.partition("/")[0]:
        return f"has a variable in its DocumentRoot ({printable(root)})"
    return Path(dump.server_root or "/") / root


def _takes_everything(item: Directive) -> bool:
    """Whether what the host has as files is never asked for: all goes to another server, or to another address."""
    location = item.section("location")
    if location is not None and location.arguments != ("/",):
        return False
    match item.name, item.arguments:
        case (("proxypass" | "proxypassmatch"), [target]):
            return location is not None and target != "!"
        case (("proxypass" | "proxypassmatch"), [path, target, *_]):
            return path in _EVERYTHING and target != "!"
        case (("redirect" | "redirectmatch" | "redirectpermanent" | "redirecttemp"), arguments):
            return any(argument in _EVERYTHING for argument in arguments[:2])
    return False

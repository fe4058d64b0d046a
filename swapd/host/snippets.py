"""Writes what web servers include for a pinned site, after their own programs have found nothing wrong with it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from swapd.host.asking import ask, find_program
from swapd.host.files import write_durably
from swapd.host.httpd_configuration import Directive, Section, find_including_sections, read_directives
from swapd.host.httpd_program import APACHE_PROGRAMS
from swapd.host.routes import find_kept_tree, lead
from swapd.model.config import Site
from swapd.model.errors import Failed
from swapd.model.snippets import (
    Alias,
    DirectoryBlock,
    Surroundings,
    find_document_root,
    find_token,
    format_apache,
    format_nginx,
    is_unchanged,
)

_IN_A_HOST = '<VirtualHost 127.0.0.1:9>\n    ServerName swapd.invalid\n    Include "{file}"\n</VirtualHost>\n'
_IN_A_SERVER = """\
pid {file}.pid;
error_log stderr;
events {{ }}
http {{ access_log off; server {{ listen 127.0.0.1:9; include {file}; }} }}
"""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one file, as a line for people."""

    path: Path
    words: str


def gather_surroundings(site: Site, document_root: str | None = None) -> Surroundings:
    """What httpd's configuration has that the route must take over; ``document_root`` instead of the one there."""
    directives = read_directives(site.route.root) or []
    roots = [inner for item in directives if item.name == "documentroot" and (inner := _inner(site, item)) is not None]
    found = roots[0] if roots else ""
    return Surroundings(
        found if document_root is None else document_root,
        tuple(_find_aliases(site, directives)),
        tuple(_find_blocks(site, directives)),
    )


def _inner(site: Site, directive: Directive) -> str | None:
    """The directive's path relative to the live path; None where it is not in it."""
    if not directive.arguments:
        return None
    return _relative(site, directive.arguments[0])


def _relative(site: Site, path: str) -> str | None:
    given = PurePosixPath(path)
    if not given.is_relative_to(site.live):
        return None
    inner = str(given.relative_to(site.live))
    return "" if inner == "." else inner


def _find_hosts(site: Site, directives: Sequence[Directive]) -> set[Section | None]:
    """The virtual hosts that are the site's, or will be; None for the server outside of any, which they inherit."""
    hosts: set[Section | None] = {None, *find_including_sections(directives, site.route.apache)}
    return hosts | {
        item.section("virtualhost")
        for item in directives
        if item.name == "documentroot" and _inner(site, item) is not None
    }


def _find_aliases(site: Site, directives: Sequence[Directive]) -> list[Alias]:
    """Those of the whole server and of the site's virtual hosts; of two for one URL the first, as httpd does."""
    hosts = _find_hosts(site, directives)
    found: dict[str, Alias] = {}
    for own in (True, False):  # a virtual host's come before the server's
        for item in directives:
            host = item.section("virtualhost")
            is_alias = item.name in ("alias", "scriptalias") and len(item.arguments) == 2
            if is_alias and host in hosts and (host is not None) == own and not item.section("location"):
                kind = {"alias": "Alias", "scriptalias": "ScriptAlias"}[item.name]
                found.setdefault(item.arguments[0], Alias(kind, item.arguments[0], item.arguments[1]))
    # Of several <Location> sections that match, the last one counts; of several Aliases, the first.
    return list(reversed(found.values()))


def find_left_out(site: Site) -> list[str]:
    """What of httpd's configuration cannot be taken over for the releases, as it is written there."""
    directives = read_directives(site.route.root) or []
    hosts = _find_hosts(site, directives)
    found = []
    for item in directives:
        if item.section("virtualhost") not in hosts:
            continue
        is_fcgi = item.name == "proxypassmatch" and any("fcgi://" in argument for argument in item.arguments)
        if item.name in ("aliasmatch", "scriptaliasmatch") or is_fcgi:
            found.append(item.text)
        section = item.section("directorymatch") or item.section("directory")
        if section is not None and (section.name == "directorymatch" or section.arguments[0] == "~"):
            pattern = section.arguments[-1]
            if str(site.live) in pattern.replace("\\", ""):
                found.append(f"<DirectoryMatch {pattern}>")
    return list(dict.fromkeys(found))


def _find_blocks(site: Site, directives: Sequence[Directive]) -> list[DirectoryBlock]:
    blocks: dict[DirectoryBlock, None] = {}
    for section in dict.fromkeys(item.section("directory") for item in directives):
        if section is None or len(section.arguments) != 1:
            continue
        inner = _relative(site, section.arguments[0])
        if inner is not None:
            blocks[DirectoryBlock(inner, tuple(section.read_lines()))] = None
    return list(blocks)


def write_snippets(site: Site, document_root: str | None, *, is_tested: bool) -> list[Written]:
    """Writes what Apache and nginx include, and the map; what somebody has changed stays as it is.

    ``Failed`` (``server-refuses``) when a server's configuration test finds fault with it; what was there before is
    then there again, and nothing new is included anywhere.
    """
    before = site.route.apache.read_text("utf-8", "replace") if site.route.apache.exists() else ""
    # What was asked for once is not forgotten when the same command is given without it.
    around = gather_surroundings(site, find_document_root(before) if document_root is None else document_root)
    if not site.route.map.exists():
        lead(site, find_kept_tree(site))
    token = find_token(before) or secrets.token_hex(16)
    apache = _Program.find(APACHE_PROGRAMS, _IN_A_HOST, ("-c", 'Include "{file}"')) if is_tested else None
    nginx = _Program.find(["nginx"], _IN_A_SERVER, ("-q", "-c", "{file}")) if is_tested else None
    left_out = [
        Written(site.route.apache, f"does not hold for releases, write it for them, too: {text}")
        for text in find_left_out(site)
    ]
    return [
        *left_out,
        _write(site.route.apache, format_apache(site, around, token), apache),
        _write(site.route.nginx, format_nginx(site, around), nginx),
    ]


def _write(path: Path, text: str, program: _Program | None) -> Written:
    before = path.read_text("utf-8", "replace") if path.exists() else None
    if before == text:
        return Written(path, f"kept {path}")
    if before is not None and not is_unchanged(before):
        return Written(path, f"kept {path}, which somebody has changed; move it away to have it written anew")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if program is None:
        write_durably(path, text.encode())
        return Written(path, f"wrote {path}; no program is here to test it")
    candidate = path.with_name(f".{path.name}.new")
    try:
        write_durably(candidate, text.encode())
        program.test_apart(candidate, path)
        candidate.rename(path)
    finally:
        candidate.unlink(missing_ok=True)
    if (said := program.find_fault()) is not None:
        # It is included, and does not go with the rest.
        if before is None:
            path.unlink()
        else:
            write_durably(path, before.encode())
        raise _refusal(program.name, said)
    return Written(path, f"wrote {path}; {program.name} -t finds nothing wrong with it")


@dataclass(frozen=True, slots=True)
class _Program:
    """A web server's own program, which tests configurations."""

    path: str
    wrapping: str  # a configuration around a file that is included
    options: tuple[str, ...]  # by which it reads that one, too

    @classmethod
    def find(cls, names: Sequence[str], wrapping: str, options: tuple[str, ...]) -> _Program | None:
        path = find_program(names)
        return cls(path, wrapping, options) if path else None

    @property
    def name(self) -> str:
        return Path(self.path).name

    def find_fault(self) -> str | None:
        """What it says of the configuration that it has, on one line; None when it finds nothing wrong."""
        return _run(self.path, "-t")

    def test_apart(self, candidate: Path, final: Path) -> None:
        """Tests a file that nobody includes, in a place that is there for this test only; ``Failed`` where it fails.

        A server that cannot start because the file is not there yet is tested once it is.
        """
        wrapped = candidate.with_suffix(".test")
        wrapped.write_text(self.wrapping.format(file=candidate))
        try:
            said = _run(self.path, "-t", *(option.format(file=wrapped) for option in self.options))
        finally:
            wrapped.unlink()
            Path(f"{candidate}.pid").unlink(missing_ok=True)
        if said is None:
            return
        without = self.find_fault()
        if without is None:
            raise _refusal(self.name, said)
        if str(final) not in without:
            raise Failed(
                "server-configuration-broken",
                f"the web server's own configuration has a mistake: {without}",
                "Correct that and run this again; nothing that it includes has been written.",
            )


def _refusal(name: str, said: str) -> Failed:
    return Failed("server-refuses", f"{name} refuses what it would include: {said}", _hint(said))


def _hint(said: str) -> str:
    safe = "Nothing is included anywhere, and nothing has changed."
    if "AliasPreservePath" in said:
        return f"{safe} The strategy needs Apache 2.4.58 or later; with an older one, take symlink or exchange."
    modules = {"Rewrite": "rewrite", "SetEnvIf": "setenvif", "Alias": "alias"}
    missing = next((module for word, module in modules.items() if f"Invalid command '{word}" in said), "")
    if missing:
        return f"{safe} Load the module and run this again: a2enmod {missing} && systemctl restart apache2"
    return safe


def _run(*command: str) -> str | None:
    """What a configuration test says when it fails, on one line; None when it finds nothing wrong."""
    answer = ask(*command)
    return None if answer.status == 0 else answer.words

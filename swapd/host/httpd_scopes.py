"""What of httpd's configuration holds where: which conditions are met, who serves a directory, who follows links in it.

Facts that this rests on (httpd 2.4, tried):

- Whether a link is followed is up to the ``Options`` of the directory that the link is in; for a live path that is one,
  that is the directory above it.
- ``SymLinksIfOwnerMatch`` wins over ``FollowSymLinks`` where both hold; where neither does, the answer is 403. Without
  any ``Options``, links are followed.
- ``<Directory>`` sections hold in the order of their lengths, those with a pattern for regular expressions at the end;
  of equal ones a virtual host's come after the server's. Paths are compared as they are written, links unresolved.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator, Sequence
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path

from swapd.host.httpd_configuration import Directive, Section

# Sources of modules that are not called as their modules are.
_SOURCES = {
    "core.c": "core_module",
    "http_core.c": "http_module",
    "event.c": "mpm_event_module",
    "prefork.c": "mpm_prefork_module",
    "worker.c": "mpm_worker_module",
    "mod_php8.c": "php_module",
    "mod_php.c": "php_module",
}
_SOURCE = re.compile(r"(?:mod_)?(\w+)\.c\Z")
_TIMEOUT_UNITS = {"ms": 0.001, "s": 1.0, "mi": 60.0, "min": 60.0, "h": 3600.0}
_ALL = frozenset({"followsymlinks"})  # of what Options All stands for, that which matters here
MOST_LINKS = 40  # as the kernel follows them (ELOOP)


class Links(Enum):
    """What httpd does about symbolic links in a directory."""

    FOLLOWED = "followed"
    OWNERS = "owners"  # followed when link and target belong to the same user
    REFUSED = "refused"


def select_in_force(directives: Sequence[Directive], modules: frozenset[str]) -> list[Directive]:
    """Those whose conditions about modules are met; with no modules known, and for other conditions, all are."""
    if not modules:
        return list(directives)
    return [item for item in directives if all(_is_met(section, modules) for section in item.sections)]


def _is_met(section: Section, modules: frozenset[str]) -> bool:
    if section.name != "ifmodule" or not section.arguments:
        return True
    name = section.arguments[0]
    source = name.lstrip("!")
    match = _SOURCE.match(source)
    module = _SOURCES.get(source) or (f"{match[1]}_module" if match else source)
    return (module in modules) != name.startswith("!")


def find_values(directives: Sequence[Directive], name: str) -> dict[Section | None, tuple[str, ...]]:
    """What the directive says for the server (None) and for each virtual host that has it; the last one counts."""
    return {item.section("virtualhost"): item.arguments for item in directives if item.name == name and item.arguments}


def find_value(directives: Sequence[Directive], host: Section | None, name: str, default: str = "") -> str:
    """The first argument of the directive, for the virtual host or else for the server that it is one of."""
    found = find_values(directives, name)
    return (found.get(host) or found.get(None) or (default,))[0]


def parse_timeout(text: str) -> float | None:
    """Seconds, as httpd reads its timeouts: a number, of milliseconds when it says so; None where it is none."""
    match = re.fullmatch(r"(\d+)([a-z]*)", text.lower())
    unit = _TIMEOUT_UNITS.get(match[2] or "s") if match else None
    return int(match[1]) * unit if match and unit else None


@functools.cache
def find_steps(path: str) -> frozenset[Path]:
    """Each path that the kernel comes by on its way to this one, itself and its target at last among them.

    Remembered: there may be hundreds of roots, and each is looked at for each site. For a command, which is soon over.
    """
    return frozenset(_follow(path))


def _follow(path: str) -> Iterator[Path]:
    here, rest = Path("/"), [part for part in path.split("/") if part]
    links = 0
    while rest:
        part = rest.pop(0)
        if part in (".", ".."):
            here = here.parent if part == ".." else here
            continue
        here /= part
        yield here
        target = ""
        with contextlib.suppress(OSError):
            target = os.readlink(here)
        if target and (links := links + 1) <= MOST_LINKS:
            here = Path("/") if target.startswith("/") else here.parent
            rest = [*(item for item in target.split("/") if item), *rest]


def is_by(path: str, live: Path) -> bool:
    """Whether whoever opens the path, or something in it, may come by the live path: that a swap is seen there."""
    real = Path(os.path.realpath(live.parent)) / live.name
    return not find_steps(path).isdisjoint((live, real))


def find_roots(directives: Sequence[Directive]) -> Iterator[tuple[Section | None, str]]:
    """The directories that httpd serves, each with the virtual host that does."""
    for item in directives:
        if item.name == "documentroot" and item.arguments:
            yield item.section("virtualhost"), item.arguments[0]
        elif item.name in ("alias", "scriptalias", "wsgiscriptalias") and item.arguments:
            yield item.section("virtualhost"), item.arguments[-1 if len(item.arguments) <= 2 else 1]


def find_serving_hosts(directives: Sequence[Directive], live: Path) -> dict[Section | None, str]:
    """The virtual hosts that serve the live path, or something in it or around it, and by which directory."""
    found: dict[Section | None, str] = {}
    for host, root in find_roots(directives):
        if is_by(root, live) or live.is_relative_to(root):
            found.setdefault(host, root)
    return found


def find_links_rule(directives: Sequence[Directive], host: Section | None, directory: str) -> Links:
    """What the virtual host does about links in the directory, as far as it is not up to ``.htaccess`` files."""
    options = _ALL
    for words in _find_options(directives, host, directory):
        options = _merge(options, words)
    if "symlinksifownermatch" in options:
        return Links.OWNERS
    return Links.FOLLOWED if "followsymlinks" in options else Links.REFUSED


def _merge(options: frozenset[str], words: Sequence[str]) -> frozenset[str]:
    merged = set(options) if words[0][0] in "+-" else set()
    for word in words:
        name = word.lstrip("+-")
        named = _ALL if name == "all" else {name}
        merged = merged - named if word.startswith("-") else set() if name == "none" else merged | named
    return frozenset(merged)


def _find_options(directives: Sequence[Directive], host: Section | None, directory: str) -> Iterator[tuple[str, ...]]:
    """The words of each ``Options`` that holds for the directory, in the order in which they do."""
    found: list[tuple[tuple[int, int], tuple[str, ...]]] = []
    for item in directives:
        of = item.section("virtualhost")
        if item.name != "options" or not item.arguments or of not in (None, host):
            continue
        names = [section.name for section in item.sections]
        if {"location", "locationmatch", "files", "filesmatch", "if"} & set(names):
            continue
        rank = _rank(item, directory)
        if rank is not None:
            found.append(((rank, of is not None), tuple(word.lower() for word in item.arguments if word)))
    yield from (words for _, words in sorted(found, key=lambda pair: pair[0]) if words)


def _rank(item: Directive, directory: str) -> int | None:
    """Where its section stands in the order of those that hold for the directory; None: it does not."""
    section = next((one for one in reversed(item.sections) if one.name in ("directory", "directorymatch")), None)
    if section is None:
        return 0
    pattern = section.arguments[-1] if section.arguments else ""
    if section.name == "directorymatch" or section.arguments[:1] == ("~",):
        with contextlib.suppress(re.error):
            return 1000 if re.search(pattern, f"{directory}/") else None
        return None
    wanted = [part for part in pattern.split("/") if part]
    given = [part for part in directory.split("/") if part]
    holds = len(wanted) <= len(given) and all(map(fnmatchcase, given, wanted))
    return len(wanted) + 1 if holds else None

"""PHP's settings as PHP itself reads them: for mod_php, and for each pool of the php-fpm that runs.

Facts that this rests on:

- Each way of running PHP (SAPI) has files of its own, where the distribution wants it so: Debian's are in
  ``/etc/php/VERSION/SAPI``. ``php -i`` reads another SAPI's when it is told where they are (``-c``, PHP_INI_SCAN_DIR);
  php-fpm has its own, and prints them with ``-i``.
- ``-i`` runs no page, so no ``auto_prepend_file``; an ``opcache.preload`` it would run, so that it is set to nothing.
- ``php-fpm -tt`` says all of its pools, and writes it into php-fpm's log, too: so pools are read here, which takes
  little: names in brackets, and values after ``=``.
- A pool's ``php_admin_value`` and ``php_value``, and those of httpd for mod_php, win over the files; what concerns the
  OPcache's memory cannot be set there.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from swapd.host.asking import ask, find_program
from swapd.host.masters import is_in_own_namespace
from swapd.host.services import find_service

DEBIANS = Path("/etc/php")
_INFO = re.compile(r"^([\w.]+) => (.*?) => .*$", re.MULTILINE)
_FILE = re.compile(r"^Loaded Configuration File => (.*)$", re.MULTILINE)
_OTHERS = re.compile(r"^Additional \.ini files parsed => (.*?)\n\n", re.MULTILINE | re.DOTALL)
_VERSIONED = re.compile(r"libphp([0-9]+\.[0-9]+)\.so$")
_TITLE = re.compile(r"php-fpm: master process \((.+)\)")
_VALUE = re.compile(r"php(?:_admin)?_(?:value|flag)\[([\w.]+)\]$")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
# Neither a page nor what a page would preload is run.
_QUIETLY = ("-d", "opcache.preload=", "-d", "auto_prepend_file=", "-i")


@dataclass(frozen=True, slots=True)
class Settings:
    """What one SAPI's settings are, by their names."""

    sapi: str  # for people: mod_php, or php-fpm's pool www
    file: str  # php.ini
    values: Mapping[str, str]
    service: str = ""  # which is reloaded after a change
    others: tuple[str, ...] = ()  # the files that it reads after that one
    places: Mapping[str, str] = field(default_factory=dict)  # where else a setting is made

    def is_on(self, name: str) -> bool:
        """Whether the flag is set."""
        return self.values.get(name, "").lower() in ("on", "1", "yes", "true")

    def number(self, name: str) -> int:
        """The setting's number; 0 where it is none."""
        match = re.match(r"-?\d+", self.values.get(name, ""))
        return int(match[0]) if match else 0

    def having(self, sapi: str, values: Mapping[str, str], places: Mapping[str, str]) -> Settings:
        """The same, but for these, which stand at these places."""
        return replace(self, sapi=sapi, values={**self.values, **values}, places=places)

    def find_place(self, name: str) -> str:
        """The file that has the setting, or else the one to write it into."""
        if name in self.places:
            return self.places[name]
        pattern = re.compile(rf"^\s*{re.escape(name)}\s*=", re.MULTILINE)
        for file in reversed((self.file, *self.others)):  # the last one counts
            with contextlib.suppress(OSError):
                if pattern.search(Path(file).read_text("utf-8", "replace")):
                    return file
        return self.file


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool of a php-fpm that runs."""

    name: str
    file: str
    listen: str = ""
    terminate_timeout: float = 0.0  # seconds; 0: never
    values: Mapping[str, str] = field(default_factory=dict)  # what it has of PHP's settings
    program: str = ""
    service: str = ""

    def listens_at(self, address: str) -> bool:
        """Whether it is this pool that answers at a socket's path, or at HOST:PORT."""
        if address.startswith("/"):
            return os.path.realpath(address) == os.path.realpath(self.listen)
        host, _, port = address.rpartition(":")
        own, _, own_port = self.listen.rpartition(":")
        is_here = host in ("localhost", "127.0.0.1", "[::1]", "")
        return bool(port) and port == own_port and (own == host or (is_here and own in ("", "127.0.0.1", "[::1]")))


def parse_info(text: str) -> dict[str, str]:
    """The settings that ``php -i`` prints, as they are for a page."""
    return {match[1]: "" if match[2] == "no value" else match[2] for match in _INFO.finditer(text)}


def read_mod_php(module: str) -> Settings | None:
    """The settings of the module that httpd has loaded from this file; None where no program can tell them."""
    match = _VERSIONED.search(module)
    own = DEBIANS / match[1] / "apache2" if match else None
    environment, options = {}, []
    if own is not None and own.is_dir():
        environment["PHP_INI_SCAN_DIR"] = str(own / "conf.d")
        options = ["-c", str(own)]
    program = find_program([f"php{match[1]}", "php"] if match else ["php"])
    return _ask(program, options, environment, "mod_php") if program is not None else None


def read_fpm(program: str, service: str) -> Settings | None:
    """The settings of the php-fpm that runs this program, but for its pools' own; None where it does not tell."""
    return _ask(program, [], {}, "php-fpm", service)


def _ask(
    program: str, options: list[str], environment: Mapping[str, str], sapi: str, service: str = ""
) -> Settings | None:
    answer = ask(program, *options, *_QUIETLY, environment=environment)
    file = _FILE.search(answer.output)
    if answer.status != 0 or file is None:
        return None
    others = _OTHERS.search(answer.output)
    files = tuple(name.strip() for name in others[1].split(",")) if others and others[1] != "(none)" else ()
    return Settings(sapi, file[1], parse_info(answer.output), service, files)


def find_pools() -> Iterator[Pool]:
    """The pools of each php-fpm of root's that runs on this machine, and not in a container of it.

    Of root's: its program is run for its settings, and anybody may call a process of theirs so.
    """
    for process in psutil.process_iter(["cmdline", "uids"]):
        title = _TITLE.match(" ".join(process.info["cmdline"] or ()))
        if title is None or set(process.info["uids"] or ()) != {0} or not is_in_own_namespace(process.pid):
            continue
        program = ""
        with contextlib.suppress(OSError):
            program = os.readlink(f"/proc/{process.pid}/exe").removesuffix(" (deleted)")
        service = find_service(process.pid) or ""
        for pool in read_pools(Path(title[1])):
            yield replace(pool, program=program, service=service)


def read_pools(file: Path) -> list[Pool]:
    """The pools of php-fpm's configuration, includes followed."""
    found: dict[str, dict[str, str]] = {}
    files: dict[str, str] = {}
    name = "global"
    for place, line in _lines(file, set()):
        if section := re.fullmatch(r"\[(.+)\]", line):
            name = section[1].strip()
            files.setdefault(name, str(place))
        else:
            key, _, value = line.partition("=")
            found.setdefault(name, {})[key.strip()] = value.strip().strip("\"'").replace("$pool", name)
    return [_pool(name, files[name], values) for name, values in found.items() if name.lower() != "global"]


def _lines(file: Path, seen: set[Path]) -> Iterator[tuple[Path, str]]:
    if file in seen:
        return
    seen.add(file)
    try:
        text = file.read_text("utf-8", "replace")
    except OSError:
        return
    for raw in text.splitlines():
        line = raw.partition(";")[0].strip() if not re.search(r"[\"']", raw) else raw.strip()
        key, _, pattern = line.partition("=")
        if key.strip() == "include":
            for name in sorted(glob.glob(pattern.strip().strip("\"'"))):
                yield from _lines(Path(name), seen)
        elif line and not line.startswith((";", "#")):
            yield file, line


def _pool(name: str, file: str, values: Mapping[str, str]) -> Pool:
    match = re.fullmatch(r"(\d+)([smhd]?)", values.get("request_terminate_timeout", ""))
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    own = {found[1]: value for key, value in values.items() if (found := _VALUE.fullmatch(key))}
    return Pool(name, file, values.get("listen", ""), float(seconds), own)

"""What the value of a key may be: each parser returns it as the configuration has it, or says what would be right."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any

from swapd.model.release import printable
from swapd.model.units import DURATION_UNITS, SIZE_UNITS, exact_duration, parse_duration, parse_size

# Pausing one of these stops the machine, the way into it, or swapd itself, whose interpreter bears its own name until
# swapd has given it another. By name, or by the beginning of a name.
NEVER_PAUSED = frozenset({"init", "dbus-daemon", "dbus-broker", "sudo", "login", "agetty", "journald"})
NEVER_PAUSED_PREFIXES = ("systemd", "(sd-", "sshd", "swapd", "python")
NEVER_PAUSED_UNITS = frozenset({"ssh", "sshd", "swapd", "dbus", "dbus-broker", "getty", "serial-getty", "user", "init"})


def is_never_paused(name: str) -> bool:
    """Whether a process, or a program, of this name must never be stopped."""
    # The kernel keeps 15 bytes of a name: "systemd-journal" is what it calls systemd-journald.
    return name in NEVER_PAUSED or name.startswith(NEVER_PAUSED_PREFIXES)


class WrongValue(ValueError):
    """A value that a key cannot have: what is wrong, and what would be right."""

    def __init__(self, message: str, right: str) -> None:
        super().__init__(message)
        self.message = message
        self.right = right


def shown(value: object) -> str:
    return printable(repr(value), 60)


def parse_text(value: object) -> str:
    if not isinstance(value, str):
        raise WrongValue(f"{shown(value)} is not a text", 'write a text in quotes, such as "…"')
    return value


def parse_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise WrongValue(f"{shown(value)} is neither true nor false", "write true or false, without quotes")
    return value


def parse_choice(kind: type[Enum]) -> Callable[[object], Any]:
    def parse(value: object) -> Enum:
        for member in kind:
            if member.value == value:
                return member
        right = ", ".join(f'"{member.value}"' for member in kind)
        raise WrongValue(f"{shown(value)} is not one of its values", f"write one of {right}")

    return parse


def parse_integer(least: int, why: str = "") -> Callable[[object], int]:
    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise WrongValue(f"{shown(value)} will not do", f"write a whole number, {least} or more{why}")
        return value

    return parse


def parse_strip_components(value: object) -> int | None:
    if value == "auto":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 32:
        return value
    raise WrongValue(f"{shown(value)} will not do", 'write "auto" or a whole number from 0 to 32')


def parse_seconds(least: float, most: float) -> Callable[[object], float]:
    limits = f"{exact_duration(least)} to {exact_duration(most)}"
    right = f'write a number with its unit ({", ".join(DURATION_UNITS)}), from {limits}, such as "2s"'

    def parse(value: object) -> float:
        try:
            seconds = parse_duration(value if isinstance(value, str) else "")
        except ValueError:
            raise WrongValue(f"{shown(value)} is not a duration", right) from None
        if not least <= seconds <= most:
            raise WrongValue(f"{shown(value)} is out of range", right)
        return seconds

    return parse


def parse_bytes(value: object) -> int:
    right = f'write a number with its unit ({", ".join(SIZE_UNITS)}), such as "4GiB"'
    try:
        size = parse_size(value if isinstance(value, str) else "")
    except ValueError:
        raise WrongValue(f"{shown(value)} is not a size", right) from None
    if size < 1:
        raise WrongValue(f"{shown(value)} leaves no room", right)
    return size


def parse_absolute_path(value: object) -> Path:
    text = parse_text(value)
    path = PurePosixPath(text)
    right = 'write a whole path from /, without "." or "..", such as "/var/www/shop"'
    if not path.is_absolute() or ".." in path.parts or text != str(path) or text.startswith("//"):
        raise WrongValue(f"{shown(value)} is not an absolute path in its normal form", right)
    if text != printable(text, 4096):
        raise WrongValue(f"{shown(value)} has characters that cannot be printed", right)
    return Path(text)


def parse_metrics_file(value: object) -> Path | None:
    path = parse_absolute_path(value)
    if path.suffix != ".prom":
        raise WrongValue(f"{shown(value)} is no file that a collector reads", "end its name in .prom")
    return path


def parse_live_path(value: object) -> Path:
    path = parse_absolute_path(value)
    if path.parent == Path("/") or path == Path("/"):
        # The sandbox opens the live path's parent directory: that must not be the whole machine.
        raise WrongValue(f"{shown(value)} stands directly below /", "move the site into a directory of its own")
    if len(path.name.encode()) > 200:
        raise WrongValue("its last component is longer than 200 bytes", "choose a shorter one")
    return path


def parse_link_targets(value: object) -> tuple[Path, ...]:
    """Directories outside that a release's symlinks may lead to."""
    if not isinstance(value, list):
        raise WrongValue(f"{shown(value)} is not a list", 'write a list of whole paths, such as ["/srv/media"]')
    paths = tuple(parse_absolute_path(item) for item in value)
    if Path("/") in paths:
        raise WrongValue('"/" would allow links to everything', "name the directories that are meant")
    return paths


def parse_inner_paths(value: object) -> tuple[str, ...]:
    right = 'write a list of paths inside a release, such as ["index.php"], without leading / and without ".."'
    if not isinstance(value, list):
        raise WrongValue(f"{shown(value)} is not a list", right)
    for item in value:
        path = PurePosixPath(item) if isinstance(item, str) else PurePosixPath("/")
        is_plain = isinstance(item, str) and item == printable(item, 4096) and str(path) == item.rstrip("/")
        if path.is_absolute() or ".." in path.parts or not path.parts or not is_plain:
            raise WrongValue(f"{shown(item)} is not a path inside a release", right)
    return tuple(item.rstrip("/") for item in value)


def parse_part(value: object) -> str:
    return parse_inner_paths([value])[0]


def parse_shared(value: object) -> tuple[str, ...]:
    """Paths inside a release, each of which becomes a link: none can be inside another."""
    paths = parse_inner_paths(value)
    for path in paths:
        if paths.count(path) > 1 or any(PurePosixPath(other) in PurePosixPath(path).parents for other in paths):
            raise WrongValue(f"{shown(path)} is in the list twice, or inside another of its paths", "name it once")
    return paths


def parse_processes(value: object) -> tuple[str, ...]:
    right = 'write a list of process names, such as ["httpd", "apache2"]'
    if not isinstance(value, list) or not value:
        raise WrongValue(f"{shown(value)} is not a list of names", right)
    for item in value:
        if not isinstance(item, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", item):
            raise WrongValue(f"{shown(item)} is not a process's name", right)
        if is_never_paused(item):
            raise WrongValue(f"{shown(item)} must never be stopped", right)
    return tuple(value)


def parse_owner(value: object) -> str:
    text = parse_text(value)
    if text and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?:[A-Za-z0-9_][A-Za-z0-9_.-]*\$?", text):
        raise WrongValue(f"{shown(value)} is not an owner", 'write "USER:GROUP", such as "www-data:www-data"')
    return text


def parse_user(value: object) -> str:
    text = parse_text(value)
    if text and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?", text):
        raise WrongValue(f"{shown(value)} is not a user's name", 'write a name, such as "www-data"')
    return text


def parse_group(value: object) -> str:
    text = parse_text(value)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*\$?", text):
        raise WrongValue(f"{shown(value)} is not a group's name", 'write a name, such as "shop-deploy"')
    return text


def parse_unit(value: object) -> str:
    """A service; of a template's instance, the template counts."""
    right = 'write the name of httpd\'s service, such as "apache2.service"'
    text = parse_text(value)
    if not text:
        return text
    if not re.fullmatch(r"[A-Za-z0-9:_.\\@-]{1,247}\.service", text):
        raise WrongValue(f"{shown(value)} is not a service's name", right)
    name = text.removesuffix(".service").partition("@")[0]
    if name in NEVER_PAUSED_UNITS or name.startswith("systemd-"):
        raise WrongValue(f"{shown(value)} must never be stopped", right)
    return text


def parse_exe(value: object) -> str:
    if not parse_text(value):
        return ""
    path = parse_absolute_path(value)
    if is_never_paused(path.name):
        raise WrongValue(f"{shown(value)} must never be stopped", 'write httpd\'s program, such as "/usr/sbin/apache2"')
    return str(path)

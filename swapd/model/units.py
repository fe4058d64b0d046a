"""Durations and sizes as people write them: always with a unit."""

from __future__ import annotations

import re
from decimal import Decimal

DURATION_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
SIZE_UNITS = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
# systemd.time(7), as `systemctl show` prints them: "1min 30s", "250ms", "infinity".
_TIMESPAN_UNITS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
    "month": 2629800.0,
    "y": 31557600.0,
}
_TIMESPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|min|h|d|w|month|y)")
QUANTITY = re.compile(r"([0-9]{1,32}(?:\.[0-9]{1,6})?) ?([A-Za-z]{1,3})")


def _parse(text: str, units: dict[str, float] | dict[str, int]) -> Decimal:
    match = QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        raise ValueError(text)
    return Decimal(match[1]) * Decimal(str(units[match[2]]))


def parse_duration(text: str) -> float:
    """Seconds, to the microsecond; ``ValueError`` when it is not a number with one of ``DURATION_UNITS``."""
    return round(float(_parse(text, DURATION_UNITS)), 6)


def parse_timespan(text: str) -> float:
    """Seconds of a time span as systemd prints it, 0 for its ``infinity``; ``ValueError`` when it is none."""
    if text in ("0", "infinity"):
        return 0.0
    parts = [_TIMESPAN.fullmatch(part) for part in text.split()]
    if not parts or None in parts:
        raise ValueError(text)
    return sum(float(part[1]) * _TIMESPAN_UNITS[part[2]] for part in parts if part)


def parse_size(text: str) -> int:
    """Bytes; ``ValueError`` when it is not a number with one of ``SIZE_UNITS``."""
    return int(_parse(text, SIZE_UNITS))


def format_duration(seconds: float) -> str:
    """A duration for people, with three significant digits: ``0.92 ms``, ``4.1 s``, ``2 min 5 s``."""
    for unit, factor in (("µs", 1e6), ("ms", 1e3), ("s", 1.0)):
        # To three digits, and before it is compared: 999.7 µs are 1 ms and not 1000 µs.
        value = round(seconds * factor, 2 - max(0, len(str(int(seconds * factor))) - 1))
        if value < (60 if unit == "s" else 1000):
            return f"{value:g} {unit}"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def format_size(size: int) -> str:
    """A size for people: ``812 B``, ``4.0 KiB``, ``1.4 GiB``."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def exact_duration(seconds: float) -> str:
    """The duration as ``parse_duration`` reads it back."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def exact_size(size: int) -> str:
    """The size as ``parse_size`` reads it back."""
    return f"{size}B"


def format_age(seconds: float) -> str:
    """How long ago something was, for people: ``just now``, ``3 min ago``, ``2 days ago``; never less than it is."""
    if seconds < 1:
        return "just now"
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= (2 * length if unit == "days" else length):
            return f"{int(seconds // length)} {unit} ago"
    return f"{int(seconds)} s ago"

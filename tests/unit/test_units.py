"""Durations and sizes, read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapd.model.units import exact_duration, exact_size, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2s", 2.0), ("1.5 s", 1.5), ("250ms", 0.25), ("10us", 1e-5), ("2min", 120.0), ("1h", 3600.0), ("0s", 0.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1B", 1),
        ("2kB", 2000),
        ("2KiB", 2048),
        ("1.5 MiB", 3 << 19),
        ("4GiB", 4 << 30),
        ("1TB", 10**12),
        ("3TiB", 3 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2",
        "s",
        "2 ",
        " 2s",
        "2s ",
        "2  s",
        "-1s",
        "+1s",
        "1e3s",
        ".5s",
        "1.s",
        "1,5s",
        "infs",
        "nans",
        "2S",
        "٢s",
        "2s\n",
    ],
)
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_duration(text)
    with pytest.raises(ValueError, match=r".*"):
        parse_size(text.replace("s", "B"))


def test_units_are_not_mixed_up() -> None:
    for text in ("1kb", "1KB", "1gib", "1s", "1M", "1Mi"):
        with pytest.raises(ValueError, match=text):
            parse_size(text)
    for text in ("1m", "1d", "1B", "1sec"):
        with pytest.raises(ValueError, match=text):
            parse_duration(text)


@given(st.integers(0, 1 << 50))  # a pebibyte
def test_a_size_comes_back(size: int) -> None:
    assert parse_size(exact_size(size)) == size


@given(st.integers(0, 3600 * 10**6))
def test_a_duration_comes_back_to_the_microsecond(microseconds: int) -> None:
    seconds = microseconds / 1e6
    assert parse_duration(exact_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 µs"),
        (0.000_9, "900 µs"),
        (0.000_92, "920 µs"),
        (0.001_7, "1.7 ms"),
        (0.072, "72 ms"),
        (4.1, "4.1 s"),
        (59.94, "59.9 s"),
        (125, "2 min 5 s"),
        (3599.6, "1 h 0 min"),
        (7290, "2 h 1 min"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (4096, "4.0 KiB"),
        (1536 << 10, "1.5 MiB"),
        (1 << 30, "1.0 GiB"),
        (5 << 40, "5.0 TiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.floats(1e-6, 1e6))
def test_every_duration_can_be_told(seconds: float) -> None:
    text = format_duration(seconds)
    assert text.isprintable()
    assert "e" not in text

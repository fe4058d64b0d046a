"""Standard output as people have it before them: a terminal of some width, with colours, or a pipe.

What is printed here may come from outside: whatever could move a terminal's cursor, or turn its writing, is escaped. In
a pipe there are no colours, and no line is broken. rich, which heeds NO_COLOR and TERM, is only asked for a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from swapd.model.release import printable

if TYPE_CHECKING:
    from rich.console import Console

INDENT = 13  # columns of a label, and of what goes on below it
LEAST = 20  # columns that a text has, however narrow the terminal is
LIMIT = 10_000  # characters of a single text
BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.:-=+*#"

Cell = tuple[str, str]  # a text, and its style


class Paper:
    """Prints lines, labelled lines and tables."""

    def __init__(self) -> None:
        self._console: Console | None = None
        if sys.stdout.isatty():
            from rich.console import Console

            self._console = Console(markup=False, highlight=False, emoji=False)

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None for a pipe, which has no end."""
        return self._console.width if self._console else None

    def line(self, text: str, style: str = "", indent: int = 0, label: str = "") -> None:
        """A text, whose further lines, where it has to be broken, are indented. The label stands in the indentation."""
        begin = f"{label:<{indent}}" if label else ""
        for number, part in enumerate(self._break(_spell(text), indent)):
            self._print([(begin if number == 0 else " " * indent, ""), (part, style)])

    def entry(self, label: str, text: str, style: str = "") -> None:
        """A labelled text."""
        self.line(text, style, INDENT, f"  {label}")

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> bool:
        """Aligned columns, but for those that are empty; not printed, and False, where the terminal is too narrow."""
        safe = [[(_spell(text), style) for text, style in row] for row in rows]
        used = [number for number in range(len(headings)) if any(row[number][0] for row in safe)]
        lines = [[(headings[number], "bold") for number in used], *([row[number] for number in used] for row in safe)]
        widths = [max(self._measure(line[number][0]) for line in lines) for number in range(len(used))]
        if self.width is not None and sum(widths) + 2 * (len(widths) - 1) > self.width:
            return False
        for line in lines:
            pieces: list[Cell] = []
            for (text, style), width in zip(line, widths, strict=True):
                pieces += [(text, style), (" " * (width - self._measure(text) + 2), "")]
            self._print(pieces[:-1])
        return True

    def card(self, cells: Sequence[Cell], indent: int) -> None:
        """The same cells one after the other, for a narrow terminal; broken between them where that is possible."""
        row: list[Cell] = []
        begin = " " * indent
        for text, style in ((_spell(text), style) for text, style in cells if text):
            if row and self.width and self._length(row) + self._measure(text) + indent > self.width:
                self._print([(begin, ""), *row[:-1]])
                row = []
            row += [(text, style), ("  ", "")]
        self._print([(begin, ""), *row[:-1]])

    def chart(self, values: Sequence[float]) -> str:
        """A bar for each value, from zero to the largest: of Unicode's blocks where the terminal has them."""
        blocks = BLOCKS if _can_encode(BLOCKS) else ASCII_BLOCKS
        most = max(values, default=0) or 1
        return "".join(blocks[min(int(value / most * len(blocks)), len(blocks) - 1)] for value in values)

    def _length(self, cells: Sequence[Cell]) -> int:
        return sum(self._measure(text) for text, _ in cells)

    def _measure(self, text: str) -> int:
        """Columns that the text takes."""
        if self._console is None:
            return len(text)
        from rich.cells import cell_len

        return cell_len(text)

    def _break(self, text: str, indent: int) -> Iterator[str]:
        if self._console is None:
            yield text
            return
        from rich.text import Text

        width = max(self._console.width - indent, LEAST)
        for line in Text(text).wrap(self._console, width, overflow="fold"):
            yield line.plain.rstrip()

    def _print(self, cells: Sequence[Cell]) -> None:
        if self._console is None:
            print("".join(text for text, _ in cells).rstrip(), flush=True)
            return
        from rich.text import Text

        self._console.print(Text.assemble(*cells), soft_wrap=True)


def _spell(text: str) -> str:
    """The text, fit for any terminal; what we have in it ourselves that not every one has is written otherwise."""
    safe = printable(text, LIMIT)
    return safe if safe.isascii() or _can_encode(safe) else safe.replace("µs", "us").replace("…", "...")


def _can_encode(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True

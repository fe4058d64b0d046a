"""A table as plain text."""

from __future__ import annotations

from collections.abc import Sequence

Row = Sequence[str]


def table(titles: Row, rows: Sequence[Row | str]) -> str:
    """The rows below their titles, every column as wide as it must be: the first to the left, figures to the right.

    A text among the rows is a line of its own.
    """
    filled = [titles, *(row for row in rows if not isinstance(row, str))]
    widths = [max(len(row[column]) for row in filled) for column in range(len(titles))]

    def line(row: Row) -> str:
        cells = [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(titles), rule, *(row if isinstance(row, str) else line(row) for row in rows)])


def milliseconds(value: float) -> str:
    """A time with as many decimals as it deserves."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def is_met(goal: bool) -> str:
    """A goal, as a cell."""
    return "met" if goal else "no"


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not exceeded by ``share`` of them."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-round(share * 1e6) * len(ordered) // 1_000_000) - 1))]

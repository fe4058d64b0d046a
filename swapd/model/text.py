"""Text from outside, made fit to be shown."""

from __future__ import annotations

import unicodedata

LONGEST = 4000  # characters of a message: of what is longer, nobody reads the end


def printable(text: str, limit: int = 200) -> str:
    """Text from outside, fit for one line of a terminal, a marker or the journal.

    Control characters, line and paragraph separators, format characters (such as those that turn the writing
    direction) and undecodable bytes are escaped; what is longer than ``limit`` characters is cut.
    """
    text = text[: limit + 1]  # no escape is shorter than what it stands for
    # What is printable for Python is what we call so: neither a separator nor of the others, but for the space.
    escaped = (
        text
        if text.isprintable()
        else "".join(
            character if character == " " or unicodedata.category(character)[0] not in "CZ" else ascii(character)[1:-1]
            for character in text
        )
    )
    return escaped if len(escaped) <= limit else escaped[:limit] + "…"

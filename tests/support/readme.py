"""README.md as somebody reads it who types what is in it: its blocks, its command lines, the outputs that it shows.

Command lines are those of indented blocks, where what follows a line with a ``$ `` prompt is its output, and inline
code that begins with a program's name. A comment after two spaces belongs to the reader, not to the command.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
PROMPT = "$ "
COMMENT = re.compile(r"(^|\s{2,}|\s(?=# ))#\s.*$")
INDENT = "    "
INLINE = re.compile(r"`([^`]+)`")
PROGRAMS = frozenset(
    (
        *(
            "sudo",
            "swapd",
            "make",
            "git",
            "ssh",
            "scp",
            "sftp",
            "rsync",
            "curl",
            "ssh-keygen",
            "ssh-add",
            "ssh-keyscan",
        ),
        *(
            "sha256sum",
            "touch",
            "cp",
            "mv",
            "echo",
            "cat",
            "ls",
            "tar",
            "man",
            "killall",
            "systemctl",
            "journalctl",
            "sysctl",
        ),
        *("apachectl", "apache2ctl", "a2enmod", "nginx", "promtool", "adduser", "useradd"),
        *("apt", "apt-get", "dnf", "rpm", "pip", "pipx", "podman", "docker"),
    )
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced or an indented block; ``language`` is "" for an indented one, and "text" for a fence without any."""

    language: str
    lines: tuple[str, ...]
    line: int

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)


@dataclass(frozen=True, slots=True)
class Typed:
    """A command line, without its comment; the output that the README shows of it; the line where it stands."""

    command: str
    output: tuple[str, ...]
    line: int


def read_blocks(text: str) -> Iterator[Block]:
    """The blocks in their order. Fences may not be nested, indented blocks stand between blank lines."""
    language: str | None = None
    content: list[str] = []
    begin = 0
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if language is None and line.startswith("```"):
            language, content, begin = line.removeprefix("```").strip() or "text", [], number
        elif language is None and line.startswith(INDENT):
            language, content, begin = "", [line.removeprefix(INDENT)], number
        elif language == "" and line.startswith(INDENT):
            content.append(line.removeprefix(INDENT))
        elif language == "" or (language is not None and line.startswith("```")):
            yield Block(language, tuple(content), begin)
            language = None
        elif language is not None:
            content.append(line)


def read_typed(block: Block) -> Iterator[Typed]:
    """The command lines of an indented block."""
    has_prompts = False
    command, output, begin = "", [""], 0
    for number, line in enumerate(block.lines, start=block.line):
        has_prompts = has_prompts or line.startswith(PROMPT)
        if has_prompts and not line.startswith(PROMPT):
            output.append(line)
            continue
        if command:
            yield Typed(command, tuple(output[1:]), begin)
        command, output, begin = COMMENT.sub("", line.removeprefix(PROMPT)).strip(), [""], number
    if command:
        yield Typed(command, tuple(output[1:]), begin)


def read_inline(text: str) -> Iterator[Typed]:
    """Inline code that begins with a program's name and has arguments, outside of blocks."""
    lines = text.splitlines()
    for block in read_blocks(text):
        fenced = bool(block.language)  # its fences go with it
        lines[block.line - 1 : block.line - 1 + len(block.lines) + 2 * fenced] = [""] * (len(block.lines) + 2 * fenced)
    prose = "\n".join(lines)
    for found in INLINE.finditer(prose):
        command = " ".join(found[1].split()).removeprefix("&& ")
        if command.partition(" ")[0] in PROGRAMS and " " in command:
            yield Typed(command, (), prose.count("\n", 0, found.start()) + 1)


def shape(line: str) -> re.Pattern[str]:
    """What a line of real output has to look like: as this one of the README, with figures and ids of its own."""
    pattern = re.escape(" ".join(line.split()))
    pattern = re.sub(r"-\d+@[0-9a-f]{12}", r"-\\d+@[0-9a-f]{12}", pattern)
    pattern = re.sub(r"@[0-9a-f]{12}", "@[0-9a-f]{12}", pattern)
    pattern = re.sub(r"\d+\\ \w+\\ ago", r"(?:just now|\\d+ \\w+ ago)", pattern)
    pattern = re.sub(r"\d[\d.,:\\]*\\ (?:µs|ms|s|min|h)\b", r"[\\d.]+ (?:µs|ms|s|min|h)", pattern)
    pattern = re.sub(r"\\\((exchange|symlink|rename|pinned)\\\)", r"\\((?:exchange|symlink|rename|pinned)\\)", pattern)
    pattern = re.sub(r"(?<![\[{\w-])\d+(?:\\?[.:]\d+)*", r"\\d+(?:[.:]\\d+)*", pattern)
    return re.compile(pattern.replace(r"\ ", r"\s+"))

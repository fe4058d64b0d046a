"""Shells at a terminal of their own, as somebody types into them: what a line becomes by the TAB key."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

from tests.support.waiting import PATIENCE

TAB = "\t"
ALL = "\x1b*"  # every completion there is, into the line
SHOW = "\x18\x04"  # Control-X Control-D: bound below to say what the line is
CLEAR = "\x15"  # Control-U

# What makes the shell say its line, and nothing that a dialogue would trip over.
BASH = r"""
bind 'set enable-bracketed-paste off'; bind 'set bell-style none'; PS1='> '
bind -x '"\C-x\C-d": printf "<%s>\n" "$READLINE_LINE"'
"""
ZSH = r"""
PS1='> '; unset zle_bracketed_paste; bindkey '^U' kill-whole-line
show() { print -r -- "<$BUFFER>" }; zle -N show; bindkey '^X^D' show
zle -C all-matches complete-word _generic; bindkey '^[*' all-matches
zstyle ':completion:all-matches:*' insert yes; zstyle ':completion:all-matches::::' completer _all_matches _complete
"""


class Typist:
    """Somebody at an interactive shell."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal

    def type(self, keys: str, until: str) -> str:
        """Types, and returns what matches the pattern ``until`` in what the shell then shows."""
        os.write(self._terminal, keys.encode())
        shown = b""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(until.encode(), shown)):
            if not select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"typed {keys!r}, and this came of it: {shown!r}")
            shown += os.read(self._terminal, 1 << 16)
        return found[0].decode(errors="backslashreplace")

    def complete(self, line: str, key: str = TAB) -> str:
        """What the line is after the key, without the blank that the shell puts behind a whole word."""
        shown = self.type(f"{CLEAR}{line}{key}{SHOW}", r"<[^<>\r\n]*>\r?\n")
        return shown.strip()[1:-1].rstrip()


@contextlib.contextmanager
def typing(command: Sequence[str], preparation: str, environment: Mapping[str, str]) -> Iterator[Typist]:
    """An interactive shell that has run the preparation."""
    controller, terminal = pty.openpty()
    try:
        # setsid: a shell wants a terminal of its own, for its job control.
        shell = subprocess.Popen(
            ["setsid", "--ctty", *command],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**environment, "TERM": "dumb"},
        )
    finally:
        os.close(terminal)
    try:
        typist = Typist(controller)
        # At the prompt the terminal is the shell's; before it, it would take some of the keys for itself.
        typist.type(f"{preparation}\nstty columns 500; echo ready-$((41 + 1))\n", r"ready-42\r?\n[^\n]*> ")
        yield typist
    finally:
        # It ends by itself, and so does what has become of it in another process namespace, which no kill would reach.
        os.write(controller, f"{CLEAR}exit\n".encode())
        try:
            shell.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            shell.kill()
            shell.wait()
            raise
        finally:
            os.close(controller)

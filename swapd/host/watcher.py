"""The watch on the drop directories, in a process of its own.

watchdog has threads, and a process with threads cannot fork safely, as the daemon does for each worker. Also, threads
that went wrong end with their process, and another one takes its place.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from swapd.host.coprocess import Coprocess
from swapd.host.files import write_all
from swapd.host.reach import Reach

NAME = "(watch)"  # in brackets, which no site's name has
PATIENCE = 5.0  # seconds for an answer: watching a directory on a slow network filesystem takes its time
KILLED = 0.2  # seconds for its end: it may hang in the kernel, and then has to be left alone
NUMBER = 4  # bytes of one, which says in which directory something happened
AGAIN = "again"  # asks for what could not be watched
ANSWERED = ("missing", "unwatched", "remote")
CHUNK = 65536  # what a pipe holds: so much at once may mean that more did not fit


class Watcher:
    """``Watch``, which says in its own words what each of these is, in a process of its own.

    When something happens in a directory, ``flags`` can be read, and ``take_flags`` says in which.
    """

    def __init__(self) -> None:
        self.missing: dict[Path, str] = {}
        self.unwatched: dict[Path, str] = {}
        self.remote: dict[Path, str] = {}
        self.flags, self._flagged = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._directories: list[Path] = []  # as the process numbers them
        self._silent: set[Path] = set()  # which do not answer, and so are not the process's
        self._process: Coprocess | None = None
        self._has_failed = False  # to answer, the last time that it was asked
        self._reach = Reach()

    def watch(self, directories: Iterable[Path]) -> None:
        self._directories, self._silent = list(directories), set()
        with contextlib.suppress(BlockingIOError):
            while os.read(self.flags, CHUNK):
                pass  # of the directories before
        answer = None if self._has_failed else self._ask([str(path) for path in self._directories])
        if answer is None:
            # One that never answers must not keep the others from being watched.
            self._silent = self.find_silent(self._directories)
            self._directories = [path for path in self._directories if path not in self._silent]
            answer = self._ask([str(path) for path in self._directories])
        self._take(answer)

    def watch_unwatched(self) -> bool:
        """Also those that did not answer. Whether all of them are watched anew, and so are to be looked at."""
        if self.find_silent(self._silent) != self._silent or (self.unwatched and self._process is None):
            self.watch([*self._directories, *self._silent])
            return True
        if self.unwatched:
            self._take(self._ask(AGAIN))
        return False

    def find_silent(self, directories: Iterable[Path]) -> set[Path]:
        """Which of them cannot be looked into without waiting for ever."""
        return self._reach.find_silent(directories)

    def _take(self, answer: dict[str, Any] | None) -> None:
        if answer is None:
            self.missing, self.remote = {}, {}
            self.unwatched = dict.fromkeys(self._directories, "the watching process does not answer")
        else:
            self.missing, self.unwatched, self.remote = (
                {Path(path): why for path, why in answer[key].items()} for key in ANSWERED
            )
        self.missing.update(dict.fromkeys(self._silent, "it does not answer"))

    def must_poll(self, directory: Path) -> bool:
        """Whether something may happen in the directory, which is there, without an event."""
        return directory in self.unwatched or directory in self.remote

    def find_trouble(self) -> str | None:
        if self._process is None:
            return None
        answer = self._ask(None)
        if answer is None:
            return "its process does not answer, or has ended"
        trouble: str | None = answer["trouble"]
        return trouble

    def take_flags(self) -> Iterable[Path]:
        """The directories in which something happened since the last call; all of them where that is not known."""
        try:
            data = os.read(self.flags, CHUNK)
        except BlockingIOError:
            return ()
        if len(data) == CHUNK:
            return self._directories
        numbers = {int.from_bytes(data[at : at + NUMBER], "little") for at in range(0, len(data), NUMBER)}
        return [self._directories[number] for number in numbers if number < len(self._directories)]

    def close(self) -> None:
        """Ends the watch."""
        self._end_process()
        for descriptor in (self.flags, self._flagged):
            os.close(descriptor)

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.kill()  # there is nothing that it could leave behind
            if not self._process.has_ended(KILLED):
                self._process.close()
            self._process = None

    def _ask(self, question: Sequence[str] | str | None) -> dict[str, Any] | None:
        """The process's answer; None where there is none, and then no process any more."""
        try:
            if self._process is None:
                self._process = Coprocess(NAME, self._be_process, (self._flagged,))
            write_all(self._process.stdin.fileno(), json.dumps(question).encode() + b"\n")
            line = b""
            poll = select.poll()
            poll.register(self._process.stdout, select.POLLIN)
            while not line.endswith(b"\n") and poll.poll(PATIENCE * 1000):
                data = self._process.stdout.read(CHUNK)
                if not data:
                    break
                line += data
            if line.endswith(b"\n"):
                answer: dict[str, Any] = json.loads(line)
                self._has_failed = False
                return answer
        except OSError:  # it has ended, or cannot begin
            pass
        self._end_process()
        self._has_failed = True
        return None

    def _be_process(self) -> None:
        """All of its life, to the end of its input."""
        from swapd.host.watch import Watch  # watchdog is nothing that the daemon itself has to have in memory

        flagged = self._flagged
        numbers: dict[Path, int] = {}

        def raise_flag(directory: Path) -> None:
            # Where the pipe is full, its reader takes that as all of them; where the daemon was killed, nobody reads.
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(flagged, numbers[directory].to_bytes(NUMBER, "little"))

        watch = Watch(raise_flag)
        with open(0, "rb", closefd=False) as questions:
            for line in questions:
                question = json.loads(line)
                if question is None:
                    answer: dict[str, Any] = {"trouble": watch.find_trouble()}
                else:
                    if question == AGAIN:
                        watch.watch_unwatched()
                    else:
                        paths = [Path(path) for path in question]
                        numbers.update((path, number) for number, path in enumerate(paths))
                        watch.watch(paths)
                    answer = {key: {str(path): why for path, why in getattr(watch, key).items()} for key in ANSWERED}
                try:
                    write_all(1, json.dumps(answer).encode() + b"\n")
                except BrokenPipeError:  # the daemon was killed amid its question
                    return

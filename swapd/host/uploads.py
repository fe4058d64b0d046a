"""What somebody else has put into a directory and may still change, read as one whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from swapd.host.files import fingerprint, opened, opened_directory
from swapd.host.linux import has_writer
from swapd.model.errors import NotComplete
from swapd.model.release import Upload, printable


@contextlib.contextmanager
def reading(upload: Upload) -> Iterator[tuple[int, int, os.stat_result]]:
    """Its directory and the upload itself, open for reading, and how the upload was when it was opened.

    Raises ``NotComplete`` where somebody writes to it, has written when the block ends, or it is gone; ``Rejected``
    when it is no regular file; ``OSError``, also of what is done within the block.
    """
    name = printable(upload.file_name)
    try:
        with opened_directory(upload.directory) as directory, opened(directory, upload.file_name) as (source, before):
            # What a command names may be open; its owner waits for the command.
            if upload.is_dropped and has_writer(source):
                raise NotComplete("still-open", f"{name} is still open for writing")
            yield directory, source, before
            if fingerprint(os.fstat(source)) != fingerprint(before):
                raise NotComplete("still-changing", f"{name} changed while it was read")
    except BlockingIOError as error:  # its owner holds a write lease on it
        raise NotComplete("still-open", f"{name} is still open for writing") from error
    except FileNotFoundError as error:
        raise NotComplete("vanished", f"{name} is gone") from error

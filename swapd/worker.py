"""The process that deploys to one site on the daemon's behalf, which it is forked from.

A process of its own for each site that has work, so that one site's extraction never holds up another site, nor
lengthens its pause. It speaks lines of JSON: the uploads to take up come on standard input; how it goes is said on
standard output. It ends at the end of its input, or after SIGTERM.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import time
from dataclasses import asdict, astuple
from typing import Any, TextIO

from swapd.answer import is_retried
from swapd.context import Context
from swapd.deploy import deploy, supersede
from swapd.host import records
from swapd.host.eventlog import EventLog
from swapd.host.files import locked
from swapd.model.config import Site
from swapd.model.control import is_control
from swapd.model.errors import Busy, ExitStatus, Failed, NotComplete
from swapd.model.events import degraded
from swapd.model.layout import Layout
from swapd.model.release import Fingerprint, Sidecar, SidecarKind, Stage, Upload, printable
from swapd.model.text import LONGEST
from swapd.recover import recover
from swapd.retention import prune_releases, sweep
from swapd.rollback import rollback
from swapd.stages.prune import find_leftovers

REPORT_INTERVAL = 0.1  # seconds between two reports of the same stage's progress
MOST_BROKEN_OFF = 3  # removals in a row that give way to a deployment; the next one does not
QUIET = 0.2  # seconds without a request after which old releases are removed: the next one takes a few milliseconds
LOCK_PATIENCE = 3600.0  # a command that deploys to this site is waited for: the upload loses nothing


def upload_document(upload: Upload) -> dict[str, Any]:
    """An upload as the daemon sends it."""
    return {
        "file_name": upload.file_name,
        "is_settled": upload.is_settled,
        "fingerprint": _numbers(upload.fingerprint) if upload.fingerprint else None,
        "sidecars": {sidecar.kind.value: _numbers(sidecar.fingerprint) for sidecar in upload.sidecars},
    }


def _numbers(state: Fingerprint) -> list[int]:
    return list(astuple(state))


def _upload(site: Site, document: dict[str, Any]) -> Upload:
    seen = Fingerprint(*document["fingerprint"]) if document["fingerprint"] else None
    sidecars = tuple(
        Sidecar(SidecarKind(kind), Fingerprint(*numbers)) for kind, numbers in document["sidecars"].items()
    )
    return Upload(site.incoming, document["file_name"], True, document["is_settled"], seen, sidecars)


class Worker:
    """Takes up one upload after the other."""

    def __init__(self, site: Site, layout: Layout, log: EventLog, output: TextIO) -> None:
        self._site = site
        self._emit = log.emit
        self._output = output
        self._is_cancelled = False
        self._reported = (Stage.CLAIM, 0.0)
        self._broken_off = 0
        self._context = Context(layout, self._emit, self._progress, lambda: self._is_cancelled, find_told=log.find_told)

    def cancel(self, *_: object) -> None:
        """For a signal handler: the deployment that is under way ends at its next step."""
        self._is_cancelled = True

    def _report(self, **report: object) -> None:
        try:
            print(json.dumps(report), file=self._output, flush=True)
        except BrokenPipeError:
            self._is_cancelled = True  # the daemon is gone: its successor takes the upload up again

    def _progress(self, stage: Stage, fraction: float | None, release: str) -> None:
        now = time.monotonic()
        if self._reported[0] is stage and now - self._reported[1] < REPORT_INTERVAL:
            return
        self._reported = stage, now
        self._report(stage=stage.value, fraction=fraction, release=release)

    def recover(self) -> None:
        """What a start does before anything else."""
        try:
            records.make_state_directories(self._context.layout, self._site.name)
            lock = self._context.layout.site_lock(self._site.name)
            with locked(lock, f"a deployment of {self._site.name}", LOCK_PATIENCE, self._context.is_cancelled):
                recover(self._site, self._context)
        except NotComplete:  # said already: a release is live, and that cannot be written down yet
            raise SystemExit(ExitStatus.FAILED) from None  # another one tries again a little later
        except (Failed, Busy, OSError) as error:
            self._emit(degraded(str(error), self._site.name))

    def take_up(self, document: dict[str, Any]) -> None:
        """One upload, to its outcome; the daemon is told which, or why there is none yet."""
        upload = _upload(self._site, document)
        if self._is_cancelled:
            return
        try:
            if "superseded_by" in document:
                deployment = supersede(self._site, upload, document["superseded_by"], self._context, LOCK_PATIENCE)
            else:
                obey = rollback if is_control(upload.file_name) else deploy
                deployment = obey(self._site, upload, self._context, LOCK_PATIENCE)
        except NotComplete as waits:
            self._report(waits=upload.file_name, reason=waits.message)
        except (Busy, Failed, OSError) as error:  # the last: not even the lock can be had
            named = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error.message
            reason = printable(named, LONGEST)
            self._emit(degraded(reason, self._site.name))
            self._report(waits=upload.file_name, reason=reason)
        else:
            self._report(
                ended=upload.file_name,
                outcome=deployment.outcome.value,
                release=deployment.release,
                reason=deployment.reason,
                is_retried=is_retried(deployment),
                fingerprint=_numbers(deployment.fingerprint) if deployment.fingerprint else None,
                problem=deployment.problem,
                needed=asdict(deployment.needed) if deployment.needed else None,
                sweeps=bool(find_leftovers(self._site)),
            )

    def run(self, requests: TextIO) -> None:
        """Until the end of ``requests``, or a signal. Old releases are removed while nothing is asked for."""
        self.recover()
        self._tidy()
        self._report(ready=True, sweeps=bool(find_leftovers(self._site)))
        waiting = _find_descriptor(requests)
        if waiting is not None:
            self._sweep(waiting)
        for line in requests:
            self.take_up(json.loads(line))
            if self._is_cancelled:
                return
            if waiting is not None:
                self._sweep(waiting)
        if waiting is None:
            self._sweep(None)

    def _tidy(self) -> None:
        """Renames aside what a crash amid a prune, or amid an extraction, left: the first sweep takes it along."""
        lock = self._context.layout.site_lock(self._site.name)
        if find_leftovers(self._site):
            with contextlib.suppress(Busy, Failed, OSError), locked(lock, "a deployment"):
                prune_releases(self._site, self._context)

    def _sweep(self, wanted: int | None) -> None:
        """Gives way to the next request, but not for ever: the disk must not fill while one follows the other.

        Nor does it begin when that is about to come: an extraction right after a removal takes several times as long.
        """
        if self._broken_off >= MOST_BROKEN_OFF:
            wanted = None
        if wanted is not None and find_leftovers(self._site):
            poll = select.poll()
            poll.register(wanted, select.POLLIN)
            if poll.poll(QUIET * 1000):
                self._broken_off += 1
                return
        if sweep(self._site, self._context, wanted):
            self._broken_off = 0
            self._report(swept=True)
        else:
            self._broken_off += 1


def _find_descriptor(requests: TextIO) -> int | None:
    """What can be waited for; None where all requests are there from the beginning."""
    try:
        return requests.fileno()
    except io.UnsupportedOperation:
        return None


def work(site: Site, layout: Layout) -> None:
    """All of a worker's life."""
    # Nothing but reports may reach the daemon's pipe.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # The unit's niceness is for the window, which takes it again: an extraction must not take the processor from httpd.
    os.setpriority(os.PRIO_PROCESS, 0, max(os.getpriority(os.PRIO_PROCESS, 0), 0))
    worker = Worker(site, layout, EventLog(layout), output)
    signal.signal(signal.SIGTERM, worker.cancel)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's interrupt: the daemon decides
    with open(0, encoding="utf-8", closefd=False) as requests:
        worker.run(requests)

"""The quarry of a pause: the processes that it will stop, found and held beforehand, and what forbids stopping them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from swapd.host import processes
from swapd.host.listeners import Counters, Listeners
from swapd.host.masters import find_masters
from swapd.host.processes import STOPPED, Parent, Process
from swapd.host.services import find_service, read_watchdog
from swapd.model.config import Pause
from swapd.model.errors import Failed, Issue
from swapd.model.units import format_duration

UNTOUCHED = "Nothing was stopped and the live release is untouched."
INIT = 1  # the kernel ignores a SIGSTOP to the first process of a PID namespace


@dataclass(slots=True)
class Quarry:
    """Everything that the window needs to know of httpd, so that it need not look for it. Close it.

    ``forking`` are those that have children of httpd's: only they are asked for new ones in the window. Another child
    may be about to exec a program that a page asked for; were that one stopped inside vfork, its parent never would be.
    """

    names: frozenset[str]
    masters: list[Process]
    children: list[Process]
    already_stopped: list[Process]
    forking: list[Parent]
    listeners: Listeners
    counters: Counters  # when the quarry was found, at `found_at` of time.monotonic()
    found_at: float
    warnings: list[Issue] = field(default_factory=list)

    def close(self) -> None:
        self.listeners.close()
        for process in (*self.masters, *self.children, *self.already_stopped):
            process.close()
        for parent in self.forking:
            parent.close()

    @property
    def size(self) -> int:
        """How many processes the pause stops."""
        return len(self.masters) + len(self.children)

    @property
    def services(self) -> list[str]:
        """The system services that the masters are of, in alphabetical order."""
        return sorted({find_service(process.identity.pid) or "" for process in self.masters} - {""})


def find_quarry(rules: Pause, present: float) -> Quarry:
    """The processes that the rules name, whether or not they may be stopped; ``present`` is time.monotonic()."""
    names = frozenset(rules.processes)
    masters: list[Process] = []
    for pid in find_masters(names, rules.user, rules.unit, rules.exe):
        with contextlib.suppress(ProcessLookupError):
            masters.append(Process(pid))
    children = processes.descendants([process.identity.pid for process in masters], names, ())
    everything = {process.identity.pid: process for process in (*masters, *children)}
    forking = [process for pid, process in everything.items() if everything.keys() & processes.child_pids(pid)]
    # What somebody else has stopped is left as it is: neither stopped nor, above all, resumed.
    already_stopped = [process for process in (*masters, *children) if process.state() == STOPPED]
    listeners = Listeners(process.identity.pid for process in masters)
    return Quarry(
        names,
        [process for process in masters if process not in already_stopped],
        [process for process in children if process not in already_stopped],
        already_stopped,
        [Parent(process) for process in forking or masters],
        listeners,
        listeners.counters(),
        present,
    )


def refuse_forbidden(quarry: Quarry, rules: Pause) -> None:
    """Raises ``Failed`` when one of the processes may not, cannot, or should not be stopped; warns of a near miss."""
    for error in find_forbidden(quarry, rules):
        raise error


def find_forbidden(quarry: Quarry, rules: Pause) -> Iterator[Failed]:
    """Everything for which a pause would be refused; after that, the quarry has the warnings of near misses."""
    for process in (*quarry.masters, *quarry.children):
        pid = process.identity.pid
        if pid == INIT:
            yield Failed(
                "cannot-stop-init",
                f"{process.name} is process 1, which cannot be stopped",
                f"{UNTOUCHED} In a container, let an init process start httpd, or set [pause] mode to never.",
            )
        elif not process.may_signal():
            yield Failed(
                "may-not-signal",
                f"process {pid} ({process.name}) may not be signalled by user {os.geteuid()}",
                f"{UNTOUCHED} swapd needs CAP_KILL (the unit grants it), or [pause] user to name whose processes it is "
                "to pause.",
            )
    for service in quarry.services:
        yield from _find_short_watchdog(quarry, service, rules.max)


def _find_short_watchdog(quarry: Quarry, service: str, longest: float) -> Iterator[Failed]:
    """A stopped service reports nothing: systemd would kill one whose watchdog is shorter than the pause."""
    watchdog = read_watchdog(service)
    if watchdog is None:
        return
    said = f"systemd ends {service} when it does not report within {format_duration(watchdog)} (its WatchdogSec=)"
    remedy = "Set [pause] max in the site's configuration to less than half of that, or a longer WatchdogSec=."
    if watchdog < longest:
        message = f"{said}, and a pause may last {format_duration(longest)}"
        yield Failed("watchdog-too-short", message, f"{UNTOUCHED} {remedy}")
    # A service reports when half of the time is over (sd_watchdog_enabled(3)), so that half may have passed already.
    elif watchdog < 2 * longest:
        message = f"{said}; half of that may be over when a pause begins, and {format_duration(longest)} is longer"
        quarry.warnings.append(Issue("watchdog-near", f"{message} than the rest", remedy))


def warn_of_full_queues(quarry: Quarry, counters: Counters, present: float, longest: float) -> None:
    """Warns when at the rate since the quarry was found the listeners could not hold the longest pause's connections.

    The kernel counts for all of a network namespace's listeners together, so the rate may be too high for one of them,
    and is never too low.
    """
    seconds = present - quarry.found_at
    limits = [queue for queue in quarry.listeners.before if queue.limit]
    if seconds <= 0 or not limits:
        return
    rate = (counters.accepted - quarry.counters.accepted) / seconds
    least = min(limits, key=lambda queue: queue.limit)
    if rate * longest > least.limit:
        message = (
            f"about {rate:.0f} connections a second come in, and the queue of {least.listener} holds {least.limit}: it "
            f"would overflow in a pause of {format_duration(longest)}"
        )
        hint = (
            f"Set [pause] max to {format_duration(least.limit / rate)} or less, or raise ListenBacklog and "
            "net.core.somaxconn"
        )
        quarry.warnings.append(Issue("queue-would-overflow", message, hint))

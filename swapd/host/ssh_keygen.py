"""ssh-keygen in a jail: a large program in C, which has root's uid and reads what an uploader wrote.

It may read what a program is made of, who its user is, and the files in memory that it is lent; it can write nowhere
but into those, reach no network, become nobody else, and not outlive us.

It ends with 255 for every refusal, but also where it could not do its work (no memory, no user of that uid). Only what
it says then tells the one from the other; the words are those of every version that can verify (8.1 to 10.2).
"""

from __future__ import annotations

import functools
import logging
import os
import resource
import select
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, closing

from swapd.host import jail, landlock
from swapd.host.child import Child, execute
from swapd.host.files import closing_descriptor
from swapd.model.errors import Failed

log = logging.getLogger(__name__)

TICK = 0.2  # seconds after which the caller hears that it goes on
PATIENCE = 60.0  # seconds in which it has read nothing, after which it is taken to hang
ADDRESS_SPACE = 512 << 20  # it streams what was signed; the signers file and the revocation list it holds in memory
OUTPUT = 1 << 20  # most bytes that it may write
REFUSED = 255
VERDICTS = ("No principal matched.", "Could not verify signature.")
UNREAD = ("Couldn't read signature file", "Unable to open allowed keys file")  # these two are ours to give
# getpwuid(3), for root and for whoever runs the command; local times; what OpenSSL may use (crypto-policies(7)).
READABLE = (
    "/etc/passwd",
    "/etc/nsswitch.conf",
    "/run/systemd/userdb",
    "/etc/localtime",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls",
    "/etc/crypto-policies",
    "/proc/sys/crypto/fips_enabled",
)
SAFE = "The upload and the site are untouched. Touch the tarball to have it taken up again."


def ask(
    operation: str, data: int | None, options: list[str | int], keep_going: Callable[[], None] = lambda: None
) -> list[str] | None:
    """The lines that ``ssh-keygen -Y operation`` answers with; None where it refuses.

    ``data`` is what was signed, and is read from its beginning; its offset stays where it is. An option that is a
    number is a descriptor, which ssh-keygen gets as a path, as it takes no other. ``keep_going`` is called several
    times a second, and may raise. ``Failed`` where it gave no answer; no process is left, however this ends.

    This process must have one thread only.
    """
    program = shutil.which("ssh-keygen")
    if program is None:
        raise Failed("no-ssh-keygen", "ssh-keygen is not installed", "Install openssh-client.")
    _tell_if_free()
    lent = [option for option in options if isinstance(option, int)]
    words = [f"/proc/self/fd/{option}" if isinstance(option, int) else option for option in options]
    with ExitStack() as stack:
        # Opened anew, for reading alone: the caller's offset stays, and the one that moves is ours to look at.
        source = os.devnull if data is None else f"/proc/self/fd/{data}"
        given = stack.enter_context(closing_descriptor(os.open(source, os.O_RDONLY | os.O_CLOEXEC)))
        said = stack.enter_context(closing_descriptor(os.memfd_create("ssh-keygen-stdout", os.MFD_CLOEXEC)))
        parent = os.getpid()

        def work() -> None:
            limits = {resource.RLIMIT_AS: ADDRESS_SPACE, resource.RLIMIT_FSIZE: OUTPUT}
            rights = jail.program_rights(program, READABLE)
            jail.enter(jail.Confinement(rights=rights, limits=limits, keeps_user=True), parent)
            execute(program, ["-Y", operation, *words], given, said, lent)

        try:
            child = stack.enter_context(closing(Child("ssh-keygen", work, keep={given, said, *lent})))
        except OSError as error:
            raise Failed(
                "no-processes", f"no process can be started: {error.strerror}", "Raise TasksMax= of the unit."
            ) from error
        if not _has_ended(child, given, keep_going):
            raise Failed("ssh-keygen-hangs", f"ssh-keygen -Y {operation} read nothing for {PATIENCE:g} s", SAFE)
        status, answer, complaint = child.wait(), os.fsdecode(os.pread(said, OUTPUT, 0)), child.words()
        if status == 0:
            return [line for line in answer.split("\n") if line]
        is_verdict = any(verdict in answer + complaint for verdict in VERDICTS)
        if status != REFUSED or not is_verdict or any(unread in complaint for unread in UNREAD):
            raise Failed("ssh-keygen-failed", f"ssh-keygen -Y {operation} {child.describe_end()}", SAFE)
        return None


@functools.cache  # once for each process
def _tell_if_free() -> None:
    if not landlock.is_available():
        log.warning("ssh-keygen can read all that we can while it verifies: this kernel has no Landlock")


def _has_ended(child: Child, given: int, keep_going: Callable[[], None]) -> bool:
    """Waits for its end, as long as it reads; False where it has not read on for too long."""
    position, moved_at = 0, time.monotonic()
    poll = select.poll()
    with closing_descriptor(os.pidfd_open(child.pid)) as pidfd:
        poll.register(pidfd, select.POLLIN)
        while not poll.poll(TICK * 1000):
            keep_going()
            now, reached = time.monotonic(), os.lseek(given, 0, os.SEEK_CUR)
            if reached != position:
                position, moved_at = reached, now
            elif now - moved_at > PATIENCE:
                return False
    return True

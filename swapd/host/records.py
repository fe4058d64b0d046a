"""The records of a site on the disk: its state, its deployments, the pause."""

from __future__ import annotations

import contextlib
import errno
import os
import time
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TypeVar

from swapd.host.files import closing_descriptor, fsync_directory, is_cut_short, write_document
from swapd.model.errors import Failed
from swapd.model.layout import Layout
from swapd.model.record import UNRECORDED, Deployment, PauseRecord, Recorded, SiteState
from swapd.model.release import DeploymentId, SiteName

REBUILT = "Move the file away: swapd then goes by what it finds on the disk."
HISTORY_LENGTH = 200  # deployments remembered for a site
TICK_NS = 100_000_000  # longer than any filesystem's clock stands still
CHUNK = 1 << 16  # bytes read at once: more than any record has

R = TypeVar("R", bound=Recorded)


def _read(kind: type[R], path: Path) -> R | None:
    """The record, or None where there is no such file; ``Failed`` where it cannot be understood."""
    try:
        return _parse(kind, path, path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


def _parse(kind: type[R], path: Path, content: bytes) -> R:
    """The record that is the file's content; ``Failed`` where it cannot be understood."""
    try:
        if is_cut_short(content):
            raise Failed("bad-record", f"the end of {path} is missing", REBUILT)
        return kind.from_document(tomllib.loads(content.decode("utf-8")), str(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Failed(
            "bad-record",
            f"{path} is not a record of swapd's: {error}",
            REBUILT,
        ) from error


def _unreadable(path: Path | str, error: OSError) -> Failed:
    hint = "A disk is failing: see the kernel's log (journalctl -k)." if error.errno == errno.EIO else ""
    return Failed("cannot-read", f"{path}: {error.strerror}", hint or "Make it readable for swapd.")


def make_state_directories(layout: Layout, site: SiteName) -> None:
    """After this, the directories that deploying to the site needs are there, with their modes.

    Raises ``Failed`` (``cannot-record``).
    """
    try:
        layout.run.mkdir(mode=0o755, parents=True, exist_ok=True)
        layout.deployments(site).mkdir(mode=0o755, parents=True, exist_ok=True)
        layout.claims(site).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Failed(UNRECORDED, f"{error.filename}: {error.strerror}", "Make it writable for swapd.") from error


def read_state(layout: Layout, site: SiteName) -> SiteState:
    """What the site knows of itself; an empty state before the first deployment."""
    return find_state(layout, site) or SiteState()


def find_state(layout: Layout, site: SiteName) -> SiteState | None:
    """The same; None where nothing is recorded."""
    return _read(SiteState, layout.site_record(site))


def write_state(layout: Layout, site: SiteName, state: SiteState) -> None:
    write_document(layout.site_record(site), state.document())


def write_deployment(layout: Layout, deployment: Deployment, *, through: bool = True) -> None:
    """Survives a crash from the return on, and with ``through`` a power cut."""
    name = f"{deployment.id}.toml"
    write_document(layout.deployments(deployment.site) / name, deployment.document(), through=through)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(layout.kept_records(deployment.site) / name)


def keep_deployment(layout: Layout, deployment: Deployment) -> None:
    """For a record that cannot be written where it belongs: whoever reads the records finds it all the same.

    Until ``write_deployment`` succeeds, or the machine is restarted. Raises ``OSError``.
    """
    directory = layout.kept_records(deployment.site)
    directory.mkdir(mode=0o755, exist_ok=True)
    write_document(directory / f"{deployment.id}.toml", deployment.document(), through=False)


def read_kept_deployments(layout: Layout, site: SiteName) -> list[Deployment]:
    """The records that could not be written where they belong; nearly always none."""
    found = (_read(Deployment, Path(path)) for path in _list(str(layout.kept_records(site))))
    return [deployment for deployment in found if deployment is not None]


def _find_deployments(layout: Layout, site: SiteName) -> list[str]:
    """The paths of the records of the site's deployments, of what is kept of one before what it was.

    Raises ``Failed`` (``cannot-read``); a glob would be silent about a directory that cannot be read.
    """
    places = (layout.deployments(site), layout.kept_records(site))
    return list({os.path.basename(path): path for place in places for path in _list(str(place))}.values())


def _list(directory: str) -> list[str]:
    """The paths of the records in the directory; none where there is no such directory, or none for us."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    except OSError as error:
        raise _unreadable(directory, error) from error
    return [f"{directory}/{name}" for name in names if name.endswith(".toml") and not name.startswith(".")]


@contextlib.contextmanager
def noting_start(layout: Layout, deployment: Deployment) -> Iterator[None]:
    """Right after the block, ``starts`` is 1 in the record: a byte in place, which no crash tears.

    All that can be done before it is, for the moment in between to be a single system call. Raises ``OSError``.
    """
    path = layout.deployments(deployment.site) / f"{deployment.id}.toml"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield  # it could not be written either
        return
    with closing_descriptor(descriptor):
        place = os.read(descriptor, 1 << 20).find(b"\nstarts = 0\n")
        yield
        if place >= 0:
            os.pwrite(descriptor, b"1", place + len("\nstarts = "))


def read_deployments(layout: Layout, site: SiteName, containing: str = "") -> list[Deployment]:
    """The readable records of the site that have the text ``containing`` in them, newest first.

    A record that cannot be understood is left out. The text is looked for before a record is parsed, which takes
    most of the time. Raises ``Failed`` (``cannot-read``) where it cannot be seen which records there are.
    """
    found: list[Deployment] = []
    text = containing.encode()
    for path in _find_deployments(layout, site):
        with contextlib.suppress(Failed, OSError):
            if text in (content := _read_bytes(path)):
                found.append(_parse(Deployment, Path(path), content))
    return sorted(found, key=lambda deployment: deployment.started, reverse=True)


def read_other_deployments(
    layout: Layout, site: SiteName, known: Collection[DeploymentId], most: int
) -> tuple[dict[DeploymentId, Deployment | None], set[DeploymentId], bool]:
    """At most so many of the records that are not of ``known`` deployments, None for one that cannot be read; which
    deployments have a record; and whether there are no others. Raises as ``read_deployments``.
    """
    paths = {
        DeploymentId(os.path.basename(path).removesuffix(".toml")): path for path in _find_deployments(layout, site)
    }
    others = [deployment for deployment in paths if deployment not in known]
    found: dict[DeploymentId, Deployment | None] = dict.fromkeys(others[:most])
    for deployment in found:
        with contextlib.suppress(Failed, OSError):
            found[deployment] = _parse(Deployment, Path(paths[deployment]), _read_bytes(paths[deployment]))
    return found, set(paths), len(others) <= most


def _read_bytes(path: str) -> bytes:
    """A file's content, in a third of the time that ``Path`` takes: every deployment reads every record thrice."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = chunk = os.read(descriptor, CHUNK)
        while len(chunk) == CHUNK:
            chunk = os.read(descriptor, CHUNK)
            content += chunk
        return content
    finally:
        os.close(descriptor)


class DeploymentsReader:
    """Reads the records of a site's deployments again and again; those that are as they were are not parsed anew."""

    def __init__(self, layout: Layout, site: SiteName) -> None:
        self._layout = layout
        self._site = site
        self._read_at = 0  # of time.time_ns()
        self._known: dict[str, tuple[tuple[int, int], Deployment | None]] = {}
        self._found: list[Deployment] = []

    def read(self) -> list[Deployment]:
        """As ``read_deployments``."""
        if self._has_changed():
            self._read_at, known = time.time_ns(), self._known
            self._known = {}
            for path in _find_deployments(self._layout, self._site):
                with contextlib.suppress(OSError):
                    status = os.stat(path)
                    state = (status.st_ino, status.st_mtime_ns)
                    before = known.get(path)
                    self._known[path] = before if before and before[0] == state else (state, _find_deployment(path))
            found = [deployment for _, deployment in self._known.values() if deployment is not None]
            self._found = sorted(found, key=lambda deployment: deployment.started, reverse=True)
        return self._found

    def _has_changed(self) -> bool:
        """Each record is renamed to its place, so the directory tells; of one tick of the clock, only later."""
        places = (self._layout.deployments(self._site), self._layout.kept_records(self._site))
        for place in places:
            with contextlib.suppress(OSError):
                if place.stat().st_mtime_ns > self._read_at - TICK_NS:
                    return True
        return not self._read_at


def _find_deployment(path: str) -> Deployment | None:
    with contextlib.suppress(Failed):
        return _parse(Deployment, Path(path), _read_bytes(path))
    return None


def find_unfinished(layout: Layout, site: SiteName) -> list[Deployment]:
    """Deployments that were begun and are not closed, oldest first."""
    unfinished = read_deployments(layout, site, "is_closed = false")
    return [item for item in reversed(unfinished) if not item.is_closed]


def find_damaged(layout: Layout, site: SiteName) -> list[Path]:
    """The records of deployments that cannot be understood, but for those of closed ones, which nothing rests on.

    Raises ``Failed``: ``newer-record`` for one that a newer version wrote, ``cannot-read``.
    """
    damaged = []
    for path in _find_deployments(layout, site):
        try:
            if b"\nis_closed = true\n" not in (content := _read_bytes(path)):
                _parse(Deployment, Path(path), content)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unreadable(path, error) from error
        except Failed as error:
            if error.problem != "bad-record":
                raise
            damaged.append(Path(path))
    return damaged


def set_record_aside(path: Path) -> Path:
    """Renames a damaged record to a name of its own beside, where nothing reads it; that path. Raises ``OSError``."""
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}")
    os.rename(path, aside)
    fsync_directory(path.parent)
    return aside


def forget_old_deployments(layout: Layout, site: SiteName) -> None:
    """Keeps the ``HISTORY_LENGTH`` records that were written last, and all that are not closed."""
    with os.scandir(layout.deployments(site)) as listing:
        written = {entry.path: entry.stat().st_mtime_ns for entry in listing if not entry.name.startswith(".")}
    for path in sorted(written, key=lambda path: written[path], reverse=True)[HISTORY_LENGTH:]:
        # Not parsed: that takes a millisecond for each, and this is done after every deployment.
        if "is_closed = false" not in Path(path).read_text("utf-8", "replace"):
            os.unlink(path)


def write_pause(layout: Layout, record: PauseRecord) -> None:
    """Survives every crash but the machine's own, after which nothing is stopped any more."""
    write_document(layout.pause_record, record.document())


def read_pause(layout: Layout) -> PauseRecord | None:
    return _read(PauseRecord, layout.pause_record)


def stamp_pause(layout: Layout) -> None:
    """Notes in the pause record that the window opens now: a system call that writes nothing.

    The file's time is then of the clock that only runs on, which every process of this boot has, and nobody sets.
    """
    opened = time.monotonic_ns()
    os.utime(layout.pause_record, ns=(opened, opened))


def read_pause_age(layout: Layout) -> float:
    """For how many seconds the window has been open; 0 where it is not open yet, or not any more."""
    try:
        opened = os.stat(layout.pause_record).st_mtime_ns
    except FileNotFoundError:
        return 0.0
    # What has not been stamped yet has the time of day, which no machine's uptime reaches.
    return max(0, time.monotonic_ns() - opened) / 1e9


def remove_pause(layout: Layout) -> None:
    try:
        os.unlink(layout.pause_record)
    except FileNotFoundError:
        pass

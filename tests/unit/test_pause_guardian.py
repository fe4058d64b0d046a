"""What resumes httpd when the process that paused it dies or hangs."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swapd.host import records
from swapd.host.resume import resume_leftover
from swapd.model.errors import Failed
from swapd.model.layout import Layout
from swapd.model.record import How, PathSwap, PauseRecord, TreeIdentity
from swapd.model.release import SiteName
from swapd.stages import pause
from tests.support.httpd import Httpd, state_of
from tests.support.sites import environment
from tests.support.waiting import wait_until
from tests.unit.test_pause import rules

LONGEST = 1.0


@pytest.fixture
def httpd() -> Iterator[Httpd]:
    with Httpd(workers=3) as httpd:
        yield httpd


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    records.make_state_directories(layout, SiteName("shop"))
    return layout


class Pauser:
    """A process that has paused ``httpd`` and stays in the window."""

    def __init__(self, layout: Layout, httpd: Httpd, longest: float = LONGEST, descriptors: int = 0) -> None:
        arguments = [str(layout.root), httpd.name, str(longest), *([str(descriptors)] if descriptors else [])]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.pauser", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"stopped\n"
        assert httpd.is_at_rest()
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        (self.guardian,) = map(int, children.split())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def kill_both(self) -> None:
        """As when all of the unit's processes are killed at once."""
        self.process.send_signal(signal.SIGSTOP)
        os.kill(self.guardian, signal.SIGKILL)
        wait_until(lambda: state_of(self.guardian) in "ZX", "the guardian's end")
        self.kill()

    def finish(self) -> int:
        """Lets it leave the window; its exit status."""
        self.process.send_signal(signal.SIGCONT)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait()


@pytest.fixture
def pausers() -> Iterator[list[Pauser]]:
    """Pausers that end with the test."""
    pausers: list[Pauser] = []
    yield pausers
    for pauser in pausers:
        if pauser.process.poll() is None:
            pauser.kill()
        for pipe in (pauser.process.stdin, pauser.process.stdout):
            if pipe is not None:
                pipe.close()


class TestGuardian:
    @pytest.mark.parametrize("descriptors", [0, 1100], ids=["", "more descriptors than select can take"])
    def test_a_pauser_that_is_killed(
        self, layout: Layout, httpd: Httpd, pausers: list[Pauser], descriptors: int
    ) -> None:
        pausers.append(Pauser(layout, httpd, LONGEST, descriptors))
        begin = time.monotonic()
        pausers[0].kill()
        wait_until(httpd.is_running, "all to run")
        assert time.monotonic() - begin < LONGEST + 0.1
        # Whoever comes next finds nothing to do.
        wait_until(lambda: state_of(pausers[0].guardian) in "ZX", "the guardian's end")
        assert resume_leftover(layout)[0] == 0

    def test_signals_that_end_others_do_not_end_it(self, layout: Layout, httpd: Httpd, pausers: list[Pauser]) -> None:
        # systemd sends SIGTERM to all that is left of a unit; a terminal's signals come to its whole session.
        pausers.append(Pauser(layout, httpd))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            os.kill(pausers[0].guardian, number)
        pausers[0].kill()
        wait_until(httpd.is_running, "all to run")

    def test_a_pauser_that_hangs(self, layout: Layout, httpd: Httpd, pausers: list[Pauser]) -> None:
        pausers.append(Pauser(layout, httpd, 0.3))
        pausers[0].process.send_signal(signal.SIGSTOP)
        wait_until(httpd.is_running, "all to run")
        assert pausers[0].finish() == 0
        assert httpd.is_running()
        assert not layout.pause_record.exists()

    def test_what_was_found_in_the_window_is_resumed_whatever_its_name_is(
        self, layout: Layout, httpd: Httpd, pausers: list[Pauser]
    ) -> None:
        # A SIGSTOP may come when a new child has just become another program, such as a logger at the end of a pipe.
        pausers.append(Pauser(layout, httpd))
        (logger,) = httpd.workers[:1]
        record = records.read_pause(layout)
        assert record is not None
        (identity,) = (child for child in record.children if child.pid == logger)
        children = tuple(child for child in record.children if child is not identity)
        records.write_pause(layout, dataclasses.replace(record, children=children, names=("another",)))
        command = [sys.executable, "-m", "swapd.host.guardian", layout.pause_record]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), bufsize=0
        ) as guardian:
            assert guardian.stdin is not None
            assert guardian.stdout is not None
            assert guardian.stdout.readline() == b"armed\n"
            said = b"%d %d\n" % (logger, identity.start_time)
            # In pieces, as the pipe may hand it over; and a number that is another process's by now.
            guardian.stdin.write(said[:3])
            guardian.stdin.write(said[3:] + b"%d 1\n" % os.getpid())
        assert guardian.returncode == 0
        wait_until(lambda: state_of(logger) == "S", "the logger to go on")

    def test_processes_that_were_stopped_before_stay_stopped(
        self, layout: Layout, httpd: Httpd, pausers: list[Pauser]
    ) -> None:
        stopped = httpd.workers[0]
        os.kill(stopped, signal.SIGSTOP)
        wait_until(lambda: state_of(stopped) == "T", "it to stop")
        pausers.append(Pauser(layout, httpd))
        pausers[0].kill()
        others = [httpd.master, *httpd.workers[1:]]
        wait_until(lambda: all(state_of(pid) == "S" for pid in others), "the others to run")
        wait_until(lambda: state_of(pausers[0].guardian) in "ZX", "the guardian's end")
        assert state_of(stopped) == "T"

    def test_no_pause_without_one(self, layout: Layout, httpd: Httpd, monkeypatch: pytest.MonkeyPatch) -> None:
        for program in ("/bin/false", "/nonexistent"):
            monkeypatch.setattr(sys, "executable", program)
            with pause.found(rules(httpd.name), layout) as found:
                assert found is not None
                with pytest.raises(Failed) as caught, pause.paused(found, rules(httpd.name), layout):
                    pytest.fail("the window opened")
            assert caught.value.problem == "no-guardian"
            assert httpd.is_running()
            assert not layout.pause_record.exists()
            assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


class TestLeftover:
    """When the guardian was killed as well."""

    @pytest.fixture
    def record(self, layout: Layout, httpd: Httpd, pausers: list[Pauser]) -> PauseRecord:
        """All stopped, nobody left, and the record of it."""
        pausers.append(Pauser(layout, httpd))
        pausers[0].kill_both()
        assert httpd.is_at_rest()
        record = records.read_pause(layout)
        assert record is not None
        return record

    def leave(self, layout: Layout, record: PauseRecord, **changes: Any) -> tuple[int, int]:
        """Resumes what a changed record says."""
        records.write_pause(layout, dataclasses.replace(record, **changes))
        return resume_leftover(layout)

    def test_nothing_is_left(self, layout: Layout) -> None:
        assert resume_leftover(layout) == (0, 0)

    def test_all_are_resumed_once(self, layout: Layout, httpd: Httpd, record: PauseRecord) -> None:
        assert resume_leftover(layout) == (4, record.pauser.pid)
        wait_until(httpd.is_running, "all to run")
        assert not layout.pause_record.exists()
        assert resume_leftover(layout) == (0, 0)

    def test_another_pause_resumes_them_first(self, layout: Layout, httpd: Httpd, record: PauseRecord) -> None:
        # Otherwise it would take them for stopped by somebody else, and leave them so.
        assert record
        with pause.found(rules(httpd.name), layout) as found:
            assert found is not None
            assert found.quarry.size == 4
        wait_until(httpd.is_running, "all to run")

    def test_a_number_that_another_process_has_now(self, layout: Layout, httpd: Httpd, record: PauseRecord) -> None:
        def later(identities: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(dataclasses.replace(item, start_time=item.start_time - 1) for item in identities)

        found = self.leave(layout, record, masters=later(record.masters), children=later(record.children), names=())
        assert found[0] == 0
        assert set(httpd.states().values()) == {"T"}
        assert not layout.pause_record.exists()

    def test_a_record_of_another_boot(self, layout: Layout, httpd: Httpd, record: PauseRecord) -> None:
        assert self.leave(layout, record, boot_id="another")[0] == 0
        assert set(httpd.states().values()) == {"T"}
        assert not layout.pause_record.exists()

    def test_children_that_were_forked_after_it_was_written(
        self, layout: Layout, httpd: Httpd, record: PauseRecord
    ) -> None:
        assert self.leave(layout, record, children=record.children[:1])[0] == 4
        wait_until(httpd.is_running, "all to run")

    def test_what_was_stopped_before_stays_so(self, layout: Layout, record: PauseRecord) -> None:
        before, *children = record.children
        assert self.leave(layout, record, children=tuple(children), already_stopped=(before,))[0] == 3
        assert state_of(before.pid) == "T"

    def test_what_runs_again_is_not_counted(self, layout: Layout, httpd: Httpd, record: PauseRecord) -> None:
        os.kill(httpd.master, signal.SIGCONT)
        wait_until(lambda: state_of(httpd.master) == "S", "the master to run")
        assert resume_leftover(layout) == (3, record.pauser.pid)

    def test_what_has_ended_since(self, layout: Layout, httpd: Httpd, record: PauseRecord) -> None:
        httpd.close()
        assert resume_leftover(layout) == (0, record.pauser.pid)
        assert not layout.pause_record.exists()

    def test_a_live_path_that_is_missing_between_two_renames_comes_back(
        self, layout: Layout, record: PauseRecord, tmp_path: Path
    ) -> None:
        old, new = tmp_path / ".outgoing", tmp_path / "live"
        (old / "page").mkdir(parents=True)
        undo = (PathSwap(How.TWICE, str(tmp_path / "staged"), str(new), TreeIdentity(0, 0), str(old)),)
        assert self.leave(layout, record, undo=undo)[0] == 4
        assert (new / "page").is_dir()
        old.mkdir()
        self.leave(layout, record, undo=undo)
        assert (new / "page").is_dir(), "nothing that is there is replaced"
        assert old.is_dir()

    def test_a_pause_that_goes_on_is_waited_for(self, layout: Layout, httpd: Httpd, pausers: list[Pauser]) -> None:
        pausers.append(Pauser(layout, httpd, 10.0))
        results: list[tuple[int, int]] = []
        thread = threading.Thread(target=lambda: results.append(resume_leftover(layout)))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert httpd.is_at_rest()
        assert pausers[0].finish() == 0
        thread.join()
        assert results[0][0] == 0

    def test_a_pauser_that_hangs_is_not_waited_for_for_ever(
        self, layout: Layout, httpd: Httpd, pausers: list[Pauser]
    ) -> None:
        pausers.append(Pauser(layout, httpd, 0.3))
        pausers[0].process.send_signal(signal.SIGSTOP)
        os.kill(pausers[0].guardian, signal.SIGKILL)
        wait_until(lambda: state_of(pausers[0].guardian) in "ZX", "the guardian's end")
        assert resume_leftover(layout)[0] == 4
        wait_until(httpd.is_running, "all to run")
        assert pausers[0].finish() == 0

    def test_a_record_that_nobody_understands(self, layout: Layout) -> None:
        layout.pause_record.write_text("half a rec")
        with pytest.raises(Failed) as caught:
            resume_leftover(layout)
        assert caught.value.problem == "bad-record"
        assert str(layout.pause_record) in caught.value.message

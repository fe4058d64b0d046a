"""Real process trees, stopped and resumed."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swapd.host import records
from swapd.host.files import locked
from swapd.model.config import Pause, PauseMode
from swapd.model.errors import Failed
from swapd.model.layout import Layout
from swapd.model.release import PauseCost, SiteName
from swapd.stages import pause
from tests.support.httpd import Httpd, pids_called, state_of, unique_name
from tests.support.waiting import wait_until

LONGEST = 5.0  # seconds: for tests in which nothing should come near it


@pytest.fixture
def httpd() -> Iterator[Httpd]:
    with Httpd(workers=3) as httpd:
        yield httpd


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    records.make_state_directories(layout, SiteName("shop"))
    return layout


def rules(name: str, longest: float = LONGEST) -> Pause:
    return Pause(PauseMode.ALWAYS, (name,), longest)


def pause_during(httpd: Httpd, layout: Layout, body: Callable[[], object], longest: float = LONGEST) -> PauseCost:
    """A pause of all of it; what it cost."""
    costs: list[PauseCost] = []
    with pause.found(rules(httpd.name, longest), layout) as found:
        assert found is not None
        with pause.paused(found, rules(httpd.name, longest), layout, ended=costs.append):
            body()
    return costs[0]


def test_all_are_seen_stopped_inside_and_run_afterwards(httpd: Httpd, layout: Layout) -> None:
    inside: list[dict[int, str]] = []
    cost = pause_during(httpd, layout, lambda: inside.append(httpd.states()))
    assert set(inside[0]) == {httpd.master, *httpd.workers}
    assert set(inside[0].values()) == {"T"}
    wait_until(httpd.is_running, "all to run")
    assert cost.processes == 4
    assert cost.duration_usec > 0
    assert not layout.pause_record.exists()


def test_busy_processes_are_seen_stopped_too(httpd: Httpd, layout: Layout) -> None:
    httpd.tell("busy 4")
    inside: list[bool] = []
    for _ in range(3):
        assert pause_during(httpd, layout, lambda: inside.append(httpd.is_at_rest())).processes == 8
        wait_until(httpd.is_running, "all to run")
    assert inside == [True] * 3


def test_what_is_written_down_before_the_first_stop(httpd: Httpd, layout: Layout) -> None:
    def look() -> None:
        record = records.read_pause(layout)
        assert record is not None
        assert [master.pid for master in record.masters] == [httpd.master]
        assert {child.pid for child in record.children} == set(httpd.workers)
        assert record.pauser.pid == os.getpid()
        assert record.names == (httpd.name,)
        assert record.max == LONGEST
        assert record.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    pause_during(httpd, layout, look)


def test_nothing_runs_means_nothing_to_pause(layout: Layout) -> None:
    with pause.found(rules(unique_name()), layout) as found:
        assert found is None


@pytest.mark.parametrize("which", ["worker", "master", "all"])
def test_what_somebody_else_stopped_stays_stopped(httpd: Httpd, layout: Layout, which: str) -> None:
    stopped = {"worker": httpd.workers[:1], "master": [httpd.master], "all": [*httpd.workers, httpd.master]}[which]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(state_of(pid) == "T" for pid in stopped), "them to stop")
    if which == "all":
        with pause.found(rules(httpd.name), layout) as found:
            assert found is None
    else:
        inside: list[bool] = []
        cost = pause_during(httpd, layout, lambda: inside.append(httpd.is_at_rest()))
        assert inside == [True]
        assert cost.processes == 4 - len(stopped)
    running = {httpd.master, *httpd.workers} - set(stopped)
    wait_until(lambda: all(state_of(pid) == "S" for pid in running), "the others to run")
    assert all(state_of(pid) == "T" for pid in stopped)


def test_one_that_exits_while_its_master_is_stopped_does_not_hang(httpd: Httpd, layout: Layout) -> None:
    with pause.found(rules(httpd.name), layout) as found:
        assert found is not None
        os.kill(httpd.workers[0], signal.SIGKILL)
        wait_until(lambda: state_of(httpd.workers[0]) == "Z", "a zombie")
        with pause.paused(found, rules(httpd.name), layout):
            assert httpd.states() == {
                httpd.master: "T",
                httpd.workers[0]: "Z",
                httpd.workers[1]: "T",
                httpd.workers[2]: "T",
            }
    wait_until(httpd.is_running, "all to run")


def test_a_restart_between_finding_and_stopping_is_noticed(layout: Layout) -> None:
    """The master that runs by then is not known: nothing may be swapped under it."""
    name = unique_name()
    with Httpd(workers=2, name=name) as old, pause.found(rules(name), layout) as found:
        assert found is not None
        old.close()
        with Httpd(workers=2, name=name) as new:
            with pytest.raises(pause.Restarted), pause.paused(found, rules(name), layout):
                pytest.fail("the window opened")
            assert state_of(new.master) == "S"
    assert not layout.pause_record.exists()


def test_children_that_are_forked_meanwhile_are_caught(httpd: Httpd, layout: Layout) -> None:
    costs: list[PauseCost] = []
    with pause.found(rules(httpd.name), layout) as found:
        assert found is not None
        assert found.quarry.size == 4
        late = httpd.tell("fork 3")
        with pause.paused(found, rules(httpd.name), layout, ended=costs.append):
            states = httpd.states()
            assert states.keys() >= {*late}
            assert set(states.values()) == {"T"}
    assert costs[0].processes == 7
    wait_until(httpd.is_running, "all to run")


def test_children_of_children_are_stopped(httpd: Httpd, layout: Layout) -> None:
    family = httpd.tell("family 3")
    cost = pause_during(httpd, layout, lambda: wait_until(httpd.is_at_rest, "rest", 0))
    assert cost.processes == 4 + len(family)


def test_a_server_that_forks_all_the_time_is_all_at_rest(httpd: Httpd, layout: Layout) -> None:
    # Children exit and are forked at every moment: zombies, new ones, and some that are neither yet.
    httpd.tell("churn 8")
    for _ in range(6):
        seen: list[dict[int, str]] = []

        def look(seen: list[dict[int, str]] = seen) -> None:
            seen.extend(httpd.states() for _ in range(3))

        pause_during(httpd, layout, look)
        assert set().union(*(states.values() for states in seen)) <= {"T", "Z", "X"}, seen
        wait_until(lambda: "T" not in httpd.states().values(), "all to run")


def test_a_program_that_a_page_started_runs_on(httpd: Httpd, layout: Layout) -> None:
    name = unique_name()
    (alien,) = httpd.tell(f"alien {name}")
    wait_until(lambda: pids_called(name) == [alien], "the program")
    inside: list[str] = []
    pause_during(httpd, layout, lambda: inside.append(state_of(alien)))
    assert inside == ["S"]


def test_one_that_does_not_stop_in_time_ends_the_pause(httpd: Httpd, layout: Layout, tmp_path: Path) -> None:
    # Its posix_spawn waits for a child inside vfork(2): in state D, where no signal reaches it.
    os.mkfifo(tmp_path / "fifo")
    (stuck,) = httpd.tell(f"stuck {tmp_path / 'fifo'}")
    wait_until(lambda: state_of(stuck) == "D", "a process in vfork")
    begin = time.monotonic()
    with pytest.raises(Failed) as caught:
        pause_during(httpd, layout, lambda: pytest.fail("the window opened"), longest=0.2)
    assert caught.value.problem == "pause-timed-out"
    assert str(stuck) in caught.value.message
    assert time.monotonic() - begin > 0.2
    wait_until(httpd.is_running, "all to run")
    assert not layout.pause_record.exists()


def test_what_is_raised_inside_resumes_all(httpd: Httpd, layout: Layout) -> None:
    with pytest.raises(OSError, match="cross-device"):
        pause_during(httpd, layout, lambda: os.rename("/proc/version", "/dev/shm/version"))
    wait_until(httpd.is_running, "all to run")
    assert not layout.pause_record.exists()


def test_a_signal_waits_until_all_are_resumed(httpd: Httpd, layout: Layout) -> None:
    came: list[bool] = []
    old = signal.signal(signal.SIGTERM, lambda *_: came.append(httpd.is_at_rest()))
    try:

        def body() -> None:
            signal.raise_signal(signal.SIGTERM)  # to this thread, as swapd has no other
            assert came == []
            assert not gc.isenabled()

        pause_during(httpd, layout, body)
        assert came == [False]
        assert gc.isenabled()
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.signal(signal.SIGTERM, old)


def test_one_pause_at_a_time(httpd: Httpd, layout: Layout) -> None:
    order: list[str] = []
    entered = threading.Event()

    def second() -> None:
        entered.wait()
        with pause.found(rules(httpd.name), layout):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()

    def body() -> None:
        entered.set()
        time.sleep(0.1)  # long enough for the other to come in, if it could
        order.append("first")

    pause_during(httpd, layout, body)
    thread.join()
    assert order == ["first", "second"]


def test_a_pause_that_does_not_end_is_an_error_of_the_host(
    httpd: Httpd, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pause, "LOCK_PATIENCE", 0.05)
    with (
        locked(layout.pause_lock, "a pause"),
        pytest.raises(Failed) as caught,
        pause.found(rules(httpd.name), layout),
    ):
        pass
    assert caught.value.problem == "pause-busy"
    assert httpd.is_running()


def test_many_processes(layout: Layout) -> None:
    with Httpd(workers=60) as httpd:
        inside: list[bool] = []
        cost = pause_during(httpd, layout, lambda: inside.append(httpd.is_at_rest()))
        assert inside == [True]
        assert cost.processes == 61
        wait_until(httpd.is_running, "all to run")


def test_two_servers_are_paused_together(httpd: Httpd, layout: Layout) -> None:
    with Httpd(workers=2, name=httpd.name) as other:
        assert pause_during(httpd, layout, lambda: wait_until(other.is_at_rest, "rest", 0)).processes == 7
        wait_until(httpd.is_running, "all to run")


@pytest.mark.root
def test_what_may_not_be_signalled_is_told_before_anything_stops(httpd: Httpd, layout: Layout) -> None:
    for path in (layout.root, *layout.root.parents):
        if path.owner() == "root" and str(path).startswith("/tmp/"):
            path.chmod(0o755)
    for path in layout.root.rglob("*"):
        path.chmod(0o777)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.setresuid(65534, 65534, 65534)
            try:
                with pause.found(rules(httpd.name), layout):
                    os.write(writing, b"found")
            except Failed as error:
                os.write(writing, error.problem.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    assert os.read(reading, 100) == b"may-not-signal"
    os.close(reading)
    assert httpd.is_running()

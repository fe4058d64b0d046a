"""Finding, holding and signalling real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapd.host.masters import find_masters, find_overlooked, is_in_own_namespace
from swapd.host.processes import Parent, Process, child_pids, descendants, open_named, parse_stat, read_status
from tests.support.httpd import Httpd, pids_called, unique_name
from tests.support.waiting import wait_until


@pytest.fixture
def httpd() -> Iterator[Httpd]:
    with Httpd(workers=3) as httpd:
        yield httpd


class TestStat:
    @given(
        st.binary(max_size=30).filter(lambda name: b"\n" not in name),
        st.sampled_from("RSDTtZX"),
        st.integers(0, 1 << 22),
        st.integers(0, 1 << 60),
    )
    def test_a_name_may_hold_anything(self, name: bytes, state: str, parent: int, start: int) -> None:
        fields = [str(parent), *["0"] * 15, "7", "0", str(start), *["0"] * 30]
        status = parse_stat(b"12 (" + name + b") " + f"{state} {' '.join(fields)}\n".encode())
        assert (status.state, status.parent, status.threads, status.start_time) == (state, parent, 7, start)
        assert status.name == name.decode("utf-8", "replace")

    def test_our_own(self) -> None:
        status = read_status(os.getpid())
        assert status is not None
        assert (status.state, status.parent) == ("R", os.getppid())

    def test_of_nobody(self) -> None:
        assert read_status(1 << 30) is None


# Children that are gone as soon as they are there.
MAYFLIES = "import os\nwhile True:\n    if not (pid := os.fork()): os._exit(0)\n    os.waitpid(pid, 0)"
ENOUGH = 50_000  # looks: in some of so many, one goes between its pidfd and its stat


class TestProcess:
    def test_one_that_is_going_leaves_no_descriptor(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        with subprocess.Popen([sys.executable, "-c", MAYFLIES]) as parent:
            try:
                for _ in range(ENOUGH):
                    for pid in child_pids(parent.pid):
                        with contextlib.suppress(ProcessLookupError):
                            Process(pid).close()
            finally:
                parent.kill()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_states_as_they_come(self, httpd: Httpd) -> None:
        process = Process(httpd.workers[0])
        try:
            assert process.name == httpd.name
            wait_until(lambda: process.state() == "S", "an idle worker")
            assert not process.is_at_rest()
            process.send(signal.SIGSTOP)
            wait_until(lambda: process.state() == "T", "a stopped worker")
            assert process.is_at_rest()
            process.send(signal.SIGCONT)
            wait_until(lambda: process.state() == "S", "a running worker")
            process.send(signal.SIGKILL)
            # Its master does not wait for it.
            wait_until(lambda: process.state() == "Z", "a zombie")
            assert process.is_at_rest()
            process.send(signal.SIGSTOP)  # to one that has ended: nothing
        finally:
            process.close()

    def test_one_that_is_gone(self) -> None:
        child = subprocess.Popen(["sleep", "infinity"])
        process = Process(child.pid)
        try:
            child.kill()
            child.wait()
            assert process.state() == "X"
            assert process.is_at_rest()
            assert process.may_signal()
            process.send(signal.SIGCONT)
        finally:
            process.close()
        with pytest.raises(ProcessLookupError):
            Process(child.pid)

    def test_identity_tells_a_process_from_a_later_one(self, httpd: Httpd) -> None:
        first, second = Process(httpd.workers[0]), Process(httpd.master)
        try:
            assert first.identity.pid == httpd.workers[0]
            assert first.identity != second.identity
            assert second.identity.start_time <= first.identity.start_time
            status = read_status(httpd.master)
            assert status is not None
            assert status.start_time == second.identity.start_time
        finally:
            first.close()
            second.close()

    def test_a_thread_that_runs_is_no_rest(self) -> None:
        program = "import threading; t = threading.Thread(target=input); t.start(); print(flush=True); t.join()"
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            process = Process(child.pid)
            try:
                assert process.threads == 2
                assert not process.is_at_rest()
                process.send(signal.SIGSTOP)
                wait_until(process.is_at_rest, "every thread to stop")
                process.send(signal.SIGCONT)
                wait_until(lambda: not process.is_at_rest(), "the threads to go on")
            finally:
                process.close()

    def test_a_thread_that_came_later_is_seen_too(self) -> None:
        program = (
            "import threading, time\n"
            "def spin():\n"
            "    while True: pass\n"
            "input(); threading.Thread(target=spin, daemon=True).start(); print(flush=True); time.sleep(1000)"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            process = Process(child.pid)
            try:
                assert process.threads == 1
                child.stdin.write(b"\n")
                child.stdin.flush()
                child.stdout.readline()
                process.send(signal.SIGSTOP)
                wait_until(process.is_at_rest, "every thread to stop")
                states = {path.read_text().split()[2] for path in Path(f"/proc/{child.pid}/task").glob("*/stat")}
                assert states == {"T"}
                assert len(process._threads) == 2
            finally:
                process.close()
                child.kill()

    @pytest.mark.root
    def test_one_that_is_not_ours(self, httpd: Httpd) -> None:
        pid = os.fork()
        if pid == 0:
            os.setresuid(65534, 65534, 65534)
            process = Process(httpd.master)
            os._exit(0 if not process.may_signal() and process.name == httpd.name else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class TestTree:
    def pids(self, found: list[Process]) -> set[int]:
        for process in found:
            process.close()
        return {process.identity.pid for process in found}

    def test_children_are_enumerated_by_parentage(self, httpd: Httpd) -> None:
        assert sorted(child_pids(httpd.master)) == sorted(httpd.workers)
        assert child_pids(1 << 30) == []
        assert self.pids(descendants([httpd.master], [httpd.name], ())) == set(httpd.workers)
        known = set(httpd.workers[:2])
        assert self.pids(descendants([httpd.master], [httpd.name], known)) == {httpd.workers[2]}

    def test_children_of_children(self, httpd: Httpd) -> None:
        parent, *children = httpd.tell("family 2")
        assert self.pids(descendants([httpd.master], [httpd.name], ())) == {*httpd.workers, parent, *children}
        below_master, below_parent = child_pids(httpd.master), child_pids(parent)
        assert self.pids(open_named(below_master, [httpd.name], ())) == {*httpd.workers, parent}
        both = [*below_master, *below_parent]
        assert self.pids(open_named(both, [httpd.name], {parent})) == {*httpd.workers, *children}

    def test_more_children_than_one_read_of_the_kernels_list_gives(self) -> None:
        with Httpd(workers=900) as httpd:
            assert set(child_pids(httpd.master)) == set(httpd.workers)
            assert self.pids(descendants([httpd.master], [httpd.name], ())) == set(httpd.workers)

    def test_children_are_told_again_only_when_there_are_others(self, httpd: Httpd) -> None:
        master = Process(httpd.master)
        parent = Parent(master)
        try:
            assert set(parent.changed_child_pids()) == set(httpd.workers)
            assert parent.changed_child_pids() == []
            late = httpd.tell("fork 2")
            assert set(parent.changed_child_pids()) == {*httpd.workers, *late}
            assert parent.changed_child_pids() == []
        finally:
            parent.close()
            master.close()

    def test_a_program_that_a_page_started_is_not_httpds_own(self, httpd: Httpd) -> None:
        name = unique_name()
        (alien,) = httpd.tell(f"alien {name}")
        wait_until(lambda: pids_called(name) == [alien], "the program")
        assert alien not in self.pids(descendants([httpd.master], [httpd.name], ()))
        assert alien in self.pids(descendants([httpd.master], [httpd.name, name], ()))

    def test_we_ourselves_are_never_among_them(self) -> None:
        own = read_status(os.getpid())
        assert own is not None
        assert os.getpid() not in self.pids(descendants([os.getppid()], [own.name], ()))
        assert os.getpid() not in find_masters([own.name])


class TestMasters:
    def test_only_the_master_is_found(self, httpd: Httpd) -> None:
        assert find_masters([httpd.name, "nobody-has-this"]) == [httpd.master]
        assert find_masters([unique_name()]) == []

    def test_two_servers_are_two_masters(self, httpd: Httpd) -> None:
        with Httpd(workers=1, name=httpd.name) as other:
            assert find_masters([httpd.name]) == sorted([httpd.master, other.master])

    def test_one_that_is_stopped_is_found(self, httpd: Httpd) -> None:
        os.kill(httpd.master, signal.SIGSTOP)
        assert find_masters([httpd.name]) == [httpd.master]

    def test_only_that_users(self, httpd: Httpd) -> None:
        own = subprocess.check_output(["id", "-un"], text=True).strip()
        assert find_masters([httpd.name], own) == [httpd.master]
        assert find_masters([httpd.name], "nobody-has-this") == []

    def test_a_long_name_is_one_name_everywhere(self, tmp_path: Path) -> None:
        # The kernel keeps 15 bytes of a program's name; psutil completes it from the command line.
        name = unique_name() + "-and-more"
        (tmp_path / name).symlink_to("/bin/bash")
        os.mkfifo(tmp_path / "fifo")
        program = "{ read x < fifo; } & { read x < fifo; } & wait"
        with subprocess.Popen([tmp_path / name, "-c", program], cwd=tmp_path, start_new_session=True) as master:
            try:
                children = set(wait_until(lambda: len(child_pids(master.pid)) == 2 and child_pids(master.pid), "both"))
                for configured in (name, name[:15]):
                    assert find_masters([configured]) == [master.pid]
                    found = descendants([master.pid], [configured], ())
                    assert {process.identity.pid for process in found} == children
                    for process in found:
                        process.close()
            finally:
                os.killpg(master.pid, signal.SIGKILL)

    @pytest.mark.root
    def test_a_container_keeps_its_own(self) -> None:
        # In a PID namespace of its own, as a container's httpd is; seen from here under another number.
        name = unique_name()
        program = f"import ctypes; ctypes.CDLL(None).prctl(15, b'{name}'); print(flush=True); input()"
        with subprocess.Popen(
            ["unshare", "--pid", "--fork", sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as container:
            assert container.stdout is not None
            container.stdout.readline()
            (inside,) = child_pids(container.pid)
            assert pids_called(name) == [inside]
            assert not is_in_own_namespace(inside)
            assert is_in_own_namespace(container.pid)
            assert find_masters([name]) == []
            assert "PID namespace" in find_overlooked([name])[inside]

    @pytest.mark.root
    def test_what_some_user_called_httpd_is_left_alone(self) -> None:
        name = unique_name()
        program = (
            f"import ctypes, os; ctypes.CDLL(None).prctl(15, b'{name}'); os.setresuid(54321, 54321, 54321)\n"
            "print(flush=True); input()"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            assert find_masters([name]) == []
            assert find_overlooked([name]) == {child.pid: "it runs as user 54321"}
            assert find_masters([name], "54321") == [child.pid]
            assert find_overlooked([name], "54321") == {}

"""httpd's listening sockets as the kernel tells of them: real sockets, real connections, a namespace of its own."""

from __future__ import annotations

import contextlib
import errno
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from swapd.host import listeners as module
from swapd.host.listeners import Counters, Listeners
from swapd.host.quarry import Quarry, find_quarry, warn_of_full_queues
from swapd.model.config import Pause, PauseMode
from swapd.model.layout import Layout
from swapd.model.release import ListenerQueue, PauseCost
from swapd.stages import pause
from tests.support.httpd import Httpd
from tests.unit.test_pause import httpd, layout

__all__ = ["httpd", "layout"]

ADDRESSES = (("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"))
OWN_NETWORK = ("unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
CONNECT = (
    "import socket, sys\n"
    "held = [socket.socket() for _ in range(int(sys.argv[2]))]\n"
    "for item in held: item.setblocking(False); item.connect_ex(('127.0.0.1', int(sys.argv[1])))\n"
    "print(flush=True)\n"
    "input()"
)


def listen(httpd: Httpd, backlog: int) -> dict[str, tuple[str, int]]:
    """What it listens on from now on: as swapd names it, and as one connects to it."""
    ports = httpd.tell(f"listen {backlog}")
    return {f"{shown}:{port}": (address, port) for (address, shown), port in zip(ADDRESSES, ports, strict=False)}


@contextlib.contextmanager
def connections(place: tuple[str, int], count: int) -> Iterator[None]:
    """As many come in as there is room for; the others try, for as long as this lasts."""
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            client.setblocking(False)
            assert client.connect_ex(place) in (0, errno.EINPROGRESS)
        yield


@contextlib.contextmanager
def looking(httpd: Httpd) -> Iterator[Listeners]:
    listeners = Listeners([httpd.master])
    try:
        yield listeners
    finally:
        listeners.close()


def asked(listeners: Listeners) -> dict[str, tuple[int, int]]:
    """How many wait on each listener now, and how many may."""
    listeners.ask()
    return {queue.listener: (queue.queued, queue.limit) for queue in listeners.queues()}


class TestQueues:
    def test_what_waits_is_counted_on_each_listener(self, httpd: Httpd) -> None:
        few, many = listen(httpd, 3), listen(httpd, 7)
        with looking(httpd) as listeners, contextlib.ExitStack() as stack:
            assert {queue.listener: (queue.queued, queue.limit) for queue in listeners.before} == (
                dict.fromkeys(few, (0, 3)) | dict.fromkeys(many, (0, 7))
            )
            expected = {}
            for count, (name, place) in enumerate({**few, **many}.items(), 1):
                stack.enter_context(connections(place, count))
                expected[name] = (count, 3 if name in few else 7)
            assert asked(listeners) == expected
        with looking(httpd) as listeners:
            assert asked(listeners).keys() == expected.keys(), "what was closed was closed by the clients"

    def test_the_queues_are_those_of_the_moment_when_it_was_asked(self, httpd: Httpd) -> None:
        name, place = next(iter(listen(httpd, 5).items()))
        with looking(httpd) as listeners, connections(place, 2):
            listeners.ask()
            with connections(place, 3):
                assert next(queue for queue in listeners.queues() if queue.listener == name).queued == 2
                assert asked(listeners)[name] == (5, 5)

    def test_many_listeners_come_whole(self, httpd: Httpd) -> None:
        places = {name: place for _ in range(100) for name, place in listen(httpd, 1).items()}
        with looking(httpd) as listeners, contextlib.ExitStack() as stack:
            assert {queue.listener for queue in listeners.before} == places.keys()
            for place in places.values():
                stack.enter_context(connections(place, 1))
            assert asked(listeners) == dict.fromkeys(places, (1, 1))

    def test_those_of_other_processes_are_not_told(self, httpd: Httpd) -> None:
        own = listen(httpd, 4)
        with Httpd(workers=1) as other, socket.create_server(("127.0.0.1", 0)), looking(httpd) as listeners:
            foreign = listen(other, 4)
            assert asked(listeners).keys() == own.keys()
            with looking(other) as others:
                assert asked(others).keys() == foreign.keys()

    def test_one_that_listens_on_nothing_has_no_queues(self, httpd: Httpd) -> None:
        with socket.create_server(("127.0.0.1", 0)), looking(httpd) as listeners:
            assert listeners.before == ()
            assert asked(listeners) == {}

    def test_one_that_is_gone(self) -> None:
        with Httpd(workers=0) as httpd:
            pass
        with looking(httpd) as listeners:
            assert (listeners.before, asked(listeners), listeners.counters()) == ((), {}, Counters(0, 0, 0))

    @pytest.mark.parametrize(
        ("constant", "value"),
        [
            ("NETLINK_SOCK_DIAG", 31),  # a protocol that no kernel has: as one without sock_diag
            ("SOCK_DIAG_BY_FAMILY", 99),  # a request that none knows: as one without inet_diag
        ],
    )
    def test_a_host_that_does_not_tell(
        self, httpd: Httpd, layout: Layout, monkeypatch: pytest.MonkeyPatch, constant: str, value: int
    ) -> None:
        listen(httpd, 4)
        monkeypatch.setattr(module, constant, value)
        with looking(httpd) as listeners:
            assert (listeners.before, asked(listeners)) == ((), {})
        assert pause_with_visitors(httpd, layout).queues == ()


def pause_with_visitors(httpd: Httpd, layout: Layout, *visitors: tuple[tuple[str, int], int]) -> PauseCost:
    """A pause in which so many come to each place."""
    costs: list[PauseCost] = []
    rules = Pause(PauseMode.ALWAYS, (httpd.name,), 5.0)
    with contextlib.ExitStack() as stack, pause.found(rules, layout) as found:
        assert found is not None
        with pause.paused(found, rules, layout, ended=costs.append):
            for place, count in visitors:
                stack.enter_context(connections(place, count))
    return costs[0]


class TestCost:
    def test_what_a_pause_made_wait_and_what_it_turned_away(self, httpd: Httpd, layout: Layout) -> None:
        (name, place), *others = listen(httpd, 2).items()
        cost = pause_with_visitors(httpd, layout, (place, 8))
        # A queue holds one more than its limit; the kernel compares before it adds.
        assert cost.queues == (ListenerQueue(name, 3, 2), *(ListenerQueue(other, 0, 2) for other, _ in others))
        assert cost.queued == 3
        assert cost.overflowed >= 5  # other processes of this machine may be turned away, too
        assert cost.dropped >= cost.overflowed

    def test_what_finds_room_is_not_turned_away(self, httpd: Httpd, layout: Layout) -> None:
        place = next(iter(listen(httpd, 20).values()))
        assert pause_with_visitors(httpd, layout, (place, 8)).queued == 8


@pytest.mark.root
class TestAnotherNetwork:
    """httpd's own network namespace, as in a container or a unit with PrivateNetwork=."""

    @pytest.fixture
    def httpd(self) -> Iterator[Httpd]:
        with Httpd(workers=1, prefix=OWN_NETWORK) as httpd:
            yield httpd

    def test_its_counters_are_told_and_its_queues_are_not(self, httpd: Httpd, layout: Layout) -> None:
        place = next(iter(listen(httpd, 1).values()))
        command = ["nsenter", "-t", str(httpd.master), "-n", sys.executable, "-c", CONNECT, str(place[1]), "5"]
        with looking(httpd) as listeners:
            assert listeners.before == ()
            assert listeners.counters() == Counters(0, 0, 0), "nobody else is there"
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as visitors:
                assert visitors.stdout is not None
                visitors.stdout.readline()
                counters = listeners.counters()
                visitors.communicate(b"\n")
            assert counters.accepted == 2
            assert counters.drops >= counters.overflows >= 3
            assert asked(listeners) == {}
        assert pause_with_visitors(httpd, layout).queues == ()

    def test_each_namespace_is_counted_once(self, httpd: Httpd) -> None:
        place = next(iter(listen(httpd, 9).values()))
        command = ["nsenter", "-t", str(httpd.master), "-n", sys.executable, "-c", CONNECT, str(place[1]), "4"]
        subprocess.run(command, input=b"\n", stdout=subprocess.DEVNULL, check=True)
        listeners = Listeners([httpd.master, *httpd.workers])
        assert listeners.counters().accepted == 4
        listeners.close()


class TestWarning:
    """Connections that come in faster than the queue could hold them for the longest pause."""

    @pytest.fixture
    def quarry(self, httpd: Httpd) -> Iterator[Quarry]:
        listen(httpd, 50)
        listen(httpd, 10)
        quarry = find_quarry(Pause(PauseMode.ALWAYS, (httpd.name,), 1.0), present=100.0)
        yield quarry
        quarry.close()

    @pytest.mark.parametrize(
        ("count", "seconds", "longest", "is_warned"),
        [
            (11, 1.0, 1.0, True),
            (10, 1.0, 1.0, False),
            (110, 10.0, 1.0, True),
            (100, 10.0, 1.0, False),
            (100, 10.0, 1.1, True),
            (1000, 1.0, 0.01, False),
            (0, 1.0, 10.0, False),
            (1000, 0.0, 10.0, False),  # no time has passed: there is no rate
        ],
    )
    def test_it_is_the_least_queue_that_counts(
        self, quarry: Quarry, count: int, seconds: float, longest: float, is_warned: bool
    ) -> None:
        counters = Counters(0, 0, quarry.counters.accepted + count)
        warn_of_full_queues(quarry, counters, quarry.found_at + seconds, longest)
        assert len(quarry.warnings) == is_warned
        if is_warned:
            assert "holds 10:" in quarry.warnings[0].message
            assert f"about {count / seconds:.0f} connections" in quarry.warnings[0].message

    def test_without_a_listener_there_is_nothing_to_warn_of(self, httpd: Httpd) -> None:
        quarry = find_quarry(Pause(PauseMode.ALWAYS, (httpd.name,), 1.0), present=0.0)
        quarry.close()
        warn_of_full_queues(quarry, Counters(0, 0, quarry.counters.accepted + 10**6), 1.0, 1.0)
        assert quarry.warnings == []

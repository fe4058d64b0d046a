"""httpd is restarted, reloaded, crashes, and grows from 5 to 400 children while swapd deploys again and again.

Each deployment goes live. No process is stopped for longer than ``max`` and a tenth of a second, the live path is whole
at every look, and in the end Apache is up and serves the last release.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.host.conftest import Expected
from tests.host.field import STRATEGIES, Field, opened
from tests.host.looks import unit_pids
from tests.host.machine import wait_until
from tests.host.visitors import Load, fetch
from tests.host.webhost import MPMS, WebHost
from tests.host.whole import watched
from tests.support.httpd import state_of

EACH = 3  # deployments with each disturbance
TAKES = 0.4  # seconds; about as long as a deployment takes
CHILDREN = 400
# Apache's own units are started again whatever a test does to them.
APACHE = "[Unit]\nStartLimitIntervalSec=0\n"
SCALED = f"""
StartServers 5
MinSpareServers 5
MaxSpareServers {CHILDREN}
ServerLimit {CHILDREN + 50}
MaxRequestWorkers {CHILDREN + 50}
"""


@pytest.fixture(scope="module")
def field(base: Path, package: Path, mpm: str) -> Iterator[Field]:
    with opened(base, package, mpm) as field:
        field.web.host.write("/etc/systemd/system/apache2.service.d/tests.conf", APACHE)
        field.web.run("systemctl", "daemon-reload")
        yield field


@pytest.fixture(scope="module")
def web(field: Field) -> WebHost:
    """The host, for what no test may leave behind."""
    return field.web


def kill(*pids: int) -> None:
    for pid in filter(None, pids):  # to 0 would be to ourselves
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def restart(field: Field) -> None:
    field.web.run("systemctl", "restart", "--no-block", "apache2")


def reload(field: Field) -> None:
    field.web.run("systemctl", "reload", "--no-block", "apache2")


def graceful(field: Field) -> None:
    field.web.host.run("apache2ctl", "graceful", check=False)  # there may be none to tell it to, amid a restart


def crash(field: Field) -> None:
    """The master dies, and takes its children with it; systemd starts another."""
    kill(field.master())


def crash_children(field: Field) -> None:
    """They die, as by a fault of a module of theirs; the master makes others."""
    master = field.master()
    kill(*(pid for pid in unit_pids(field.web.host, "apache2") if pid != master))


DISTURBANCES = (restart, reload, graceful, crash, crash_children)

each_mpm = pytest.mark.parametrize("mpm", MPMS, scope="module")
each_disturbance = pytest.mark.parametrize("disturb", DISTURBANCES, ids=lambda it: it.__name__)


def wait_serving(field: Field, strategy: str) -> None:
    """Until Apache is up and serves the site's last release."""
    page = field.content[strategy]["index.html"].encode()

    def is_served() -> bool:
        with contextlib.suppress(OSError):
            return fetch(field.web.host, field.sites[strategy].domain, "index.html").body == page
        return False

    wait_until(is_served, f"{strategy} is served", explain=field.describe)


@contextlib.contextmanager
def disturbed(field: Field) -> Iterator[None]:
    """In the end nothing was ever stopped for too long or broken, and every site is served."""
    field.stops.reset()
    with watched(field) as broken:
        yield
    assert not broken, broken[:3]
    longest, _ = field.check_stops()
    for strategy in STRATEGIES:
        wait_serving(field, strategy)
    print(f"stopped for at most {longest:.3f} s")


@each_mpm
@each_disturbance
def test_while_it_deploys(field: Field, web: WebHost, disturb: Callable[[Field], None]) -> None:
    """At a random moment of each deployment."""
    del web
    moments = random.Random(disturb.__name__)
    with disturbed(field):
        for strategy in STRATEGIES * EACH:
            tarball, content = field.new_release(strategy)
            dropped = field.drop(strategy, tarball)
            time.sleep(moments.uniform(0, TAKES))  # a random moment is the point
            disturb(field)
            field.wait_live(strategy, dropped, content)
            field.check_tidy(strategy)


@each_mpm
@each_disturbance
def test_while_all_of_it_is_stopped(field: Field, web: WebHost, disturb: Callable[[Field], None]) -> None:
    """Right before the swap: whatever signal httpd is sent takes effect once it is resumed."""
    strategy = "rename"
    with disturbed(field):
        tarball, content = field.new_release(strategy)
        master = field.master()
        field.hook.hold(f"rename www/{strategy} → {strategy}.releases/.outgoing-… #1")
        dropped = field.drop(strategy, tarball)
        held = field.hook.wait_held()
        assert {state_of(pid) for pid in unit_pids(web.host, "apache2")} <= set("TZX")
        disturb(field)
        if disturb is restart:
            wait_until(
                lambda: "deactivating" in web.run("systemctl", "show", "--property=ActiveState", "apache2"),
                "the restart has begun",
            )
        if disturb is crash:
            wait_until(lambda: state_of(master) in "ZX", "the master's end")
        held.release()
        field.wait_live(strategy, dropped, content)
        field.check_tidy(strategy)
        if disturb in (restart, crash):
            wait_until(lambda: field.master() not in (0, master), "another master", explain=field.describe)
        else:
            assert field.master() == master


@pytest.mark.parametrize("mpm", ["prefork"], scope="module")
def test_from_5_to_400_children(field: Field, web: WebHost, expected: Expected) -> None:
    """By visitors who hold on to a child each; meanwhile others come and go."""
    expected.warning(MESSAGE="it would overflow in a pause")  # where all of them come within a second
    web.host.write("/etc/apache2/mods-available/mpm_prefork.conf", SCALED)
    # A visitor may take a while to say what he wants.
    web.host.write("/etc/apache2/conf-enabled/tests.conf", "RequestReadTimeout header=0\n")
    web.run("systemctl", "restart", "apache2")
    sizes = []
    with disturbed(field), contextlib.ExitStack() as stack:
        load = stack.enter_context(Load(web.host, field.sites["exchange"].domain))
        for _ in range(CHILDREN):
            visitor = stack.enter_context(web.host.in_network(lambda: socket.create_connection(("127.0.0.1", 80))))
            visitor.sendall(b"GET /")
        while not sizes or sizes[-1] < CHILDREN:
            for strategy in STRATEGIES:
                field.deploy(strategy)
            sizes.append(len(unit_pids(web.host, "apache2")))
    print(f"children at each deployment: {sizes}")
    assert sizes[0] < CHILDREN / 2, "it grew before anything was deployed"
    load.assert_served(field.known)

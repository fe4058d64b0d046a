"""Many tarballs that are dropped at once: all end, in the order in which they came, none is lost, each costs the same.

What would cost each the more the more of them wait is a listing of the drop directory: so there is none for each.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from tests.support.listings import Listings
from tests.support.sites import Scratch
from tests.support.tarballs import pack, site_content, write_sidecar
from tests.support.trees import texts
from tests.support.waiting import wait_until

BAD = 17  # every so-manieth is none
# Listings of the drop directory by the daemon and by its worker: at the beginning, at the end, and now and then; and by
# the daemon after so many events that some may be lost, which is less often than once for ten tarballs.
LISTINGS, FEW = 15, 10


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_all_end_in_their_order_and_each_costs_the_same(
    scratch: Scratch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    incoming = scratch.add_site(keep=3)
    listings = Listings(tmp_path / "hook", incoming, monkeypatch)
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    names = [f"many-{number:04}.tar.gz" for number in range(count)]
    for number, name in enumerate(names):
        content = b"no tarball" if number % BAD == BAD - 1 else pack(site_content(name), name)
        (prepared / name).write_bytes(content)
        write_sidecar(prepared / name)
    for name in names:
        # The sidecar first, so that each is complete as soon as it has its name.
        os.rename(prepared / f"{name}.sha256", incoming / f"{name}.sha256")
        os.rename(prepared / name, incoming / name)
    begin = time.monotonic()
    daemon = scratch.start_daemon()
    outcome = re.compile(r"shop: (many-\d+)@[0-9a-f]{12} (is live|rejected)")

    def told() -> list[tuple[str, str]]:
        return outcome.findall(daemon.log())

    wait_until(lambda: len(told()) >= count, "all outcomes", patience=60 + count)
    took = time.monotonic() - begin
    listed = sum(listings.by_process().values())
    print(f"{count} tarballs in {took:.0f} s, {took / count:.3f} s each; {listed} listings of them")
    assert 0 < listed <= LISTINGS + count / FEW, listings.by_process()
    expected = [
        (name.removesuffix(".tar.gz"), "rejected" if number % BAD == BAD - 1 else "is live")
        for number, name in enumerate(names)
    ]
    assert told() == expected
    last = next(name for name in reversed(names) if names.index(name) % BAD != BAD - 1)
    wait_until(lambda: not (incoming / last).exists(), "the last upload to be removed")
    assert texts(scratch.live()) == site_content(last)
    left = {path.name for path in incoming.glob("many-*.tar.gz")}
    assert left == {name for number, name in enumerate(names) if number % BAD == BAD - 1}, "what was rejected stays"
    state = scratch.state()
    assert state.live is not None
    assert state.live.release.startswith(last.removesuffix(".tar.gz"))
    wait_until(lambda: len(scratch.state().previous) == 2, "the older ones to be removed")

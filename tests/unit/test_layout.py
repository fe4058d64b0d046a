"""Where everything is, on a host and below a scratch root."""

from __future__ import annotations

from pathlib import Path

import pytest

from swapd.model.layout import Layout

# The table of files in the public interface.
HOST = {
    "defaults_file": "/etc/swapd/swapd.toml",
    "sites": "/etc/swapd/sites",
    "allowed_signers": "/etc/swapd/allowed_signers",
    "spool": "/var/spool/swapd",
    "state": "/var/lib/swapd",
    "run": "/run/swapd",
}


@pytest.mark.parametrize(("name", "path"), HOST.items())
def test_everything_has_its_place(name: str, path: str) -> None:
    assert getattr(Layout(), name) == Path(path)
    assert getattr(Layout(Path("/scratch/root")), name) == Path(f"/scratch/root{path}")


def test_what_belongs_to_a_site() -> None:
    layout = Layout()
    assert layout.site_file("shop") == Path("/etc/swapd/sites/shop.toml")
    assert layout.site_record("shop") == Path("/var/lib/swapd/shop/site.toml")
    assert layout.deployments("shop") == Path("/var/lib/swapd/shop/deployments")
    assert layout.claims("shop").parent == layout.site_state("shop") == Path("/var/lib/swapd/shop")
    assert layout.site_lock("shop").parent == layout.pause_lock.parent == layout.pause_record.parent == layout.run
    assert len({layout.site_lock("pause"), layout.pause_lock, layout.pause_record}) == 3


def test_a_host_is_told_from_a_scratch_directory() -> None:
    assert Layout().is_host
    assert not Layout(Path("/scratch")).is_host

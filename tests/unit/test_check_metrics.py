"""What `check` says of metrics that nobody gets. What needs a unit is in `tests/host/test_unit.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from swapd.checks import find
from swapd.host.configuration import read_metrics_file, read_sites
from swapd.model.errors import ConfigurationError
from swapd.model.layout import Layout
from tests.support.mounts import fuse


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.configuration.mkdir(parents=True)
    return layout


def ask(layout: Layout, file: str) -> None:
    layout.defaults_file.write_text(f'[metrics]\ntextfile = "{file}"\n')


def problems(layout: Layout) -> list[str]:
    return [finding.problem for finding in find([], layout) if finding.problem.startswith("metrics")]


def test_a_directory_that_is_not_there_is_found(layout: Layout) -> None:
    assert read_metrics_file(layout) is None
    assert problems(layout) == []
    ask(layout, f"{layout.root}/exporter/swapd.prom")
    assert read_metrics_file(layout) == layout.root / "exporter/swapd.prom"
    assert problems(layout) == ["metrics-no-directory"]
    (layout.root / "exporter").mkdir()
    assert problems(layout) == []


@pytest.mark.root
def test_a_directory_that_another_program_answers_for_is_found(layout: Layout) -> None:
    with fuse(layout.root / "far", 0) as far:
        ask(layout, f"{far}/swapd.prom")
        assert problems(layout) == ["metrics-remote"]


@pytest.mark.parametrize("file", ["swapd.prom", "/srv/swapd.txt", "/srv/.prom", "/srv/../swapd.prom"])
def test_a_file_that_no_collector_reads_is_a_mistake(layout: Layout, file: str) -> None:
    ask(layout, file)
    for read in (read_sites, read_metrics_file):
        with pytest.raises(ConfigurationError) as caught:
            read(layout)
        (issue,) = caught.value.issues
        assert (issue.file, issue.line, issue.key) == (str(layout.defaults_file), 2, "metrics.textfile")


def test_metrics_are_of_the_host_and_not_of_a_site(layout: Layout) -> None:
    layout.sites.mkdir()
    layout.site_file("shop").write_text('live = "/var/www/shop"\n[metrics]\ntextfile = "/srv/swapd.prom"\n')
    layout.defaults_file.write_text('[metrics]\ntextfiel = "/srv/swapd.prom"\n')
    with pytest.raises(ConfigurationError) as caught:
        read_sites(layout)
    ours, theirs = caught.value.issues
    assert (ours.line, ours.key, ours.right) == (2, "metrics.textfiel", "did you mean textfile?")
    assert (theirs.line, theirs.key) == (2, "metrics")
    assert "swapd.toml" in theirs.right

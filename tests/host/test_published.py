"""A real, published application: what its upstream released, dropped as Debian's archive has it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.host.releases import describe_tree, exact_modes, file_paths
from tests.host.roots import published_source
from tests.host.webhost import WebHost


@pytest.mark.timeout(600)  # it may have to be downloaded
def test_wordpress_goes_live_as_gnu_tar_extracts_it(web: WebHost, tmp_path: Path) -> None:
    tarball = published_source("wordpress", "*.orig.tar.*")
    tree = tmp_path / "tree"
    tree.mkdir()
    subprocess.run(["tar", "-C", str(tree), "--strip-components=1", "-xf", str(tarball)], check=True)
    assert len(file_paths(tree)) > 1000
    site = web.new_site("wordpress")
    marker = site.deploy(tarball)
    assert marker.outcome == "live", marker.content
    assert describe_tree(site.tree()) == describe_tree(tree)
    assert exact_modes(site.tree()) <= {"directory 755", "file 644", "file 755"}
    site.assert_serves(tree)

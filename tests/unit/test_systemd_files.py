"""What the settings of a unit are, from its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from swapd.host import systemd

UNIT = """\
# [Service] in a remark
[Unit]
Description=One
Documentation=\\
[Service]
Before=two.service
[Service]
; a remark
ReadWritePaths=/one \\
# amid a line
[Service] \\
  /two
ProtectHome=yes
[Install]
WantedBy=multi-user.target
[Service]
Nice=-9
"""


def test_the_lines_of_the_service_and_no_others() -> None:
    """A continued line may look like a section, and remarks may stand amid it (systemd.syntax(7))."""
    assert systemd.service_section(UNIT).splitlines() == [
        "; a remark",
        "ReadWritePaths=/one \\",
        "# amid a line",
        "[Service] \\",
        "  /two",
        "ProtectHome=yes",
        "Nice=-9",
    ]


def test_where_a_setting_stands(tmp_path: Path) -> None:
    one, other = tmp_path / "one.conf", tmp_path / "other.conf"
    one.write_text(UNIT)
    other.write_text("[Service]\n#ProtectHome=no\nReadOnlyPaths=/\n")
    assert systemd.find_lines([one, other], ["ProtectHome", "ReadOnlyPaths"]) == [
        f"{one} (ProtectHome=yes)",
        f"{other} (ReadOnlyPaths=/)",
    ]


def test_drop_ins_count_by_their_names_and_the_administrators_hide_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    etc, run, lib = places = tuple(tmp_path / name for name in ("etc", "run", "lib"))
    monkeypatch.setattr(systemd, "PLACES", places)
    for place, names in ((etc, "20-b"), (run, "10-a 30-c"), (lib, "20-b 40-d")):
        (place / "one.service.d").mkdir(parents=True)
        for name in names.split():
            (place / "one.service.d" / f"{name}.conf").touch()
    fragment, everywhere = tmp_path / "one.service", tmp_path / "service.d/15-all.conf"
    everywhere.parent.mkdir()
    everywhere.touch()
    gone = tmp_path / "gone.conf"
    found = systemd.find_files("one.service", str(fragment), f"{everywhere} {gone}")
    assert found == [
        fragment,
        run / "one.service.d/10-a.conf",
        everywhere,
        etc / "one.service.d/20-b.conf",
        run / "one.service.d/30-c.conf",
        lib / "one.service.d/40-d.conf",
    ]

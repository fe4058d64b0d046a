"""The journal's explanations and the ids that the code sends are one set, in a form that journalctl takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from swapd.model.message_ids import MessageId
from swapd.verbs import VERBS

CATALOG = Path(__file__).parents[2] / "systemd/swapd.catalog"

# The fields that the interface gives to records; journalctl prints the bare name of any other.
FIELDS = {
    "MESSAGE",
    "SWAPD_SITE",
    "SWAPD_RELEASE",
    "SWAPD_DEPLOYMENT",
    "SWAPD_DIGEST",
    "SWAPD_OUTCOME",
    "SWAPD_STAGE",
    "SWAPD_STRATEGY",
    "SWAPD_PAUSE_USEC",
    "SWAPD_PAUSED",
    "SWAPD_QUEUED",
    "SWAPD_OVERFLOWED",
    "SWAPD_DROPPED",
    "SWAPD_RECORDS_DROPPED",
    "SWAPD_UPLOADER",
    "SWAPD_SIGNER",
    "SWAPD_DURATION_USEC",
}


def read_entries() -> dict[str, tuple[dict[str, str], str]]:
    """The catalog's entries by id: their header fields and their text."""
    lines = CATALOG.read_text(encoding="utf-8").splitlines()
    blocks = "\n".join(line for line in lines if not line.startswith("#")).split("\n-- ")
    assert not blocks[0].strip(), "text before the first entry"
    entries: dict[str, tuple[dict[str, str], str]] = {}
    for block in blocks[1:]:
        message_id, _, rest = block.partition("\n")
        header, _, text = rest.partition("\n\n")
        assert message_id not in entries, f"{message_id} is explained twice"
        entries[message_id] = (dict(line.split(": ", 1) for line in header.splitlines()), text.strip())
    return entries


def test_ids_are_128_bits_and_differ() -> None:
    values = [member.value for member in MessageId]
    assert all(re.fullmatch("[0-9a-f]{32}", value) for value in values)
    assert len(MessageId.__members__) == len(set(values))


def test_catalog_explains_exactly_the_ids_that_are_sent() -> None:
    assert set(read_entries()) == {member.value for member in MessageId}


@pytest.mark.parametrize("member", MessageId)
def test_entry_is_complete(member: MessageId) -> None:
    header, text = read_entries()[member.value]
    assert list(header) == ["Subject", "Defined-By", "Support"]
    assert header["Defined-By"] == "swapd"
    assert "://" not in header["Support"]
    assert len(text) > 100
    assert set(re.findall("@([A-Z_]+)@", header["Subject"] + text)) <= FIELDS
    assert all(len(line) <= 77 for line in text.splitlines()), "journalctl puts three columns before each line"


@pytest.mark.parametrize("member", MessageId)
def test_entry_says_what_happened_what_is_still_safe_and_what_to_do(member: MessageId) -> None:
    """In this order, under the same words: it is read at three in the morning."""
    _, text = read_entries()[member.value]
    message, *happened, safe, to_do = re.split(r"\n\n(?! )", text)
    assert message == "@MESSAGE@"
    assert happened
    assert not any(word in " ".join(happened) for word in ("Still safe:", "To do:"))
    assert re.fullmatch(r"Still safe: [a-z].{15,}\.", safe, re.DOTALL), safe
    assert to_do.startswith("To do: ")
    assert re.search("`|nothing|    journalctl ", to_do), "no command, and not even that none is needed"
    for command in re.findall(r"`swapd ([a-z]+)", text):
        assert command in VERBS, f"swapd {command} is no command"


@pytest.mark.skipif(not shutil.which("journalctl"), reason="no journalctl on this machine")
def test_journalctl_takes_the_catalog(tmp_path: Path) -> None:
    installed = tmp_path / "usr/lib/systemd/catalog"
    installed.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(CATALOG, installed)
    subprocess.run(["journalctl", f"--root={tmp_path}", "--update-catalog"], check=True)
    listed = subprocess.run(
        ["journalctl", f"--root={tmp_path}", "--list-catalog"], check=True, capture_output=True, text=True
    ).stdout
    assert {line.split()[0] for line in listed.splitlines()} == {member.value for member in MessageId}

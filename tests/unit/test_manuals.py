"""The manual pages say what the code says: every command, option, key, problem and exit status, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

import swapd as package
from swapd.model.errors import ExitStatus
from swapd.model.record import Marker
from swapd.model.release import ADOPTED, TARBALL_SUFFIXES, ListenerQueue, Outcome, PauseCost, SidecarKind
from swapd.stages.arrive import UNFINISHED
from swapd.verbs import VERBS, swapd

MAN = Path(__file__).parents[2] / "packaging/man"
PACKAGE = Path(package.__file__).parent

COMMANDS, CONFIGURATION, RELEASE = (MAN / name for name in ("swapd.8", "swapd.toml.5", "swapd-release.7"))


def read(page: Path) -> str:
    return page.read_text("utf-8")


def section(page: Path, title: str) -> str:
    """The text of a section, or of a subsection."""
    found = re.search(rf"^\.S[hs] {re.escape(title)}\n(.*?)(?=^\.S[hs] |\Z)", read(page), re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no section {title}"
    return found[1]


def items(text: str, macro: str = "Cm") -> list[str]:
    """What the text's lists explain."""
    found = re.findall(rf"^\.It {macro} (.*)$", text, re.MULTILINE)
    return [item for line in found for item in line.split(" , ")]


class TestCommands:
    """swapd(8)."""

    def test_every_command(self) -> None:
        text = read(COMMANDS).partition(".Sh COMMANDS\n")[2].partition("\n.Sh ")[0]
        assert re.findall(r"^\.Ss (.*)$", text, re.MULTILINE) == list(VERBS)
        assert all(f".Nm Cm {verb}" in section(COMMANDS, verb) for verb in VERBS)

    @pytest.mark.parametrize("verb", VERBS)
    def test_every_option(self, verb: str) -> None:
        context = click.Context(swapd, info_name="swapd", **swapd.context_settings)
        command = swapd.get_command(context, verb)
        assert command is not None
        options = {
            name.lstrip("-")
            for item in command.params
            if isinstance(item, click.Option) and not item.hidden
            for name in (*item.opts, *item.secondary_opts)
        }
        text = section(COMMANDS, verb)
        described = re.findall(r"^\.It (Fl .*)$", text, re.MULTILINE)
        assert {name.lstrip("-") for line in described for name in re.findall(r"Fl (\S+)", line)} == options

    def test_its_own_options(self) -> None:
        own = {name.lstrip("-") for item in swapd.params for name in item.opts} | {"help", "h"}
        described = re.findall(r"^\.It (Fl .*)$", section(COMMANDS, "OPTIONS"), re.MULTILINE)
        assert {name.lstrip("-") for line in described for name in re.findall(r"Fl (\S+)", line)} == own


# Of the environment: what systemd sets for whom it starts, and what is no matter of swapd's.
NOT_OF_OURS = {"JOURNAL_STREAM", "WATCHDOG_USEC", "WATCHDOG_PID", "PATH", "PYTHONPATH", "PHP_INI_SCAN_DIR"}


def test_every_variable_of_the_environment() -> None:
    read_somewhere = re.compile(r"""environ(?:ment)?(?:\.get\(|\[)"([A-Z_]+)"|"([A-Z_]+)" in os\.environ""")
    found = {
        name
        for path in PACKAGE.rglob("*.py")
        for match in read_somewhere.findall(path.read_text("utf-8"))
        for name in match
    }
    assert found - NOT_OF_OURS - {""} <= set(re.findall("[A-Z_]{2,}", section(COMMANDS, "ENVIRONMENT")))


@pytest.mark.parametrize("page", [COMMANDS, RELEASE], ids=lambda path: path.name)
def test_every_exit_status(page: Path) -> None:
    described = re.findall(r"^\.It ([0-9]+)$", section(page, "EXIT STATUS"), re.MULTILINE)
    assert list(map(int, described)) == [status.value for status in ExitStatus]


TABLES = {
    "top": "KEYS",
    "verify": "Table [verify]",
    "extract": "Table [extract]",
    "pause": "Table [pause]",
    "table": "Tables [[path]]",
    "metrics": "Table [metrics]",
}


def find_keys() -> set[tuple[str, str]]:
    """The keys that the parser takes, each with the section that has its table."""
    module = PACKAGE / "model/config_parser.py"
    return {
        (TABLES[ast.unparse(node.func.value)], str(ast.literal_eval(node.args[0])))
        for node in ast.walk(ast.parse(module.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "take"
    }


def test_every_key_of_the_configuration() -> None:
    described = [(title, key) for title in TABLES.values() for key in items(section(CONFIGURATION, title))]
    assert set(described) == find_keys()
    assert len(described) == len(set(described))


# Rooms whose errors end no deployment: they are a command's own words.
OF_COMMANDS = {"commands", "demo", "packing", "checks", "setup", "completion", "verbs", "cli"}
ERRORS = {"Failed", "Issue", "because"}
# Where codes also stand in tables and variables.
IN_TABLES = {
    "archive",
    "stages",
    "strategies",
    "host/refusals",
    *(f"model/{name}" for name in ("control", "refused")),
} | {*("model/release", "model/room", "model/record")}
# What else looks like a code there; and what init and check alone say.
NO_PROBLEMS = {"swapd-decompress", "rolled-back", "server-refuses", "server-configuration-broken"} | {
    *("queue-would-overflow", "watchdog-near")  # findings
}
# Of uploads that wait: they are in no marker, which has no problem as long as nothing is wrong.
OF_WAITING = {"still-open", "still-changing", "vanished", "sidecar-incomplete", "digest-differs-yet", "busy"} | {
    *("signature-differs-yet", "waits-for-sidecar", "waits-for-signature", "cannot-record-live")
}
# Made of the name of the program that failed.
MADE_UP = {"zstd-failed", "xz-failed", "bzip2-failed"}


def find_problems() -> Iterator[str]:
    """Every code that a deployment may end with, as the sources have them."""
    for module in PACKAGE.rglob("*.py"):
        name = module.relative_to(PACKAGE).with_suffix("").as_posix()
        if name.split("/")[0] in OF_COMMANDS:
            continue
        has_tables = not IN_TABLES.isdisjoint((name, name.split("/")[0]))
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if has_tables and re.fullmatch("[a-z]+(-[a-z]+)+", node.value):
                    yield node.value
            elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                made = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if made in ERRORS:
                    yield str(node.args[0].value)


class TestRelease:
    """swapd-release(7)."""

    def test_every_problem(self) -> None:
        found = {*find_problems(), *MADE_UP, "superseded", "interrupted", "fifo"} - NO_PROBLEMS - OF_WAITING
        described = items(read(RELEASE).partition(".Sh DIAGNOSTICS")[2].partition(".Sh ")[0])
        assert sorted(described) == sorted(found)

    def test_every_key_of_a_marker(self) -> None:
        text = section(RELEASE, "MARKERS")
        assert set(items(text)) == {"version", *(item.name for item in fields(Marker))}
        of_pause = {item.name for kind in (PauseCost, ListenerQueue) for item in fields(kind)}
        assert of_pause <= set(re.findall(r"^\.Cm (\S+)", text, re.MULTILINE)) | set(re.findall(r"Cm (\w+)", text))

    def test_every_outcome(self) -> None:
        assert items(section(RELEASE, "MARKERS"), "Pa") == [f"TARBALL.{outcome.value}" for outcome in Outcome]

    def test_every_name_of_an_unfinished_upload(self) -> None:
        described = re.findall(r"^\.Ql (\.?[a-z~]+)(?: ,)?$", section(RELEASE, "DESCRIPTION"), re.MULTILINE)
        assert set(UNFINISHED) <= set(described)

    def test_every_kind_of_tarball_and_of_sidecar(self) -> None:
        tarballs = section(RELEASE, "TARBALLS")
        assert set(re.findall(r"NAME(\.[a-z0-9.]+)", tarballs)) == set(TARBALL_SUFFIXES)
        assert ADOPTED in tarballs
        assert set(items(section(RELEASE, "SIDECARS"), "Pa")) == {kind.file_name("TARBALL") for kind in SidecarKind}

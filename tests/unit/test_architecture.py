"""The one direction in which modules import each other, read from their sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "swapd"
# From the top down; what stands on one line is one room, whose modules may know each other. `checks`, `demo`,
# `packing` and `setup` are what single commands are made of.
ROOMS = [
    {"cli", "__main__"},
    {"verbs", "completion"},
    {"commands"},
    {"checks", "demo", "packing", "setup"},
    {"daemon", "desk", "lookout", "metrics", "notices"},
    {"worker"},
    {"deploy", "rollback", "recover", "retention", "adopt", "rebuild"},
    {"ledger", "answer"},
    {"context"},
    {"stages"},
    {"strategies"},
    {"archive"},
    {"host"},
    {"model"},
    {"__init__"},
]
RANKS = {name: rank for rank, room in enumerate(ROOMS) for name in room}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(module: Path) -> set[tuple[str, ...]]:
    """What the module imports of swapd, anywhere in its text: paths below the package."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {tuple(name.split(".")[1:]) for name in names if name.split(".")[0] == "swapd"}
    return found


def room_of(path: tuple[str, ...]) -> str:
    """``__init__`` for what stands in the package's own module, such as the version."""
    return path[0] if path and path[0] in RANKS else "__init__"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(module: Path) -> None:
    own = module.relative_to(PACKAGE).with_suffix("").parts
    for path in imports(module):
        room = room_of(path)
        assert RANKS[room_of(own)] <= RANKS[room], f"{'/'.join(own)} imports {'.'.join(path)}, which stands above it"
        if own[0] == "stages" == room:
            assert path[1] == own[1], f"a stage imports another: {'/'.join(own)} imports {'.'.join(path)}"


def test_every_module_has_a_room() -> None:
    assert {module.relative_to(PACKAGE).with_suffix("").parts[0] for module in MODULES} <= RANKS.keys()
    assert any(imports(module) for module in MODULES)


@pytest.mark.parametrize("module", ["swapd.daemon", "swapd.worker"])
def test_what_only_commands_need_is_not_loaded_by_the_daemon(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert module in loaded
    assert not {"rich", "click", "swapd.commands"} & set(loaded)


def test_rich_is_loaded_for_a_terminal_only() -> None:
    """Not by ``swapd run``, nor by whatever else is run by a script: it takes longer than most commands do."""
    commands = [f"swapd.commands.{path.stem}" for path in (PACKAGE / "commands").glob("*.py")]
    program = f"import sys, {', '.join(commands)}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert {"swapd.commands.run", "swapd.commands.history", "click"} <= set(loaded)
    assert "rich" not in loaded

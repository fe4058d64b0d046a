"""README.md: every command in it is run by a test, or there is a reason why not; forms and files in it are right."""

from __future__ import annotations

import re
import subprocess

import click
import pytest

from swapd.model.config_parser import Source, parse_sites
from swapd.model.layout import Layout
from swapd.verbs import VERBS, swapd
from tests.host.newcomer import STEPS, LeftOut
from tests.support.readme import PROGRAMS, README, Typed, read_blocks, read_inline, read_typed

TEXT = README.read_text()
BLOCKS = list(read_blocks(TEXT))
TYPED = [typed for block in BLOCKS if not block.language for typed in read_typed(block)]
INLINE = list(read_inline(TEXT))
# A form of a command, such as `swapd rollback SITE [RELEASE]`, or its bare name where the text speaks of it.
WORD = r"(?: \[?[A-Z]+\]?| --[a-z-]+(?: [A-Z]+)?| …)"
FORM = re.compile(rf"swapd( --root DIR …)?(?: (?P<verb>[a-z]+))?(?P<rest>{WORD}*)")
IN_FENCES = {"sh", "toml", "yaml", "promql"}  # the last is for tests/host/test_unit.py


EXAMPLE = """
Text with `swapd check` in it, `a file`, and what is `sudo make
install` over two lines.

    swapd pack .          # a comment
    $ swapd status shop   # another
    shop  /var/www/shop

    echo '#1' > file

```sh
swapd deploy
```

Then `scp a b`.
"""


def test_what_is_typed_is_found_with_its_output() -> None:
    typed = [typed for block in read_blocks(EXAMPLE) if not block.language for typed in read_typed(block)]
    assert [typed.command for typed in typed] == ["swapd pack .", "swapd status shop", "echo '#1' > file"]
    assert [typed.output for typed in typed] == [(), ("shop  /var/www/shop",), ()]
    assert [EXAMPLE.splitlines()[one.line - 1].lstrip(" $").startswith(one.command) for one in typed] == [True] * 3
    assert [typed.command for typed in read_inline(EXAMPLE)] == ["swapd check", "sudo make install", "scp a b"]


def known(command: str) -> bool:
    return command in STEPS or FORM.fullmatch(command) is not None


def test_every_command_of_a_block_has_its_place_in_tests_host_newcomer() -> None:
    unknown = [f"README.md:{typed.line}: {typed.command}" for typed in TYPED if typed.command not in STEPS]
    assert not unknown, "add them to STEPS in tests/host/newcomer.py:\n" + "\n".join(unknown)


def test_every_command_that_the_text_mentions_has_too() -> None:
    unknown = [f"README.md:{typed.line}: {typed.command}" for typed in INLINE if not known(typed.command)]
    assert not unknown, "add them to STEPS in tests/host/newcomer.py:\n" + "\n".join(unknown)


def test_no_step_is_left_of_a_command_that_has_gone() -> None:
    present = {typed.command for typed in [*TYPED, *INLINE]} | set(_steps_of_recipes())
    assert sorted(STEPS.keys() - present) == []


def test_what_is_left_out_has_a_reason() -> None:
    assert all(step.reason for step in STEPS.values() if isinstance(step, LeftOut))


def test_every_verb_of_swapd_is_in_the_table_of_commands() -> None:
    table = TEXT.partition("## Commands\n")[2].partition("\n## ")[0]
    assert [verb for verb in VERBS if f"`swapd {verb}" not in table and f", `swapd {verb}" not in table] == []


@pytest.mark.parametrize("typed", [typed for typed in INLINE if FORM.fullmatch(typed.command)], ids=lambda t: t.command)
def test_forms_of_commands_are_those_that_swapd_has(typed: Typed) -> None:
    form = FORM.fullmatch(typed.command)
    assert form is not None
    if (verb := form["verb"]) is None:
        return
    command = swapd.get_command(click.Context(swapd), verb)
    assert command is not None, f"there is no swapd {verb}"
    names = {name for parameter in command.params for name in parameter.opts}
    assert set(re.findall(r"--[a-z-]+", form["rest"])) <= names


@pytest.mark.parametrize(
    "target", sorted({typed.command for typed in [*TYPED, *INLINE] if re.match(r"(sudo )?make ", typed.command)})
)
def test_targets_of_make_exist(target: str) -> None:
    command = [*target.removeprefix("sudo ").split(), "--dry-run", "--no-print-directory"]
    done = subprocess.run(command, cwd=README.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_fences_are_of_kinds_that_a_test_knows() -> None:
    for block in BLOCKS:
        if block.language == "text":
            commands = [line for line in block.lines if line.removeprefix("$ ").split(" ")[0] in PROGRAMS]
            assert not commands, f"README.md:{block.line}: commands stand in indented blocks, or in a ```sh fence"
        else:
            assert block.language in {"", *IN_FENCES}, f"README.md:{block.line}: a fence of {block.language}"


def test_the_configuration_that_it_shows_is_good() -> None:
    documents = [block for block in BLOCKS if block.language == "toml"]
    assert documents
    for block in documents:
        source = Source(README.name, block.text)
        sites, defaults = ({"shop": source}, None) if "live = " in block.text else ({}, source)
        parse_sites(sites, defaults, Layout())


def test_its_scripts_are_good_shell() -> None:
    for block in BLOCKS:
        if block.language == "sh":
            done = subprocess.run(["sh", "-n"], input=block.text, capture_output=True, text=True)
            assert not done.stderr, f"README.md:{block.line}: {done.stderr}"


def test_the_steps_of_ci_recipes_are_known() -> None:
    steps = _steps_of_recipes()
    assert steps.count("sh deploy.sh") == 2
    assert [step for step in steps if step not in STEPS] == []


def _steps_of_recipes() -> list[str]:
    lines = [line.strip() for block in BLOCKS if block.language == "yaml" for line in block.lines]
    found = (re.fullmatch(r"- (?:run: )?([a-z]+ .*)", line) for line in lines)
    return [step[1] for step in found if step]

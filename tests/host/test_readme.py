"""README.md as somebody new reads it: every command is typed on a host, from top to bottom; then git push, and CI.

Which command is typed how stands in tests/host/newcomer.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.conftest import Expected
from tests.host.machine import Host, booted, sweep
from tests.host.newcomer import HOME, KEY, STEPS, TREE, Reader, Step, Who, begin, script, write_script
from tests.host.package import dependencies
from tests.host.releases import describe_tree
from tests.host.roots import debian_root
from tests.host.webhost import AUTHOR, PACKAGES, WebHost
from tests.support.readme import README, Typed, read_blocks, read_inline, read_typed, shape

REPOSITORY = "/home/git/shop.git"


@pytest.fixture(scope="module")
def host(package: Path) -> Iterator[Host]:
    sweep()
    with booted(debian_root([*PACKAGES, *dependencies(package), "git", "sudo"])) as host:
        yield host


@pytest.fixture(scope="module")
def reader(web: WebHost) -> Reader:
    return begin(web)


@pytest.fixture
def whatever_is_said(expected: Expected) -> None:
    """A live path that was changed, a push that is rejected: some of what is done here is warned of."""
    expected.warning(SWAPD_SITE="shop")


@pytest.mark.usefixtures("whatever_is_said")
def test_every_command_of_the_readme_does_what_it_says(reader: Reader) -> None:
    text = README.read_text()
    in_blocks = [typed for block in read_blocks(text) if not block.language for typed in read_typed(block)]
    shown = {typed.command for typed in in_blocks}
    mentioned = {typed.command: typed for typed in read_inline(text) if typed.command not in shown}
    times: Counter[str] = Counter()
    for one in [*in_blocks, *mentioned.values()]:
        steps = STEPS.get(one.command)
        step = steps[times[one.command]] if isinstance(steps, tuple) else steps
        times[one.command] += 1
        if isinstance(step, Step):
            try:
                take(reader, one, step)
            except AssertionError as error:
                raise AssertionError(f"README.md:{one.line}: {one.command}\n{error}") from error


def take(reader: Reader, typed: Typed, step: Step) -> None:
    step.before(reader)
    command = typed.command.replace(*step.instead) if step.instead[0] else typed.command
    said = ""
    if step.drops:
        marker = reader.shop.outcome_after(lambda: reader.type(command, step.who), step.drops)
        assert marker.outcome in {"live", "unchanged"}, marker.content
    else:
        said = reader.type(f"{command}\ntest $? = {step.status}", step.who)
    for line in filter(str.strip, typed.output):
        assert any(shape(line).search(real) for real in said.splitlines()), f"no line like {line!r} in:\n{said}"
    assert step.shows in said
    step.after(reader)


# git push -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hooked(reader: Reader) -> Reader:
    """A bare repository on the server with the README's hook, of a user whom the README has put into the group."""
    web = reader.web
    web.run("sh", "-c", "id git || useradd git; usermod --append --groups swapd git; mkdir -p /home/git/.ssh")
    web.host.path("/home/git/.ssh/authorized_keys").write_text(web.run("cat", f"{KEY}.pub"))
    web.run("git", "init", "--quiet", "--bare", "--initial-branch=main", REPOSITORY)
    write_script(web.host, f"{REPOSITORY}/hooks/post-receive", script("while read"), "root")
    web.run("chown", "--recursive", "git:", "/home/git")
    reader.type("git remote add web git@web:shop.git && echo uploads > .swapdignore", Who.AUTHOR)
    web.run("sh", "-c", "[ -e /etc/swapd/sites/shop.toml ] || swapd init shop --live /var/www/shop")
    return reader


def push(reader: Reader, *commands: str) -> str:
    """What somebody sees who commits everything and pushes."""
    return reader.type(
        " && ".join([*commands, "git add . && git commit -qm next && git push web HEAD:main"]), Who.AUTHOR
    )


@pytest.mark.usefixtures("whatever_is_said")
def test_a_push_goes_live_and_the_pusher_sees_it(hooked: Reader) -> None:
    said = push(hooked, "echo pushed > index.html", "mkdir -p uploads && touch uploads/mine")
    name = "shop-" + hooked.type("git rev-parse --short HEAD", Who.AUTHOR).strip()
    assert "remote: " in said
    assert f"{name}@" in said
    assert "is live" in said
    assert "left out by .swapdignore: uploads/" in said
    assert "scp" not in said
    tree = hooked.shop.tree()
    assert (tree / "index.html").read_text() == "pushed\n"
    assert not (tree / "uploads").exists()
    left = {path.name for path in hooked.host.path(hooked.shop.incoming).iterdir() if name in path.name}
    assert left == {f"{name}.tar.gz.live"}
    sha = hooked.type("git rev-parse HEAD", Who.AUTHOR).strip()
    # Another branch, and the end of one, deploy nothing.
    said = hooked.type(f"git push web {sha}:refs/heads/other && git push web :other", Who.AUTHOR)
    assert "is live" not in said


@pytest.mark.usefixtures("whatever_is_said")
def test_who_pushes_what_is_rejected_sees_why(hooked: Reader) -> None:
    live = describe_tree(hooked.shop.tree())
    hooked.configure('must_contain = ["index.php"]')
    said = push(hooked, "echo bad > index.html")
    assert "rejected" in said
    assert "index.php" in said
    # What swapd pack refuses already, with its reason, does not even come into the drop directory.
    said = push(hooked, "ln -s /etc/passwd passwd")
    assert "remote: swapd: passwd is " in said
    assert describe_tree(hooked.shop.tree()) == live
    hooked.type("git rm --quiet passwd && git commit --quiet -m mended", Who.AUTHOR)


# CI -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("whatever_is_said")
def test_the_script_for_ci_deploys_and_shows_the_outcome(reader: Reader) -> None:
    reader.web.run("sh", "-c", "[ -e /etc/swapd/sites/shop.toml ] || swapd init shop --live /var/www/shop")
    write_script(reader.host, f"{TREE}/deploy.sh", script("# deploy.sh"), AUTHOR)
    reader.type("echo '<?php // by CI' > index.php && git add . && git commit -qm 'by CI'", Who.AUTHOR)
    secrets = f'DEPLOY_KEY="$(cat {KEY})" KNOWN_HOSTS="$(ssh-keyscan web 2>/dev/null)"'
    said = reader.type(f"{secrets} TMPDIR=$PWD/.. sh deploy.sh", Who.AUTHOR)
    assert "is live" in said
    assert (reader.shop.tree() / "index.php").read_text() == "<?php // by CI\n"
    assert not list(reader.host.path(HOME).glob("tmp.*"))  # no key is left behind

"""Text from outside, by every way in and out: it forges no line, no marker, no status and nothing on a terminal.

Who uploads says what a file, what is in it and what is beside it is called; who has a shell, what a command is given.
Each of these hostile texts goes in wherever there is room for it, and all that swapd says then is looked through.
"""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from swapd.model.release import MARKER_SUFFIXES
from swapd.verbs import VERBS
from tests.support.signing import Key
from tests.support.sites import Scratch, environment
from tests.support.tarballs import site_content, write_tarball
from tests.support.waiting import PATIENCE, wait_until
from tests.unit.archives import file, pax, symlink, tar

FORGED = "00:00:00 emergency forged"  # begins as a line of the log below --root does
TEXTS = {
    "newline": f'a\n{FORGED}\noutcome = "live"\n',
    "return": f"a\r{FORGED}\r\n",
    "record": "a\nPRIORITY=0\nMESSAGE=forged\n\x00",
    "clear": "\x1b[2J\x1b[H\x1b]0;owned\x07",
    "link": "\x1b]8;;http://evil.invalid\x1b\\click\x1b]8;;\x1b\\",
    "c1": "\x9b2J\x9d0;owned\x9c",
    "bidi": "\u202egz.rat\u2066\u200f",
    "separator": f"a\u2028{FORGED}\u2029\x85{FORGED}",
    "invalid": "b\udcff\udcfe\udc9b2J",
    "markup": "[bold red]x[/] [link=http://evil.invalid]y[/link] %s {0} @MESSAGE@",
    "toml": '"""\noutcome = "live"\n#',
    "long": "x\x1b[31m" * 700,
}
HOSTILE = TEXTS["clear"] + "\u202e"
# What rich and a terminal add: the cursor hidden and shown, a line begun again and cleared.
OWN = re.compile(r"\x1b\[(\?25[lh]|[0-9]*[AK]|[0-9;]*m)|\r")


def named(text: str, suffix: str) -> str:
    """A file name that has the text in it, as long as it may be."""
    name = text.replace("/", "∕").replace("\0", "")
    while len(os.fsencode(f"{name}{suffix}")) > 255 - len(".rolled-back"):
        name = name[:-1]
    return f"{name}{suffix}"


def assert_tame(said: str, where: str) -> None:
    """One line is one line, and a terminal does nothing but show it."""
    lines = OWN.sub("", said).splitlines()
    for line in lines:
        assert line.isprintable(), f"{where}: {line!r}"
        assert not line.startswith((FORGED, "outcome =", "PRIORITY=")), f"{where}: {line!r}"


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What is dropped, by its name."""
    directory = tmp_path_factory.mktemp("uploads")
    good = write_tarball(directory / "good.tar", site_content("good"))
    mallory = Key(directory / f"mallory{HOSTILE}")
    found = {"allowed_signers": mallory.line(HOSTILE).encode()}  # which is not dropped
    for key, text in TEXTS.items():
        raw = os.fsencode(text)
        found[named(text, ".tar")] = b"no tarball"
        found[f"digest-{key}.tar.sha256"] = raw
        found[f"digest-{key}.tar"] = good.read_bytes()
        member = raw.replace(b"\0", b"")
        found[f"member-{key}.tar"] = tar(pax((b"path", member)), file(b"x"))
        found[f"target-{key}.tar"] = tar(pax((b"linkpath", b"/etc/" + member)), symlink(b"x", b"y"))
        found[named(f"rollback@{text}", "")] = raw
    found["rollback"] = os.fsencode(TEXTS["newline"])
    # ssh-keygen takes any namespace, any name of a certificate, and any principal.
    for name, key, namespace in (
        ("namespace", mallory, TEXTS["clear"]),
        ("certified", mallory.certified(Key(directory / "authority"), "nobody"), "swapd"),
        ("principal", mallory, "swapd"),
    ):
        tarball = write_tarball(directory / f"signed-{name}.tar", site_content(name))
        found[f"{tarball.name}.sig"] = key.sign_file(tarball, namespace).read_bytes()
        found[tarball.name] = tarball.read_bytes()
    return found


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory, uploads: dict[str, bytes]) -> Iterator[Scratch]:
    """A daemon that has answered all of them."""
    scratch = Scratch(tmp_path_factory.mktemp("fed") / "root")
    scratch.add_site()
    signers = scratch.root / "allowed_signers"
    signers.write_text(uploads["allowed_signers"].decode())
    guarded = scratch.add_site("guarded", verify={"require": "signature", "allowed_signers": str(signers)})
    daemon = scratch.start_daemon()
    dropped = {name: content for name, content in uploads.items() if name != "allowed_signers"}
    for name, content in dropped.items():
        directory = guarded if name.startswith("signed-") else scratch.incoming
        (directory / f".{name[:100]}.upload").write_bytes(content)
        (directory / f".{name[:100]}.upload").rename(directory / name)
    asking = [name for name in dropped if not name.endswith((".sha256", ".sig"))]

    def answered() -> bool:
        there = {os.path.splitext(name)[0] for name in [*scratch.markers(), *scratch.markers("guarded")]}
        final = {name for name in there if f"{name}.pending" not in scratch.markers()}
        return final >= set(asking)

    wait_until(answered, "an answer to each", patience=3 * PATIENCE)
    yield scratch
    daemon.stop()


def on_a_terminal(scratch: Scratch, *arguments: str, **more: str) -> str:
    """What the command shows on a terminal, both of its outputs."""
    leader, terminal = pty.openpty()
    with subprocess.Popen(
        scratch.command_line(*arguments),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment(TERM="xterm-256color", COLUMNS="100", **more),
    ) as process:
        os.close(terminal)
        said = b""
        while True:
            try:
                data = os.read(leader, 1 << 16)
            except OSError:  # EIO: nobody has it open any more
                break
            if not data:
                break
            said += data
        process.wait(PATIENCE)
    os.close(leader)
    return said.decode("utf-8", "surrogateescape")


def test_markers_have_the_names_of_their_uploads_and_say_one_thing(fed: Scratch, uploads: dict[str, bytes]) -> None:
    markers = {**fed.markers(), **fed.markers("guarded")}
    assert len(markers) >= 5 * len(TEXTS)
    for name, marker in markers.items():
        assert os.path.splitext(name)[0] in uploads
        assert name.endswith(f".{marker['outcome']}")
        assert name.endswith(MARKER_SUFFIXES)
        assert marker["outcome"] in ("rejected", "live", "unchanged", "failed")
        for key in ("reason", "hint", "signer"):
            assert marker[key].isprintable(), f"{name!r}: {marker[key]!r}"
            assert len(marker[key]) < 5000


def test_who_signed_is_shown_and_obeyed_by_no_terminal(fed: Scratch) -> None:
    signed = fed.markers("guarded")
    assert signed["signed-principal.tar.live"]["signer"] == r"\x1b[2J\x1b[H\x1b]0;owned\x07\u202e"
    assert signed["signed-namespace.tar.rejected"]["problem"] == "wrong-namespace"
    assert r"certified of mallory\x1b[2J" in signed["signed-certified.tar.rejected"]["reason"]


def test_the_log_and_the_records_of_it_are_single_lines(fed: Scratch) -> None:
    for line in fed.daemon.log().splitlines():
        assert re.match(r"\d\d:\d\d:\d\d (info|notice|warning|error) ", line), line
        assert not line.startswith(FORGED)
        assert line.isprintable(), line
    for deployment in fed.deployments():
        assert all(text.isprintable() for text in (deployment.file_name, deployment.reason, deployment.hint))


def test_every_status_that_systemd_was_told_is_one_line_that_it_takes(fed: Scratch) -> None:
    said = [state for state in fed.daemon.notify.states if state.startswith("STATUS=")]
    assert any("rejected: " in state for state in said)
    for state in said:
        assert state.isprintable(), state
        assert len(state.encode()) < 4096
    assert {state.partition("=")[0] for state in fed.daemon.notify.states} == {"READY", "STATUS", "WATCHDOG"}


@pytest.mark.parametrize("verb", [verb for verb in ("status", "history", "check") if verb in VERBS])
def test_what_commands_tell_of_it(fed: Scratch, verb: str) -> None:
    done = fed.run(verb)
    assert "Traceback" not in done.stderr
    assert_tame(done.stdout, verb)
    assert_tame(done.stderr, verb)
    shown = on_a_terminal(fed, verb, *(["-v"] if verb == "history" else []))
    assert_tame(shown, f"{verb} on a terminal")
    assert "evil.invalid\x1b" not in shown
    document = fed.run(verb, "--json").stdout
    assert all(line.isprintable() for line in document.splitlines())
    json.loads(document)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_a_command_is_given(fed: Scratch, tmp_path: Path, text: str) -> None:
    """A name on its command line, and who it is told to be."""
    argument = text.replace("\0", "")
    tarball = tmp_path / named(text, ".tar")
    tarball.write_bytes(b"no tarball")
    who = {"SUDO_USER": argument, "LOGNAME": argument, "SUDO_UID": "0"}
    done = fed.run("deploy", "shop", str(tarball), **who)
    assert done.returncode == 3, done
    assert_tame(done.stdout, "stdout")
    assert_tame(done.stderr, "stderr")
    newest = fed.deployments()[0]
    assert newest.operator.isprintable()
    assert newest.operator != argument


@pytest.mark.parametrize("key", ["newline", "clear", "bidi", "invalid"])
def test_what_follow_shows_of_it(fed: Scratch, key: str) -> None:
    arguments = ("follow", "shop", named(TEXTS[key], ".tar"), "--timeout", "10")
    done = fed.run(*arguments)
    assert done.returncode == 3, done
    assert_tame(done.stdout, "follow")
    assert_tame(done.stderr, "follow")
    assert_tame(on_a_terminal(fed, *arguments), "follow on a terminal")


def test_what_a_command_is_given_on_a_terminal(fed: Scratch) -> None:
    everything = "".join(TEXTS.values()).replace("\0", "")[:2000]
    for arguments in (["status", everything], ["rollback", "shop", everything], [f"--{everything}"], [everything]):
        shown = on_a_terminal(fed, *arguments)
        assert shown
        assert_tame(shown, arguments[0][:20])


def test_what_a_configuration_has_in_it(tmp_path: Path) -> None:
    """A key or a value that says something else than it is."""
    scratch = Scratch(tmp_path / "root")
    scratch.add_site()
    daemon = scratch.start_daemon()
    lines = [f"{json.dumps(text.encode('utf-8', 'replace').decode())} = 1" for text in TEXTS.values()]
    scratch.layout.site_file("bad").write_text("live = 3\n" + "\n".join(lines))
    (scratch.layout.sites / named(TEXTS["clear"], ".toml")).write_text('live = "/nonexistent\\u001b[2J"')
    daemon.reload()
    line = daemon.wait_status("bad configuration")
    assert line.isprintable()
    assert_tame(daemon.log(), "log")
    for verb in ("check", "status"):
        done = scratch.run(verb)
        assert done.returncode == 78
        assert_tame(done.stdout, verb)
        assert_tame(done.stderr, verb)
        assert_tame(on_a_terminal(scratch, verb), verb)
    daemon.stop()

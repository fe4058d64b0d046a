"""The packages agree with the code and with each other, as far as that shows without building them."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import swapd
from swapd.daemon import STOP_PATIENCE
from swapd.host.linux import NICENESS
from swapd.model.errors import ExitStatus
from swapd.model.layout import Layout
from swapd.model.units import parse_duration
from tests.support.scripts import load_script

PROJECT = Path(__file__).parents[2]
PACKAGING = PROJECT / "packaging"
UNIT = PROJECT / "systemd/swapd.service"
MOST_EXPOSURE = 2.2  # of `systemd-analyze security`


def read(path: str) -> str:
    return (PROJECT / path).read_text(encoding="utf-8")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(program), reason=f"no {program} on this machine")


USERS = {unit: PROJECT / "systemd" / unit for unit in ("swapd-users.socket", "swapd-users@.service")}


def unit_settings() -> dict[str, str]:
    """The unit's settings; none of those that are read here may be given twice."""
    parser = configparser.ConfigParser(interpolation=None, comment_prefixes=("#",), delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # systemd tells upper from lower case
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return dict(parser["Service"])


def test_versions_agree() -> None:
    version = re.escape(swapd.__version__)
    assert re.match(rf"swapd \({version}\) ", read("packaging/debian/changelog"))
    assert re.search(rf"^Version: +{version}$", read("packaging/rpm/swapd.spec"), re.MULTILINE)
    assert re.search(rf"^\* .* - {version}-1$", read("packaging/rpm/swapd.spec"), re.MULTILINE)
    assert re.search(rf"^## \[{version}\]", read("CHANGELOG.md"), re.MULTILINE)


def test_debian_build_finds_every_dependency() -> None:
    # dh_python3 turns these names into Debian's, and apt then installs them: a dependency that is not packaged as
    # python3-NAME in Debian would make the package uninstallable. Whoever adds one, looks it up and adds it here.
    in_debian = {"click", "psutil", "rich", "sdnotify", "tomli-w", "watchdog"}
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert {re.split("[<>=~!]", requirement)[0] for requirement in project["dependencies"]} <= in_debian


def test_interpreter_is_the_one_that_is_required() -> None:
    needed = tomllib.loads(read("pyproject.toml"))["project"]["requires-python"].removeprefix(">=")
    assert f"python3 (>= {needed})" in read("packaging/debian/control")
    assert f"python3-devel >= {needed}" in read("packaging/rpm/swapd.spec")


@pytest.mark.parametrize("path", ["packaging/debian/rules", "packaging/rpm/swapd.spec", "packaging/install"])
@pytest.mark.parametrize("part", [path.name for path in (PROJECT / "systemd").iterdir() if path.suffix != ".catalog"])
def test_each_packaging_installs_every_part(path: str, part: str) -> None:
    said = read(path)
    assert f"systemd/{part}" in said or (path.endswith("install") and f" {part}" in said and "systemd/$unit" in said)


PAGES = [path.name for path in (PACKAGING / "man").iterdir()]


@pytest.mark.parametrize("page", PAGES)
def test_each_packaging_installs_every_manual_page(page: str) -> None:
    assert read("packaging/debian/swapd.manpages") == "packaging/man/*\n"
    assert '"$project"/packaging/man/*' in read("packaging/install")
    spec = read("packaging/rpm/swapd.spec")
    installed = f"%{{_mandir}}/man{page.rpartition('.')[2]}/{page}"
    assert f"%{{buildroot}}{installed}\n" in spec
    assert f"\n{installed}*\n" in spec


@pytest.mark.parametrize("path", ["packaging/debian/swapd.install", "packaging/rpm/swapd.spec", "packaging/install"])
@pytest.mark.parametrize("script", ["bash/swapd", "zsh/_swapd", "fish/swapd.fish"])
def test_each_packaging_installs_the_completions(path: str, script: str) -> None:
    assert f"packaging/completions/{script} " in read(path)


@pytest.mark.parametrize("path", ["packaging/debian/swapd.install", "packaging/rpm/swapd.spec", "packaging/install"])
def test_each_packaging_installs_the_dashboard(path: str) -> None:
    assert "packaging/grafana/swapd.json " in read(path)


@pytest.mark.parametrize("path", ["packaging/debian/swapd.install", "packaging/rpm/swapd.spec", "packaging/install"])
@pytest.mark.parametrize("file", ["grafana/swapd.json", "schema.json"])
def test_each_packaging_installs_what_other_programs_read(path: str, file: str) -> None:
    assert f"packaging/{file} " in read(path)
    assert f"/usr/share/swapd/{file}" in read("packaging/man/swapd.8")


def test_tmpfiles_and_unit_make_the_directories_of_the_layout() -> None:
    layout = Layout()
    wanted = {layout.configuration, layout.sites, layout.spool, layout.state, layout.run}
    lines = [line.split() for line in read("systemd/swapd.tmpfiles").splitlines() if not line.startswith("#")]
    assert {Path(fields[1]) for fields in lines} == wanted
    assert {(fields[0], *fields[2:5]) for fields in lines} == {("d", "0755", "root", "root")}
    unit = unit_settings()
    assert Path("/run", unit["RuntimeDirectory"]) == layout.run
    assert Path("/var/lib", unit["StateDirectory"]) == layout.state
    assert unit["ReadWritePaths"].split() == [str(layout.spool), "-/var/lib/prometheus/node-exporter"]


@pytest.mark.parametrize("unit", [UNIT, *USERS.values()], ids=lambda path: path.name)
def test_every_setting_of_the_unit_has_its_reason(unit: Path) -> None:
    lines = unit.read_text(encoding="utf-8").splitlines()
    explained = False
    begin = next(number for number, line in enumerate(lines) if line in ("[Service]", "[Socket]"))
    end = lines.index("[Install]") if "[Install]" in lines else len(lines)
    for line in lines[begin + 1 : end]:
        if line.startswith("#"):
            explained = True
        elif not line:
            explained = False  # a comment is for what stands directly below it
        else:
            assert explained, f"{line} has no comment above it"


def test_pause_record_survives_the_daemon() -> None:
    unit = unit_settings()
    assert unit["RuntimeDirectoryPreserve"] == "yes"
    assert unit["ExecStopPost"].endswith(" resume")
    assert unit["SystemCallErrorNumber"] == "EPERM"


def test_daemon_gives_its_workers_up_before_systemd_gives_it_up() -> None:
    unit = unit_settings()
    assert parse_duration(unit["TimeoutStopSec"]) > STOP_PATIENCE
    assert int(unit["RestartPreventExitStatus"]) == ExitStatus.CONFIGURATION


def test_workers_may_hurry_in_a_pause() -> None:
    # Without CAP_SYS_NICE, only this limit lets a worker that extracted at nice 0 come back: getrlimit(2), RLIMIT_NICE.
    unit = unit_settings()
    assert int(unit["Nice"]) == int(unit["LimitNICE"]) == NICENESS


@needs("systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    # The unit as it is, but for the program, which this machine need not have.
    units = []
    for source in (UNIT, *USERS.values()):
        unit = tmp_path / source.name
        unit.write_text(source.read_text(encoding="utf-8").replace("/usr/bin/swapd", "/bin/true"), encoding="utf-8")
        units.append(str(unit))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    # Other units of this machine are read along, and may have faults of their own.
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if "swapd" in line]
    assert not complaints


@needs("systemd-analyze")
@pytest.mark.parametrize("unit", [UNIT, USERS["swapd-users@.service"]], ids=lambda path: path.name)
def test_sandbox_is_as_tight_as_promised(unit: Path, tmp_path: Path) -> None:
    shown = tmp_path / unit.name.replace("@", "")  # a template alone has none
    shown.write_text(unit.read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(shown)],
        capture_output=True,
        text=True,
        check=True,
    )
    exposure = re.search(r"Overall exposure level for swapd[a-z-]*.service: ([0-9.]+)", done.stdout)
    assert exposure is not None
    assert float(exposure[1]) <= MOST_EXPOSURE


OF_THE_JAIL = {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp"}


@needs("systemd-analyze")
def test_filter_has_the_system_calls_that_swapd_is_made_of() -> None:
    listed = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    members: dict[str, set[str]] = {}
    for line in listed.splitlines():
        if line.startswith("@"):
            group = members.setdefault(line.strip(), set())
        elif line.startswith("    ") and not line.strip().startswith("#"):
            group.add(line.strip())

    def calls(name: str) -> set[str]:
        return {
            call
            for member in members.get(name, set())
            for call in (calls(member) if member.startswith("@") else {member})
        }

    wanted = {"renameat2", "syncfs", "pidfd_open", "pidfd_send_signal", "memfd_create", "ioctl", "fcntl", "setpriority"}
    # What the jail of an extraction is made of; without one of them a layer of it is left out.
    wanted |= {"capset", "prctl", "prlimit64", "setsid"} | OF_THE_JAIL
    allowed = set().union(*({name, *calls(name)} for name in unit_settings()["SystemCallFilter"].split()))
    assert wanted <= allowed


@needs("sh")
@pytest.mark.parametrize(
    "script",
    [path for path in [*PACKAGING.iterdir(), *PACKAGING.glob("*/*")] if path.is_file() and os.access(path, os.X_OK)],
    ids=lambda path: path.name,
)
def test_scripts_parse(script: Path) -> None:
    first = script.read_text(encoding="utf-8").splitlines()[0]
    if first.endswith("sh"):
        subprocess.run(["sh", "-n", str(script)], check=True)
    elif "python" in first:
        compile(script.read_text(encoding="utf-8"), script.name, "exec")
    else:
        assert first == "#!/usr/bin/make -f"


@needs("mandoc")
@pytest.mark.parametrize("page", PAGES)
def test_manual_pages_are_well_formed(page: str) -> None:
    subprocess.run(["mandoc", "-T", "lint", "-W", "warning", str(PACKAGING / "man" / page)], check=True)


def run_install(verb: str, *, destdir: Path, prefix: str) -> None:
    environment = {**os.environ, "DESTDIR": str(destdir), "PREFIX": prefix}
    subprocess.run([str(PACKAGING / "install"), verb], env=environment, check=True)


def test_staged_installation_is_complete_and_goes_away(tmp_path: Path) -> None:
    run_install("install", destdir=tmp_path, prefix="/opt/swapd")
    below = tmp_path / "opt/swapd"
    assert "ExecStart=/opt/swapd/bin/swapd run" in (below / "lib/systemd/system/swapd.service").read_text()
    assert {path.name for path in below.glob("lib/*.d/*")} == {"swapd.conf"}
    assert (below / "share/man/man8/swapd.8").is_file()
    completions = (
        "bash-completion/completions/swapd",
        "zsh/site-functions/_swapd",
        "fish/vendor_completions.d/swapd.fish",
    )
    assert all((below / "share" / path).is_file() for path in completions)
    assert (below / "share/swapd/grafana/swapd.json").is_file()
    assert (below / "lib/swapd/swapd/model/layout.py").is_file()
    run_install("uninstall", destdir=tmp_path, prefix="/opt/swapd")
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]


def test_installation_runs_from_its_prefix(tmp_path: Path) -> None:
    run_install("install", destdir=Path("/"), prefix=str(tmp_path))
    program = [sys.executable, "-I", str(tmp_path / "bin/swapd")]
    said = subprocess.run([*program, "--version"], cwd="/", capture_output=True, text=True, check=True).stdout
    assert swapd.__version__ in said
    assert (tmp_path / "lib/swapd/swapd/__pycache__").is_dir(), "it ran from somewhere else"


def load_bootstrap() -> ModuleType:
    return load_script(PACKAGING / "bootstrap-venv")


def test_bootstrap_installs_what_a_group_lists() -> None:
    groups = tomllib.loads(read("pyproject.toml"))["dependency-groups"]
    bootstrap = load_bootstrap()
    assert bootstrap.requirements_of(["--group", "lint", "--editable", "."]) == [*groups["lint"], "--editable", "."]
    with pytest.raises(bootstrap.CannotBootstrapError, match="no dependency group"):
        bootstrap.requirements_of(["--group", "nope"])


def test_bootstrap_leaves_a_stamped_environment_alone(tmp_path: Path) -> None:
    bootstrap = load_bootstrap()
    stamp = bootstrap.stamp_of(tmp_path, ["--group", "lint"])
    stamp.touch()
    bootstrap.bootstrap(tmp_path, ["--group", "lint"])
    assert list(tmp_path.iterdir()) == [stamp]
    assert bootstrap.stamp_of(tmp_path, ["--group", "test"]) != stamp


def test_test_packages_are_listed_once() -> None:
    lines = read("packaging/test-packages").splitlines()
    names = [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", name) for name in names)

"""The web server that the benchmarks pause: Apache on a booted host, with swapd's source tree beside it.

The source tree and not the package: a benchmark is run again after each change, and the modules are the same.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.programs import compile_program
from tests.host.machine import Host, booted, sweep, wait_until
from tests.host.package import CHECKOUT
from tests.host.roots import debian_root
from tests.host.webhost import PACKAGES, WebHost

SOURCE = "/opt/bench"  # on the host: swapd, this package, the C programs
WWW = "/srv/www"  # a filesystem of its own, so that the overlay below the host's root has no part in a rename
LIVE = f"{WWW}/live"
STAGED = f"{WWW}/staged"
RELEASES = ("A", "B")
PARTS = 5  # files that one page reads
LUA = "page.lua"
SSI = "page.shtml"

# Sites whose pages wait for a database and compute a little: mod_lua is the one interpreter in Debian's apache2 itself.
PAGE_LUA = """
function handle(r)
    local wait, turns = (r.args or ""):match("(%d+),(%d+)")
    local sum = 0
    for i = 1, tonumber(turns) do sum = (sum + i * i) % 1000003 end
    if tonumber(wait) > 0 then r.usleep(tonumber(wait) * 1000) end
    r.content_type = "text/plain"
    r:puts(string.rep("release=%s;\\n", 5), sum, "\\n")
    return apache2.OK
end
"""

CONFIGURATION = f"""
<VirtualHost *:80>
    ServerName bench.test
    DocumentRoot {LIVE}
    CustomLog /dev/null common
    <Directory {WWW}>
        Require all granted
        Options FollowSymLinks Includes
        AddOutputFilter INCLUDES .shtml
        AddHandler lua-script .lua
    </Directory>
</VirtualHost>
"""


@dataclass(slots=True)
class Server:
    """A booted host with Apache. The live path is a directory or a link; see ``lay_out``."""

    web: WebHost
    programs: dict[str, Path] = field(default_factory=dict)

    @property
    def host(self) -> Host:
        return self.web.host

    def python(self, module: str, *arguments: str) -> list[str]:
        """The command line that runs a module of the source tree with the host's own Python."""
        return self.host.enter("env", f"PYTHONPATH={SOURCE}", "/usr/bin/python3", "-m", module, *arguments)

    def in_network(self, program: str, *arguments: str) -> list[str]:
        """The command line that runs one of the C programs of this machine in the host's network."""
        return ["nsenter", "-t", str(self.host.leader), "-n", "--", str(self.programs[program]), *arguments]

    def master(self) -> int:
        """Apache's first process, by the host's own numbers."""
        return int(self.web.run("systemctl", "show", "--value", "--property=MainPID", "apache2"))

    def count_children(self) -> int:
        master = self.master()
        return len(self.web.run("cat", f"/proc/{master}/task/{master}/children").split())

    def use_prefork(self, children: int) -> None:
        """Apache with exactly so many children, all of them started."""
        limits = ("StartServers", "MinSpareServers", "MaxSpareServers", "ServerLimit", "MaxRequestWorkers")
        text = "".join(f"{name} {children}\n" for name in limits) + "MaxConnectionsPerChild 0\n"
        self.host.write("/etc/apache2/mods-available/mpm_prefork.conf", text)
        self.web.use_mpm("prefork")
        wait_until(lambda: self.count_children() == children, f"{children} children")

    def apache_version(self) -> str:
        found = re.search(r"Apache/(\S+)", self.web.run("apache2ctl", "-v"))
        return found[1] if found else "?"

    def lay_out(self, *, is_link: bool = False) -> None:
        """The releases anew: the first is live, as a directory with the second staged beside it, or by a link."""
        self.web.run("sh", "-c", f"rm -rf {WWW}/*")
        for name in RELEASES:
            tree = f"{WWW}/{name}"
            self.host.write(f"{tree}/{LUA}", PAGE_LUA.replace("%s", name))
            self.host.write(f"{tree}/{SSI}", "".join(f'<!--#include file="part{n}.txt" -->' for n in range(PARTS)))
            for number in range(PARTS):
                self.host.write(f"{tree}/part{number}.txt", f"release={name};\n" + "." * 1000 + "\n")
        first, second = (f"{WWW}/{name}" for name in RELEASES)
        if is_link:
            self.web.run("ln", "-s", first, LIVE)
        else:
            self.web.run("mv", first, LIVE)
            self.web.run("mv", second, STAGED)


@contextlib.contextmanager
def served(programs: Sequence[str]) -> Iterator[Server]:
    """A host with Apache and the C programs, for as long as the block lasts."""
    sweep()
    with tempfile.TemporaryDirectory(prefix="swapd-bench-") as directory:
        compiled = {name: compile_program(name, Path(directory)) for name in programs}
        with booted(debian_root([*PACKAGES, "psmisc", *dependencies()])) as host:
            server = Server(WebHost(host), compiled)
            _install(server)
            yield server


def dependencies() -> list[str]:
    """Debian's packages of what swapd imports: each is called python3- and its own name."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    return sorted("python3-" + re.split(r"[^\w-]", dependency)[0] for dependency in project["dependencies"])


def _install(server: Server) -> None:
    source = server.host.path(SOURCE)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "swapd", source / "swapd", ignore=ignored)
    shutil.copytree(CHECKOUT / "tests/benchmarks", source / "tests/benchmarks", ignore=ignored)
    for name, program in server.programs.items():
        shutil.copy(program, source / name)
    server.web.run("python3", "-m", "compileall", "-q", SOURCE)  # as a package's installation does
    server.web.run("mkdir", WWW)
    server.web.run("mount", "-t", "tmpfs", "tmpfs", WWW)
    server.host.write("/etc/apache2/sites-available/000-default.conf", CONFIGURATION)
    server.web.run("a2enmod", "--quiet", "include", "lua")
    # Debian's unit allows 4915 tasks; its Apache, by ulimit, 8192 descriptors.
    server.lay_out()

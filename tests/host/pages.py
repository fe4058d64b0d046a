"""Pages of PHP that read five files slowly, and visitors who see which releases each page was made of."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.host.machine import Host
from tests.host.releases import MARK, Packed, mark_text, pack_tree
from tests.host.schedule import TIMEOUT, Schedule
from tests.host.webhost import WebHost

# nginx is there to test what it would include.
PHP = ("libapache2-mod-php8.2", "php8.2-fpm", "nginx-light")
PARTS = 5  # files that one page includes
PAGE = "page.php"
SLOWNESS = 8  # milliseconds before each of them
_PART = re.compile(r"part=(\w+)")

# What an application is told, and where it is.
INFO = """\
<?php
header('Content-Type: text/plain');
$names = 'DOCUMENT_ROOT SCRIPT_FILENAME SCRIPT_NAME PHP_SELF PATH_INFO QUERY_STRING SWAPD_ROOT';
foreach (explode(' ', $names) as $name) echo $name, '=', $_SERVER[$name] ?? '', "\\n";
echo 'FILE=', __FILE__, "\\n";
"""
# A page that goes on when somebody says so.
SIGNALS = "/srv/signals"
WAITING = f"""\
<?php
touch('{SIGNALS}/began');
while (!file_exists('{SIGNALS}/end')) {{ usleep(10000); clearstatcache(); }}
include __DIR__ . '/part0.php';
"""
FRONT = """\
RewriteEngine On
RewriteCond %{REQUEST_FILENAME} !-f
RewriteCond %{REQUEST_FILENAME} !-d
RewriteRule ^ index.php [L]
"""


def use_php(web: WebHost, mpm: str) -> None:
    """mod_php, which needs prefork; for the others php-fpm. And server-side includes."""
    web.run("a2enmod", "--quiet", "include")
    if mpm == "prefork":
        web.use_mpm(mpm)
        web.run("a2enmod", "--quiet", "php8.2")
        web.run("systemctl", "restart", "apache2")
    else:
        web.run("a2dismod", "--quiet", "--force", "php8.2")
        web.run("a2enmod", "--quiet", "proxy_fcgi", "setenvif")
        web.run("a2enconf", "--quiet", "php8.2-fpm")
        web.use_mpm(mpm)


def pack_pages(directory: Path, name: str) -> Packed:
    """A release of PHP: a slow page, front controllers with and without a RewriteBase, and names in need of quoting."""
    tree = directory / "trees" / name
    wait = f"usleep({SLOWNESS * 1000});"
    files = {
        MARK: mark_text(name),
        PAGE: "<?php\n" + "".join(f"{wait} include __DIR__ . '/part{number}.php';\n" for number in range(PARTS)),
        **{f"part{number}.php": f"<?php echo 'part={name};';\n" for number in range(PARTS)},
        "info.php": INFO,
        "front/index.php": INFO,
        "front/.htaccess": FRONT,
        "based/index.php": INFO,
        "based/.htaccess": f"{FRONT}RewriteBase /based/\n".replace("^ index.php", ". /based/index.php"),
        "waiting.php": WAITING,
        "ssi/page.shtml": '<!--#include virtual="/waiting.php" --><!--#include virtual="/part0.php" -->',
        "ssi/.htaccess": "Options +Includes\nAddOutputFilter INCLUDES .shtml\n",
        "index.html": f"{name}\n",
        "sub/index.php": INFO,
        "größe & maß/what? 100%.txt": f"{name}\n",
    }
    for path, content in files.items():
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return Packed(name, tree, pack_tree(tree, directory / f"{name}.tar.gz", ".tar.gz"))


@dataclass(frozen=True, slots=True)
class Swap:
    """A swap that was made, from its command to the command's end; seconds of the clock that only runs on."""

    begin: float
    end: float
    mark: str


@dataclass(frozen=True, slots=True)
class Visit:
    """One request, and the releases that the parts of its page were of."""

    sent: float
    done: float
    failure: str
    marks: tuple[str, ...]

    @property
    def is_mixed(self) -> bool:
        return len(set(self.marks)) > 1

    def is_between(self, swaps: list[Swap]) -> bool:
        """Whether it was asked after a swap had ended, and answered before the next began: which release is known."""
        following = next((swap for swap in swaps if swap.end >= self.sent), None)
        return swaps[0].end < self.sent and (following is None or self.done < following.begin)

    def is_stale(self, swaps: list[Swap]) -> bool:
        """Whether it was asked after a swap had ended, and answered with the release before it."""
        if self.failure or not self.is_between(swaps):
            return False
        return self.marks[0] != next(swap.mark for swap in reversed(swaps) if swap.end < self.sent)


QUIET = 0.3  # seconds after each swap in which nothing else happens: what is asked then must come from its release


class Visitors(Schedule[Visit]):
    """Visitors of the slow page, and the swaps that they lived through."""

    def __init__(self, host: Host, name: str, rate: float) -> None:
        super().__init__(host, name, rate)
        self.swaps: list[Swap] = []

    def visit(self, due: float) -> Visit:  # noqa: ARG002 - what they saw counts here, and not how long it took
        sent, failure, marks = time.monotonic(), "", tuple[str, ...]()
        connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=TIMEOUT)
        try:
            connection.request("GET", f"/{PAGE}", headers={"Host": self.name})
            response = connection.getresponse()
            marks = tuple(_PART.findall(response.read().decode(errors="replace")))
            if response.status != 200 or len(marks) != PARTS:
                failure = f"status {response.status}, {len(marks)} parts"
        except (OSError, http.client.HTTPException) as error:
            failure = repr(error)
        finally:
            connection.close()
        return Visit(sent, time.monotonic(), failure, marks)

    def during(self, swap: Callable[[str], object], names: Iterable[str]) -> None:
        """Makes one release after the other live, with visitors meanwhile and some time after each."""
        for name in names:
            begin = time.monotonic()
            swap(name)
            self.swaps.append(Swap(begin, time.monotonic(), name))
            time.sleep(QUIET)

    def count(self) -> dict[str, int]:
        """What visitors noticed."""
        return {
            "asked": len(self.visits),
            "failed": sum(bool(visit.failure) for visit in self.visits),
            "mixed": sum(visit.is_mixed for visit in self.visits),
            "stale": sum(visit.is_stale(self.swaps) for visit in self.visits),
            "judged": sum(visit.is_between(self.swaps) for visit in self.visits),
        }

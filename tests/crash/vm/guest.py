"""What runs in the virtual machine, as its first process: ``python3 -m tests.crash.vm.guest``, on a read-only root.

Of the disk that is mounted at ``PLACE`` it first says what the last power cut left there, then starts swapd, and goes
on dropping tarballs until the power is cut again. All that it has to say goes to the second serial port, a line of JSON
for each event. It uses nothing of swapd's own code.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import tomllib
import traceback
from pathlib import Path
from typing import Any

PLACE = Path("/srv")
KEEP = 2
MANIFEST = "MANIFEST"
DONE = (".live", ".unchanged")
MARKERS = (*DONE, ".rejected", ".failed")
# Problems of a host that has too little of a processor, which this one may be, or that goes down all the time.
TOO_SLOW = ("no-guardian", "pause-timed-out", "crashed", "interrupted")
ROLLBACKS = 0.3  # of the deployments are followed by one
LOOK = 0.05  # seconds between two looks into a drop directory

_saying = threading.Lock()


def say(event: str, **facts: Any) -> None:
    """Tells the outer machine, which has it even if the power is cut right after."""
    with _saying, open("/dev/ttyS1", "wb", buffering=0) as channel:
        channel.write(json.dumps({"event": event, **facts}).encode() + b"\n")


# Releases that can tell whether they are whole.


def make_release(mark: str) -> dict[str, bytes]:
    """A small site of its own: each file differs from that of any other release, and the manifest has all digests."""
    source = random.Random(mark)
    content = {f"{part}/page{number}.html": _text(source, mark) for part in ("a", "b/c") for number in range(4)}
    content["index.html"] = f"<h1>{mark}</h1>\n".encode()
    content["data.bin"] = source.randbytes(200_000)
    lines = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(content.items()))
    text = f"{mark}\n{lines}"
    content[MANIFEST] = f"{text}{hashlib.sha256(text.encode()).hexdigest()}\n".encode()
    return content


def _text(source: random.Random, mark: str) -> bytes:
    return b"".join(f"<p>{mark} {source.getrandbits(256):x}</p>\n".encode() for _ in range(source.randrange(1, 200)))


def read_mark(tree: Path) -> str:
    """The mark of the release that this tree is, byte for byte; else what is wrong with it, in brackets."""
    try:
        text = (tree / MANIFEST).read_bytes()
        body, last = text[: text[:-1].rindex(b"\n") + 1], text.splitlines()[-1]
        if hashlib.sha256(body).hexdigest().encode() != last:
            return "[the manifest is broken]"
        mark, *lines = body.decode().splitlines()
        wanted = {line[66:]: line[:64] for line in lines}
        there = {str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir()} - {MANIFEST}
        if there != wanted.keys():
            return f"[of {mark} there is not, or too much: {sorted(there ^ wanted.keys())}]"
        for name, digest in wanted.items():
            data = (tree / name).read_bytes()
            if hashlib.sha256(data).hexdigest() != digest:
                return f"[{mark}: {name} is broken: {len(data)} bytes, {data[:20]!r}…]"
    except (OSError, ValueError, IndexError) as error:
        return f"[{error!r}; there: {sorted(path.name for path in tree.iterdir()) if tree.is_dir() else 'nothing'}]"
    return mark


def write_tree(tree: Path, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)


def pack(content: dict[str, bytes], path: Path) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), 1_600_000_000
            archive.addfile(member, io.BytesIO(data))


# The disk.


class Site:
    """The site of this machine, called as its strategy."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.live = PLACE / "www" / name
        self.releases = PLACE / "www" / f"{name}.releases"
        self.incoming = PLACE / "var/spool/swapd" / name
        self.state = PLACE / "var/lib/swapd" / name
        self._map = self.state / "route.map"

    def prepare(self) -> None:
        """Its configuration, and a live path that was filled by hand."""
        configuration = PLACE / f"etc/swapd/sites/{self.name}.toml"
        configuration.parent.mkdir(parents=True, exist_ok=True)
        configuration.write_text(
            f'live = "{self.live}"\nstrategy = "{self.name}"\nkeep = {KEEP}\n'
            '[verify]\nsettle = "200ms"\n[pause]\nprocesses = ["httpd"]\n'
        )
        self.incoming.mkdir(parents=True)
        if self.name == "pinned":  # what `swapd init` writes; there is no web server that could be asked
            route = PLACE / f"etc/swapd/apache/{self.name}.conf"
            for path in (route, self._map):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        write_tree(self.live, make_release(f"{self.name}-by-hand"))

    def read_live(self) -> str:
        """The mark of what visitors get: where the route leads to, if there is one."""
        found = re.findall(r"^live (\S+)$", self._map.read_text(), re.MULTILINE) if self._map.exists() else []
        tree = self.live.parent / found[0] if found else self.live
        return read_mark(tree) if os.path.lexists(tree) else "nothing"

    def read_record(self) -> dict[str, Any]:
        """What swapd has written down of itself."""
        record = self.state / "site.toml"
        return tomllib.loads(record.read_text()) if record.exists() else {}

    def look(self) -> dict[str, Any]:
        """What is live, and what is kept according to swapd's record."""
        kept = {}
        try:
            kept = {name: self._read_kept(name) for name in self.read_record().get("previous", [])}
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            kept = {"record": f"[{error!r}]"}
        path = read_mark(self.live) if os.path.lexists(self.live) else "nothing"
        return {"live": self.read_live(), "path": path, "kept": kept}

    def _read_kept(self, name: str) -> str:
        """The mark of a kept release; where a rollback to it was cut short, under the name that it has meanwhile."""
        place = self.releases / name
        if place.is_dir():
            return read_mark(place)
        others = [other for other in (*self.releases.glob(".staged-*"), self.live) if other.is_dir()]
        wanted = f"{self.name}-by-hand" if name.startswith("adopted@") else name.partition("@")[0]
        return wanted if wanted in map(read_mark, others) else "nothing"


class Uploader:
    """Somebody who drops one tarball after the other for a site, each when the one before it is live."""

    def __init__(self, site: Site, boot: int) -> None:
        self._site = site
        self._boot = boot
        self._source = random.Random(f"{site.name} {boot}")
        self._control = site.incoming / "rollback"
        self._was_asked = self._control.exists()
        left = [path for path in sorted(site.incoming.glob("*.tar*")) if path.suffix in (".tar", ".gz")]
        self._left = [(path, _is_whole(path)) for path in left if not path.name.startswith(".")]

    def run(self) -> None:
        with _told():
            if self._was_asked:  # once: were it done twice, something else would be live
                outcome = self._wait(self._control)
                say("resumed", mark=self._site.read_live(), outcome=outcome)
            for path, is_whole in self._left:
                self._go_on(path, is_whole)
            number = 0
            while True:
                number += 1
                self._drop(f"{self._site.name}-{self._boot:04}-{number:04}")
                if self._source.random() < ROLLBACKS:
                    self._roll_back()

    def _go_on(self, tarball: Path, is_whole: bool) -> None:
        """What lay there when the power was cut: what came to the disk whole, swapd deploys by itself."""
        if is_whole:
            outcome = self._wait(tarball)
            say("resumed", mark=tarball.name.partition(".")[0], outcome=outcome)
        for path in self._site.incoming.glob(f"{tarball.name}*"):
            path.unlink(missing_ok=True)

    def _drop(self, mark: str) -> None:
        suffix = self._source.choice((".tar", ".tar.gz"))
        packed = Path("/tmp") / f"{mark}{suffix}"
        pack(make_release(mark), packed)
        target = self._site.incoming / packed.name
        digest = hashlib.sha256(packed.read_bytes()).hexdigest()
        say("asked", mark=mark)
        target.with_name(f"{target.name}.sha256").write_text(f"{digest}  {target.name}\n")
        temporary = target.with_name(f".{target.name}.upload")
        shutil.move(packed, temporary)
        if self._source.random() < 0.5:  # some uploaders see to it, some do not
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        os.rename(temporary, target)
        outcome = self._wait(target)
        say("ended", mark=mark, outcome=outcome)

    def _roll_back(self) -> None:
        """To the release before, which is live again then."""
        previous = self._site.read_record()["previous"][0]
        mark = read_mark(self._site.releases / previous)
        say("asked", mark=mark)
        for marker in self._site.incoming.glob("rollback.*"):
            marker.unlink()
        self._control.touch()
        outcome = self._wait(self._control)
        say("ended", mark=mark, outcome=outcome)

    def _wait(self, tarball: Path) -> str:
        """The marker's name for it, with its text unless all is well. What was only too slow is tried again."""
        while True:
            time.sleep(LOOK)
            for suffix in MARKERS:
                marker = tarball.with_name(f"{tarball.name}{suffix}")
                if suffix in DONE and tarball.exists():
                    continue
                try:
                    text = marker.read_text()
                except FileNotFoundError:
                    continue
                if suffix not in DONE and tomllib.loads(text)["problem"] in TOO_SLOW:
                    marker.unlink()  # swapd writes it anew
                    os.utime(tarball)
                    continue
                return suffix[1:] if suffix in DONE else f"{suffix[1:]}: {text}"


def _is_whole(tarball: Path) -> bool:
    sidecar = tarball.with_name(f"{tarball.name}.sha256")
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    return sidecar.exists() and sidecar.read_bytes().startswith(digest.encode())


@contextlib.contextmanager
def _told() -> Any:
    try:
        yield
    except BaseException:
        say("broken", why=traceback.format_exc())
        raise


def main() -> None:
    with _told():
        words = dict(word.partition("=")[::2] for word in Path("/proc/cmdline").read_text().split())
        site = Site(words["site"])
        if not (PLACE / "prepared").exists():
            site.prepare()
            os.sync()
            (PLACE / "prepared").touch()
            os.sync()
        say("checked", **site.look())
        uploader = Uploader(site, int(words["boot"]))
        log = os.open("/dev/ttyS0", os.O_WRONLY)
        subprocess.Popen(["/opt/httpd", "-f", "-p", "8080"], stdout=log, stderr=log)
        command = [sys.executable, "-m", "swapd", "--root", str(PLACE), "run"]
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        say("started")
        threading.Thread(target=uploader.run, daemon=True).start()
        say("broken", why=f"swapd ended with {daemon.wait()}")
    while True:  # the kernel panics when its first process ends
        time.sleep(1000)


if __name__ == "__main__":
    main()

"""What a virtual machine boots: Debian's kernel, an initramfs with its modules and the code under test, a root to read.

Kernel and root come from packages and are kept in the tests' cache. A module's own text says which others it needs, so
that nothing here depends on the kernel's version.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.host.package import built_package, dependencies
from tests.host.roots import CACHE, cache_lock, debian_root
from tests.host.webhost import PACKAGES
from tests.support.httpd import PROJECT

KERNEL = ("linux-image-cloud-amd64", "busybox-static")
# In this order: virtio_pci does not find its devices where these are not there yet.
MODULES = ("virtio_ring", "virtio", "virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
FILE_SYSTEMS = {"ext4": (), "xfs": ("xfs",), "btrfs": ("btrfs",)}

CODE = ("swapd", "tests/crash/vm")  # what of the project is in there

INIT = """#!/bin/busybox sh
set -e
export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in {modules}; do /bin/busybox insmod "/modules/$module.ko"; done
for module in $(/bin/busybox sed 's/.*modules=\\([^ ]*\\).*/\\1/; s/,/ /g' /proc/cmdline); do
    /bin/busybox insmod "/modules/$module.ko"
done
kind=$(/bin/busybox sed 's/.*disk=\\([^ ]*\\).*/\\1/' /proc/cmdline)
/bin/busybox mount -t ext4 -o ro,noload /dev/vda /root
/bin/busybox mount -t "$kind" -o noatime /dev/vdb /root/srv
for place in proc sys dev opt; do /bin/busybox mount --bind "/$place" "/root/$place"; done
for place in run tmp srv/run; do
    [ -d "/root/$place" ] || /bin/busybox mkdir "/root/$place"
    /bin/busybox mount -t tmpfs tmpfs "/root/$place"
done
export PYTHONPATH=/opt PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd /root
exec /bin/busybox chroot /root /usr/bin/python3 -m tests.crash.vm.guest
"""


@dataclass(frozen=True, slots=True)
class Image:
    """What qemu is given; ``modules`` are to be inserted for each filesystem, in order."""

    kernel: Path
    initramfs: Path
    root: Path
    modules: dict[str, tuple[str, ...]]


def make_image(directory: Path, project: Path = PROJECT) -> Image:
    """The image with the code of ``project``, its parts in ``directory`` or in the cache."""
    boot, root = debian_root(KERNEL, variant="extract"), _host_root()
    (kernel,) = (boot / "boot").glob("vmlinuz-*")
    there = {path.name.partition(".")[0]: path for path in (boot / "lib/modules").rglob("*.ko*")}
    common = list(_with_needed(MODULES, there))
    own = {
        kind: tuple(n for n in _with_needed(names, there) if n not in common) for kind, names in FILE_SYSTEMS.items()
    }
    content = directory / "initramfs"
    (content / "bin").mkdir(parents=True)
    shutil.copy(boot / "bin/busybox", content / "bin")
    (content / "modules").mkdir()
    for name in {*common, *(name for names in own.values() for name in names)}:
        shutil.copy(there[name], content / "modules")
    (content / "init").write_text(INIT.format(modules=" ".join(common)))
    (content / "init").chmod(0o755)
    _install(project, content / "opt", root)
    os.link(content / "bin/busybox", content / "opt/httpd")
    return Image(kernel, _write_initramfs(content, directory / "initramfs.cpio"), _root_image(root), own)


def _host_root() -> Path:
    """The root of the host ring, which has what swapd needs, and is there or will be needed anyway."""
    return debian_root([*PACKAGES, *dependencies(built_package())])


def _with_needed(names: Iterable[str], there: dict[str, Path]) -> Iterator[str]:
    """The modules and those that they need, each after what it needs; what is built into the kernel is left out."""
    seen: set[str] = set()

    def visit(name: str) -> Iterator[str]:
        if name in seen or name not in there:
            return
        seen.add(name)
        found = re.search(rb"\0depends=([^\0]*)\0", there[name].read_bytes())
        for needed in filter(None, (found[1].decode() if found else "").split(",")):
            yield from visit(needed)
        yield name

    for name in names:
        yield from visit(name)


def _install(project: Path, place: Path, root: Path) -> None:
    """The code, compiled by the Python that will run it."""
    for source in CODE:
        shutil.copytree(project / source, place / source, ignore=shutil.ignore_patterns("__pycache__"))
    script = (
        'mount --bind "$1" "$2/opt" && chroot "$2" python3 -m compileall -q --invalidation-mode unchecked-hash /opt'
    )
    subprocess.run(
        ["unshare", "--mount", "--propagation=private", "sh", "-c", script, "compile", place, root], check=True
    )


def _root_image(root: Path) -> Path:
    """The root as a filesystem to be mounted read-only; made once for each root."""
    image = CACHE / f"vm-{root.name}.img"
    with cache_lock():
        for other in CACHE.glob("vm-*"):
            if not (CACHE / other.stem.removeprefix("vm-")).is_dir():
                other.unlink()
        if not image.exists():
            building = image.with_suffix(".building")
            command = ["mke2fs", "-q", "-t", "ext4", "-d", root, "-E", "lazy_itable_init=0", building, "1G"]
            subprocess.run(command, check=True)
            building.rename(image)
    return image


def _write_initramfs(content: Path, archive: Path) -> Path:
    """As ``find | cpio -o -H newc`` does."""
    with archive.open("wb") as file:
        for path in sorted(content.rglob("*")):
            status = path.stat()
            data = b"" if stat.S_ISDIR(status.st_mode) else path.read_bytes()
            file.write(_entry(str(path.relative_to(content)), status.st_mode, data))
        # Before /dev is mounted, the kernel opens this for the first process.
        file.write(_entry("dev", stat.S_IFDIR | 0o755))
        file.write(_entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
        file.write(_entry("TRAILER!!!", 0))
    return archive


def _entry(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    # cpio(5), "New ASCII format": magic, inode, mode, owner, links, time, size, device, rdev, length of name, check.
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % number for number in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)

"""A virtual machine whose power can be cut."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from tests.crash.vm.disk import BLOCK, Disk
from tests.crash.vm.image import Image

MEMORY = 512  # MiB
PATIENCE = 300.0  # seconds; without hardware virtualisation and on a loaded machine everything takes long
# Hardware virtualisation would be faster, and is not everywhere, nor does it work everywhere where it is.
ACCELERATOR = os.environ.get("SWAPD_TEST_ACCELERATOR", "tcg")


class Machine:
    """Booted from the image, with the disk; ``cut`` its power in the end."""

    def __init__(self, image: Image, disk: Disk, kind: str, console: Path, **words: object) -> None:
        """``words`` are for the guest, on the kernel's command line."""
        self._console = console
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        # Without looks at a timer that comes late where this machine has other work to do.
        line = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check nowatchdog"
        words = {"disk": kind, "modules": ",".join(image.modules[kind]), **words}
        line = " ".join([line, *(f"{key}={value}" for key, value in words.items())])
        with disk.plug() as cable, console.with_suffix(".qemu").open("wb") as complaints:
            sectors = f"logical_block_size={BLOCK},physical_block_size={BLOCK}"
            self._qemu = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig=KILL", "qemu-system-x86_64", "-accel", ACCELERATOR, "-cpu", "max"),
                    *("-nodefaults", "-display", "none", "-no-reboot"),
                    *("-m", str(MEMORY), "-kernel", image.kernel, "-initrd", image.initramfs, "-append", line),
                    *("-blockdev", f"driver=file,node-name=root,filename={image.root},read-only=on,locking=off"),
                    *("-device", "virtio-blk-pci,drive=root"),
                    *("-blockdev", f"driver=nbd,node-name=disk,server.type=fd,server.str={cable.fileno()}"),
                    *("-device", f"virtio-blk-pci,drive=disk,{sectors}"),
                    *("-serial", f"file:{console}", "-chardev", "stdio,id=channel,signal=off"),
                    *("-serial", "chardev:channel"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                pass_fds=[cable.fileno()],
            )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._qemu.stdout is not None
        for line in self._qemu.stdout:
            with contextlib.suppress(json.JSONDecodeError):  # the power may be cut amid a line
                self._events.put(json.loads(line))
        self._events.put({"event": "off"})

    def next_event(self, deadline: float) -> dict[str, Any] | None:
        """What the guest says next; None when it is not before the deadline."""
        with contextlib.suppress(queue.Empty):
            return self._events.get(timeout=max(0.0, deadline - time.monotonic()))
        return None

    def cut(self) -> list[dict[str, Any]]:
        """Cuts the power; what the guest had said until then and nobody has heard."""
        self._qemu.kill()
        self._qemu.wait()
        self._reader.join()
        assert self._qemu.stdout is not None
        self._qemu.stdout.close()
        said = []
        while not self._events.empty():
            said.append(self._events.get())
        return [event for event in said if event["event"] != "off"]

    def console_text(self) -> str:
        """The end of what kernel and swapd said."""
        return self._console.read_text(errors="replace")[-8000:] + self._console.with_suffix(".qemu").read_text()

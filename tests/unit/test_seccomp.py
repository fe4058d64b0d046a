"""The filter of system calls as the kernel would go through it, for each architecture; and as this kernel does."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import signal
import struct
import threading
from collections.abc import Callable

import pytest

from swapd.host import jail, seccomp
from swapd.host.child import Child
from tests.unit.archives import nothing_left_behind

OWN = 4711
ALLOWED, KILLED = 0x7FFF0000, 0x80000000
REFUSED, UNKNOWN = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
OTHER_NUMBER = 9999
I386, X32_BIT = 0x40000003, 0x40000000


def verdict(program: bytes, architecture: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What a program of classic BPF says to a call (struct seccomp_data); it knows the steps that ours are made of."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    steps = list(struct.iter_unpack("=HBBI", program))
    at = accumulator = 0
    while True:
        code, if_so, if_not, operand = steps[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, operand)
            case 0x15:
                at += if_so if accumulator == operand else if_not
            case 0x45:
                at += if_so if accumulator & operand else if_not
            case 0x06:
                return int(operand)
            case _:
                raise AssertionError(f"a step that is none: {code:#x}")


CALLS = {
    "write": ((2,), ALLOWED),
    "mmap": ((0, 4096, mmap.PROT_READ | mmap.PROT_WRITE), ALLOWED),
    "mprotect": ((0, 4096, mmap.PROT_READ | mmap.PROT_EXEC), REFUSED),
    "clone": ((0x3D0F00,), ALLOWED),  # pthread_create(3)
    "kill": ((OWN, signal.SIGABRT), ALLOWED),
    "tgkill": ((1, 1, signal.SIGKILL), REFUSED),
    "fcntl": ((0, 8, 1), REFUSED),
    # The kernel takes the low half of these, and so does the filter.
    "prlimit64": ((1 << 32 | 1, 0), REFUSED),
    "prctl": ((15,), ALLOWED),
    "execve": ((), UNKNOWN),
    "socket": ((seccomp.AF_UNIX,), UNKNOWN),
}


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_lets_through_what_an_extraction_needs_and_nothing_else(machine: str) -> None:
    numbers, architecture = seccomp.numbers(machine), seccomp.MACHINES[machine][1]
    program = seccomp.compile_allowing(seccomp.WRITING, machine, OWN)
    found = {name: verdict(program, architecture, numbers[name], arguments) for name, (arguments, _) in CALLS.items()}
    assert found == {name: expected for name, (_, expected) in CALLS.items()}
    assert verdict(program, architecture, numbers["clone"], (signal.SIGCHLD,)) == REFUSED  # fork(2)
    assert verdict(program, architecture, OTHER_NUMBER) == UNKNOWN
    assert verdict(program, architecture, numbers["write"] | X32_BIT) == UNKNOWN
    assert verdict(program, I386, numbers["write"]) == KILLED
    assert {verdict(program, architecture, number) for number in range(1000)} == {ALLOWED, REFUSED, UNKNOWN}


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_forbids_what_it_is_told_and_nothing_else(machine: str) -> None:
    numbers, architecture = seccomp.numbers(machine), seccomp.MACHINES[machine][1]
    program = seccomp.compile_forbidding(["clone", "seccomp"], machine)
    refused = {number for number in range(1000) if verdict(program, architecture, number) != ALLOWED}
    assert refused == {numbers["clone"], numbers["seccomp"]}
    assert verdict(program, I386, OTHER_NUMBER) == KILLED


def test_knows_the_numbers_of_each_architecture() -> None:
    """As libseccomp does, which is wherever systemd is."""
    try:
        resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name_arch
    except OSError:
        pytest.skip("no libseccomp")
    named = {*seccomp.WRITING, *seccomp.PROGRAM, *seccomp.ASKING}
    for machine, (_, architecture) in seccomp.MACHINES.items():
        known = seccomp.numbers(machine)
        assert known.keys() <= named
        # Negative: not on this architecture.
        theirs = {name: number for name in named if (number := resolve(architecture, name.encode())) >= 0}
        assert known == theirs


@pytest.mark.parametrize("machine", ["riscv64", "i686", "aarch64_be", ""])
def test_says_so_where_the_numbers_are_not_known(machine: str) -> None:
    """Then the layer is missing, as any other may be."""
    with pytest.raises(OSError, match="seccomp"):
        seccomp.compile_allowing(seccomp.WRITING, machine, OWN)


def end_of(work: Callable[[], None]) -> int:
    with nothing_left_behind(), contextlib.closing(Child("filtered", work, keep=())) as child:
        return child.wait()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="an instruction of x86")
def test_the_table_for_32_bits_is_no_way_around_it() -> None:
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(bytes.fromhex("b8 14 00 00 00 cd 80 c3"))  # mov eax, 20; int 0x80; ret
    first = ctypes.c_char.from_buffer(memory)
    get_pid = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(first))

    def ask(calls: seccomp.Calls | None) -> None:
        jail.enter(jail.Confinement(calls=calls), os.getppid())
        os._exit(0 if get_pid() == os.getpid() else 1)

    if end_of(lambda: ask(None)) != 0:
        pytest.skip("this kernel has no such table")
    assert end_of(lambda: ask(seccomp.COMPUTING)) == -signal.SIGSYS


def test_an_abort_looks_like_one() -> None:
    """What a library does that has found its memory damaged; the message names the signal."""

    def abort() -> None:
        jail.enter(jail.Confinement(calls=seccomp.COMPUTING), os.getppid())
        os.abort()

    assert end_of(abort) == -signal.SIGABRT


def test_holds_for_every_thread() -> None:
    """Also one that runs already, as the one that decompresses does."""

    def try_in_a_thread() -> None:
        jail.enter(jail.Confinement(calls=seccomp.WRITING), os.getppid())
        forbidden, tried, found = threading.Event(), threading.Event(), []

        def fork() -> None:
            forbidden.wait()
            try:
                threading.Thread(target=int).start()
                found.append("done")
            except RuntimeError:
                found.append("refused")
            tried.set()

        threading.Thread(target=fork, daemon=True).start()
        seccomp.forbid(["clone"])
        forbidden.set()
        tried.wait()
        os._exit(0 if found == ["refused"] else 1)

    assert end_of(try_in_a_thread) == 0

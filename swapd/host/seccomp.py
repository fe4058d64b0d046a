"""Seccomp (seccomp(2)): a process takes system calls away from itself, and from what it executes.

Only those by which it could reach what Landlock does not cover: other processes, and services. Root's uid alone,
without any capability, is enough to have systemd run a program: connecting to a UNIX socket is no opening of a file.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

PR_SET_SECCOMP, MODE_FILTER = 22, 2
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # linux/seccomp.h: SECCOMP_RET_…
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06  # linux/bpf_common.h, of 32-bit words
_NUMBER_AT, _MACHINE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # struct seccomp_data; all these machines are little-endian
_X32 = 0x40000000  # x86-64's other set of numbers

# Those of x86-64 and those of every machine that came to Linux late (asm-generic/unistd.h).
_X86, _GENERIC = 0, 1
_MACHINES = {"x86_64": (0xC000003E, _X86), "aarch64": (0xC00000B7, _GENERIC), "riscv64": (0xC00000F3, _GENERIC)}
_SOCKETS = {"socket": (41, 198), "connect": (42, 203), "io_uring_setup": (425, 425)}
_OTHERS = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
}
# Whose first argument is a process: allowed for the caller itself.
_FOR_ITSELF = {"kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "prlimit64": (302, 261)}

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def forbid_others(*, sockets: bool) -> None:
    """From here on this process can act upon no other, and with ``sockets`` make and connect none; EPERM instead.

    Needs no_new_privs or CAP_SYS_ADMIN. ``OSError`` where the kernel or the machine has none of it.
    """
    machine = platform.machine()
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"seccomp: the numbers of {machine}'s system calls are not known here")
    program = _compile(*_MACHINES[machine], sockets=sockets, own=os.getpid())
    compiled = _Program(len(program) // 8, program)
    if _libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(compiled), 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


def _compile(machine: int, column: int, *, sockets: bool, own: int) -> bytes:
    """The filter, in classic BPF: a jump says how many instructions to leave out when it is so, and when not."""
    refused = [numbers[column] for numbers in (*_OTHERS.values(), *(_SOCKETS.values() if sockets else ()))]
    for_itself = [numbers[column] for numbers in _FOR_ITSELF.values()]
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    allow = (_RETURN, 0, 0, _ALLOW)
    code = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_JUMP_EQUAL, 1, 0, machine),
        (_RETURN, 0, 0, _KILL),  # a 32-bit program's calls have other numbers
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_GREATER_EQUAL, 0, 1, _X32),
        refuse,
    ]
    for number in refused:
        code += [(_JUMP_EQUAL, 0, 1, number), refuse]
    # What is left of the list is jumped over, to where the first argument is looked at.
    for place, number in enumerate(for_itself):
        code.append((_JUMP_EQUAL, len(for_itself) - place, 0, number))
    code += [allow, (_LOAD, 0, 0, _FIRST_ARGUMENT_AT), (_JUMP_EQUAL, 2, 0, 0), (_JUMP_EQUAL, 1, 0, own), refuse, allow]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)

"""seccomp (seccomp(2)): which system calls a process can still make, decided by a filter in the kernel.

What Landlock has no rights for goes through here: sockets, processes, and whatever one process of root may do to
another for no other reason than that both are root's: signals, limits, priorities, keys.

A filter lists what is allowed, so that a call which a later kernel brings is none of it. What it does not list is
answered as by a kernel that has no such call (ENOSYS), for which a C library has another way; what it lists with
another argument is refused (EPERM). Neither kills: a call of a library that we did not foresee, and that can do
without, must not cost a deployment. A call through another architecture's table kills, as nothing of ours makes one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# By `uname -m`: the column below, and what the filter sees (linux/audit.h).
_X86_64, _AARCH64 = 0, 1
MACHINES = {"x86_64": (_X86_64, 0xC000003E), "aarch64": (_AARCH64, 0xC00000B7)}
# Each call with its numbers on x86_64 and on aarch64, which never had some of the older ones.
NUMBERS = """
access 21 -  arch_prctl 158 -  brk 12 214  clock_getres 229 114  clock_gettime 228 113  clock_nanosleep 230 115
clone 56 220  close 3 57  close_range 436 436  connect 42 203  dup 32 23  dup2 33 -  dup3 292 24  execve 59 221
exit 60 93  exit_group 231 94  faccessat 269 48  faccessat2 439 439  fallocate 285 47  fchmodat 268 53
fchmodat2 452 452  fcntl 72 25  fdatasync 75 83  fstat 5 80  fstatfs 138 44  fsync 74 82  ftruncate 77 46
futex 202 98  futex_waitv 449 449  get_robust_list 274 100  getcpu 309 168  getcwd 79 17  getdents64 217 61
getegid 108 177  geteuid 107 175  getgid 104 176  getgroups 115 158  getpid 39 172  getppid 110 173  getrandom 318 278
getresgid 120 150  getresuid 118 148  getrlimit 97 163  getrusage 98 165  getsockname 51 204  getsockopt 55 209
gettid 186 178  gettimeofday 96 169  getuid 102 174  ioctl 16 29  kill 62 129  linkat 265 37  lseek 8 62  lstat 6 -
madvise 28 233  membarrier 324 283  mkdirat 258 34  mmap 9 222  mprotect 10 226  mremap 25 216  munmap 11 215
nanosleep 35 101  newfstatat 262 79  open 2 -  openat 257 56  pause 34 -  poll 7 -  ppoll 271 73  prctl 157 167
pread64 17 67  preadv 295 69  prlimit64 302 261  pselect6 270 72  pwrite64 18 68  pwritev 296 70  read 0 63
readlink 89 -  readlinkat 267 78  readv 19 65  recvfrom 45 207  recvmsg 47 212  renameat 264 38  renameat2 316 276
restart_syscall 219 128  rseq 334 293  rt_sigaction 13 134  rt_sigpending 127 136  rt_sigprocmask 14 135
rt_sigreturn 15 139  rt_sigsuspend 130 133  rt_sigtimedwait 128 137  sched_getaffinity 204 123  sched_yield 24 124
seccomp 317 277  select 23 -  sendmsg 46 211  sendto 44 206  set_robust_list 273 99  set_tid_address 218 96
shutdown 48 210  sigaltstack 131 132  socket 41 198  stat 4 -  statfs 137 43  statx 332 291  symlinkat 266 36
syncfs 306 267  sysinfo 99 179  tgkill 234 131  time 201 -  times 100 153  umask 95 166  uname 63 160  unlinkat 263 35
utimensat 280 88  write 1 64  writev 20 66
"""

OWN_PROCESS = -1  # as an argument's value: the process's that enters
CLONE_THREAD = 0x10000
PROT_EXEC = 4
AF_UNIX = 1
PR_SET_NAME = 15
SET_MODE_FILTER = 1
_TSYNC, _SPEC_ALLOW = 1 << 0, 1 << 2
# fcntl(2): F_DUPFD to F_SETFL, F_DUPFD_CLOEXEC, F_SETPIPE_SZ, F_GETPIPE_SZ. Not F_SETOWN with F_SETSIG, by which the
# kernel sends any signal to anybody.
_FCNTLS = (0, 1, 2, 3, 4, 1030, 1031, 1032)
_IOCTLS = (0x5401, 0x5450, 0x5451)  # TCGETS, which isatty(3) is; FIONCLEX, FIOCLEX. Not FIOSETOWN.

_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000  # linux/seccomp.h
# linux/bpf_common.h: load a word of struct seccomp_data; return; jump if equal, if one bit is set.
_LOAD, _RETURN, _IF_EQUAL, _IF_BITS = 0x20, 0x06, 0x15, 0x45
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Check:
    """The call is allowed where one argument is one of ``values``, or has one of ``with_bits``, or no ``without_bits``.

    Only its low half is looked at: the kernel takes no more of those that are checked here.
    """

    argument: int
    values: tuple[int, ...] = ()
    with_bits: int = 0
    without_bits: int = 0


Calls = Mapping[str, Check | None]


def _named(*lines: str) -> dict[str, Check | None]:
    return dict.fromkeys(" ".join(lines).split())


# What computes, and reads and writes what is open already. The most frequent ones first: before Linux 5.11 the filter
# is gone through from its beginning for each call.
COMPUTING: Calls = {
    **_named(
        "write read lseek pread64 close fstat newfstatat futex munmap",
        "readv writev pwrite64 preadv pwritev statx fstatfs close_range dup dup2 dup3 poll ppoll select pselect6",
        "brk mremap madvise futex_waitv set_robust_list get_robust_list rseq membarrier exit exit_group sched_yield",
        "clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time restart_syscall pause",
        "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait rt_sigpending rt_sigsuspend sigaltstack",
        "getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups",
        "getrlimit getrusage times sysinfo uname getrandom sched_getaffinity getcpu",
    ),
    "fcntl": Check(1, _FCNTLS),
    "ioctl": Check(1, _IOCTLS),
    "mmap": Check(2, without_bits=PROT_EXEC),
    "mprotect": Check(2, without_bits=PROT_EXEC),
    "prlimit64": Check(0, (0, OWN_PROCESS)),
    # abort(3) and the like.
    "kill": Check(0, (OWN_PROCESS,)),
    "tgkill": Check(0, (OWN_PROCESS,)),
    # Not PR_SET_PDEATHSIG: it dies with its parent.
    "prctl": Check(0, (PR_SET_NAME,)),
}
# A thread, and no process. clone3, whose flags are out of a filter's sight, is not there: the C library takes this one.
THREADS: Calls = {"clone": Check(0, with_bits=CLONE_THREAD)}
# What makes a tree besides, and what `forbid` needs: further filters only take away.
WRITING: Calls = {
    "openat": None,
    "utimensat": None,
    **COMPUTING,
    **_named(
        "mkdirat fchmodat fchmodat2 linkat symlinkat renameat renameat2 unlinkat getdents64 readlinkat",
        "faccessat faccessat2 ftruncate fallocate fsync fdatasync syncfs umask",
    ),
    **THREADS,
    "seccomp": Check(0, (SET_MODE_FILTER,)),
}
# What it takes to become another program, to be linked, and to read files. Where it may read, and what it may execute,
# is for Landlock to say.
PROGRAM: Calls = {
    **COMPUTING,
    **_named(
        "execve mmap mprotect arch_prctl set_tid_address openat open access faccessat faccessat2 readlink readlinkat",
        "stat lstat statfs getdents64 getcwd umask",
    ),
}
# Asking a service of this host, such as for a user's name. Which one, a filter cannot see.
ASKING: Calls = {
    **_named("connect sendto sendmsg recvfrom recvmsg shutdown getsockopt getsockname"),
    "socket": Check(0, (AF_UNIX,)),
}


def numbers(machine: str) -> dict[str, int]:
    """By name the number of each call that this architecture has; ``OSError`` for one that is not known here."""
    if machine not in MACHINES or sys.maxsize < 1 << 32:
        raise OSError(errno.ENOTSUP, f"seccomp: no system calls of {machine} are known to swapd")
    column = MACHINES[machine][0]
    words = NUMBERS.split()
    return {words[at]: int(words[at + 1 + column]) for at in range(0, len(words), 3) if words[at + 1 + column] != "-"}


def allow(calls: Calls) -> None:
    """The calling thread, and what it starts, makes no other system calls than these; cannot be taken back.

    Needs no_new_privs or CAP_SYS_ADMIN. ``OSError`` where it cannot be had, with nothing changed.
    """
    _install(compile_allowing(calls, os.uname().machine, os.getpid()), _SPEC_ALLOW)


def forbid(calls: Iterable[str]) -> None:
    """From here on no thread of this process makes these calls. ``OSError`` as above."""
    _install(compile_forbidding(calls, os.uname().machine), _SPEC_ALLOW | _TSYNC)


def compile_allowing(calls: Calls, machine: str, own: int) -> bytes:
    """The filter for ``allow``, of the process ``own``: a program for the kernel's classic BPF."""
    known = numbers(machine)
    steps = [_instruction(_LOAD, _NUMBER_AT)]
    for name, check in calls.items():
        if name in known:
            verdict = [_return(_ALLOW)] if check is None else _check(check, own)
            steps += [_instruction(_IF_EQUAL, known[name], 0, len(verdict)), *verdict]
    return b"".join([*_only_for(machine), *steps, _return(_ERRNO | errno.ENOSYS)])


def compile_forbidding(calls: Iterable[str], machine: str) -> bytes:
    """The filter for ``forbid``."""
    known = numbers(machine)
    steps = [_instruction(_LOAD, _NUMBER_AT)]
    for name in calls:
        if name in known:
            steps += [_instruction(_IF_EQUAL, known[name], 0, 1), _return(_ERRNO | errno.EPERM)]
    return b"".join([*_only_for(machine), *steps, _return(_ALLOW)])


def _only_for(machine: str) -> list[bytes]:
    # The same number is another call in the table for 32 bits.
    architecture = MACHINES[machine][1]
    return [
        _instruction(_LOAD, _ARCHITECTURE_AT),
        _instruction(_IF_EQUAL, architecture, 1, 0),
        _return(_KILL_PROCESS),
    ]


def _check(check: Check, own: int) -> list[bytes]:
    # Both architectures are little-endian: the low half comes first.
    steps = [_instruction(_LOAD, _ARGUMENTS_AT + 8 * check.argument)]
    for value in check.values:
        steps += [_instruction(_IF_EQUAL, own if value == OWN_PROCESS else value, 0, 1), _return(_ALLOW)]
    if check.with_bits:
        steps += [_instruction(_IF_BITS, check.with_bits, 0, 1), _return(_ALLOW)]
    if check.without_bits:
        steps += [_instruction(_IF_BITS, check.without_bits, 1, 0), _return(_ALLOW)]
    return [*steps, _return(_ERRNO | errno.EPERM)]


def _return(verdict: int) -> bytes:
    return _instruction(_RETURN, verdict)


def _instruction(code: int, operand: int, steps_if_so: int = 0, steps_if_not: int = 0) -> bytes:
    return struct.pack("=HBBI", code, steps_if_so, steps_if_not, operand)  # struct sock_filter


def _install(program: bytes, flags: int) -> None:
    """SPEC_ALLOW, or kernels before 5.16 would slow it down against what only one who runs foreign code has to fear."""
    instructions = ctypes.create_string_buffer(program, len(program))
    whole = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))  # struct sock_fprog
    number = numbers(os.uname().machine)["seccomp"]
    _libc.syscall.restype = ctypes.c_long
    result = _libc.syscall(ctypes.c_long(number), ctypes.c_long(SET_MODE_FILTER), ctypes.c_long(flags), whole)
    if result:  # a thread's id where that one has filters of its own
        number = ctypes.get_errno() if result == -1 else errno.ESRCH
        raise OSError(number, f"seccomp: {os.strerror(number)}")

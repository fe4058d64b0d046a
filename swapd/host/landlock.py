"""Landlock (landlock(7)): a process takes rights away from itself, on files, the network and other processes.

Linux has it from 5.13 on. The C library has no wrappers for it; the numbers of the calls are those of every
architecture that came to Linux after Alpha.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Mapping

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
MAKE_SYM, REFER = 1 << 12, 1 << 13  # REFER: links and renames from one directory to another

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
# By ABI, how many rights on files there are: with REFER, TRUNCATE and IOCTL_DEV. Later ones have no more.
_FILE_RIGHTS = {2: 14, 3: 15, 4: 15, 5: 16}
_TCP_ABI, _BIND_AND_CONNECT_TCP = 4, 0b11
_SCOPE_ABI, _ABSTRACT_SOCKETS_AND_SIGNALS = 6, 0b11

_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: int | bytes | None) -> int:
    typed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    _libc.syscall.restype = ctypes.c_long
    result = _libc.syscall(ctypes.c_long(number), *typed)
    if result == -1:
        raise OSError(ctypes.get_errno(), f"landlock: {os.strerror(ctypes.get_errno())}")
    return int(result)


def abi() -> int:
    """The kernel's version of it. ``OSError`` where it has none: ENOSYS, or EOPNOTSUPP when it is switched off."""
    return _call(_CREATE_RULESET, None, 0, _VERSION)


def is_available() -> bool:
    """Whether ``restrict`` can do it on this kernel."""
    try:
        return abi() >= min(_FILE_RIGHTS)
    except OSError:
        return False


def restrict(allowed: Mapping[int, int]) -> int:
    """The calling thread, and what it starts, may do no more than this; returns the ABI.

    ``allowed`` has, for descriptors of directories and files, the rights on what is below them. No other file can be
    opened, made or removed; what is open stays so. With ABI 4 no TCP port can be used, with ABI 6 no process outside
    be signalled. Needs no_new_privs or CAP_SYS_ADMIN. ``OSError`` where Landlock cannot do it, with nothing changed.
    """
    version = abi()
    if version < min(_FILE_RIGHTS):
        # Without REFER no file can be linked or renamed from one directory to another, whatever is allowed.
        raise OSError(errno.EOPNOTSUPP, "landlock: Linux before 5.19 cannot let files be moved")
    attributes = struct.pack("=Q", (1 << _FILE_RIGHTS.get(version, max(_FILE_RIGHTS.values()))) - 1)
    if version >= _TCP_ABI:
        attributes += struct.pack("=Q", _BIND_AND_CONNECT_TCP)
    if version >= _SCOPE_ABI:
        attributes += struct.pack("=Q", _ABSTRACT_SOCKETS_AND_SIGNALS)
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for descriptor, rights in allowed.items():
            _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version

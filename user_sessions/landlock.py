"""The kernel's Landlock through ctypes: allow-lists of paths, TCP ports, no signals to strangers, for this process.

Only the system calls and their constants (linux/landlock.h); what a session may touch is decided in `sandbox.py`.
Landlock judges opening, creating, linking and removing; it does not judge stat, chmod or a Unix socket's connect, which
is why `seccomp.py` stands beside it.
"""

import ctypes
import enum
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every architecture
VERSION_FLAG = 1
PATH_BENEATH, NET_PORT = 1, 2

libc = ctypes.CDLL(None, use_errno=True)


class Access(enum.IntFlag):
    """Rights on files and directories, with the ABI version that brought the later ones."""

    NONE = 0
    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13  # 2
    TRUNCATE = 1 << 14  # 3
    IOCTL_DEV = 1 << 15  # 5
    RESOLVE_UNIX = 1 << 16  # 9


READ = Access.READ_FILE | Access.READ_DIR
# No symlinks: one planted in `output` would lead whoever reads that directory from outside the sandbox astray. No FIFOs
# sockets or devices either: whoever opens one waits. A session's own socket was made before, elsewhere.
WRITE = (
    READ
    | Access.WRITE_FILE
    | Access.REMOVE_DIR
    | Access.REMOVE_FILE
    | Access.MAKE_DIR
    | Access.MAKE_REG
    | Access.REFER
    | Access.TRUNCATE
)
ON_FILES = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
BIND_TCP, CONNECT_TCP = 0b01, 0b10  # ABI 4
SCOPES = 0b11  # abstract Unix sockets, signals; ABI 6


@dataclass(frozen=True)
class Rule:
    """What may be done at and below `path`. A path that does not exist is skipped unless it is `required`."""

    path: Path
    access: Access
    required: bool = False


class _Attributes(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _NetPort(ctypes.Structure):
    _fields_ = (("access", ctypes.c_uint64), ("port", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("parent", ctypes.c_int32))


def abi() -> int:
    """The kernel's Landlock version, 0 when it has none or it is switched off."""
    return max(0, int(libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION_FLAG))))


def handled(version: int) -> Access:
    """The file rights a kernel of that version can refuse."""
    rights = Access((1 << 13) - 1)
    for since, right in ((2, Access.REFER), (3, Access.TRUNCATE), (5, Access.IOCTL_DEV), (9, Access.RESOLVE_UNIX)):
        if version >= since:
            rights |= right
    return rights


def restrict(rules: Iterable[Rule], ports: Sequence[int]) -> int:
    """Confine this process to `rules`, and its TCP to connections to `ports`, for good; returns the ABI used.

    Needs no_new_privs. Raises OSError. Before ABI 4 the kernel cannot judge TCP.
    """
    version = abi()
    if version < 1:
        raise OSError("this kernel offers no Landlock")
    net = BIND_TCP | CONNECT_TCP if version >= 4 else 0
    attributes = _Attributes(int(handled(version)), net, SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _call(CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for rule in rules:
            _add(ruleset, rule, handled(version))
        for port in ports if net else ():
            opened = _NetPort(CONNECT_TCP, port)
            _call(ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(NET_PORT), ctypes.byref(opened), ctypes.c_uint32(0))
        _call(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return version


def _add(ruleset: int, rule: Rule, allowed: Access) -> None:
    # A required path is one of a user's own directories: a link in its place is an attack, not a convenience.
    flags = os.O_PATH | os.O_CLOEXEC | (os.O_NOFOLLOW | os.O_DIRECTORY if rule.required else 0)
    try:
        parent = os.open(rule.path, flags)
    except OSError:
        if rule.required:
            raise
        return
    try:
        access = rule.access & allowed
        if not stat.S_ISDIR(os.fstat(parent).st_mode):
            access &= ON_FILES
        beneath = _PathBeneath(int(access), parent)
        _call(ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(PATH_BENEATH), ctypes.byref(beneath), ctypes.c_uint32(0))
    finally:
        os.close(parent)


def _call(number: int, *arguments: object) -> int:
    result = int(libc.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock call {number}: {os.strerror(code)}")
    return result

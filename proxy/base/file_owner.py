"""File operations of this thread as another user, judged and stamped by the kernel; only a server that runs as root.

Users' files belong to users' own ids then. Whoever reads or writes them for a user does it in that user's name: what is
made belongs to the user, and a link the user planted leads nowhere the user could not go.
Linux keeps this identity per thread (setfsuid), so it must never be held across an `await` or a `yield` to others.
Root's other groups are laid down for the time: by the bare system call, for libc's function changes all threads.
"""

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from pathlib import Path

ASK = 0xFFFFFFFF  # no valid id: the call changes nothing and tells the current one
SETGROUPS = {"x86_64": 116, "aarch64": 159, "riscv64": 159, "loongarch64": 159, "ppc64le": 81, "s390x": 206}
"""The number of the system call; on s390x 206 is the one with 32-bit ids."""
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def as_owner_of(path: Path) -> Iterator[None]:
    """Act as the owner of the directory `path` (a link is not followed); does nothing unless we are root and it is
    another's. Raises OSError, also when there is no such directory."""
    if os.geteuid() != 0:
        yield
        return
    found = path.lstat()
    if found.st_uid == 0:
        yield
        return
    with acting_as(found.st_uid, found.st_gid):
        yield


@contextlib.contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Act as that user and group with files. Raises PermissionError when the system does not let us."""
    before_uid, before_gid = _current()
    groups = os.getgroups()  # this thread's
    try:
        _set_groups([], groups)
        _libc.setfsgid(ctypes.c_uint32(gid))  # first: as another user we might not be allowed to
        _libc.setfsuid(ctypes.c_uint32(uid))
        if _current() != (uid, gid):
            raise PermissionError(f"this process may not act as user {uid}")
        yield
    finally:
        _libc.setfsuid(ctypes.c_uint32(before_uid))
        _libc.setfsgid(ctypes.c_uint32(before_gid))
        _set_groups(groups, os.getgroups())


def _set_groups(groups: list[int], now: list[int]) -> None:
    """The supplementary groups of this thread. Raises PermissionError."""
    if groups == now:
        return
    number = SETGROUPS.get(platform.machine())
    if number is None:
        raise PermissionError(f"on {platform.machine()} this process must run without supplementary groups")
    given = (ctypes.c_uint32 * len(groups))(*groups)
    if _libc.syscall(ctypes.c_long(number), ctypes.c_size_t(len(groups)), given) != 0:
        code = ctypes.get_errno()
        raise PermissionError(code, f"this process may not lay down its groups: {os.strerror(code)}")


def _current() -> tuple[int, int]:
    uid, gid = _libc.setfsuid(ctypes.c_uint32(ASK)), _libc.setfsgid(ctypes.c_uint32(ASK))
    return uid & ASK, gid & ASK

"""File operations of this thread as another user, judged and stamped by the kernel; only a server that runs as root.

Users' files belong to users' own ids then. Whoever reads or writes them for a user does it in that user's name: what is
made belongs to the user, and a link the user planted leads nowhere the user could not go.
Linux keeps this identity per thread (setfsuid), so it must never be held across an `await` or a `yield` to others.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

ASK = 0xFFFFFFFF  # no valid id: the call changes nothing and tells the current one
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
    try:
        _libc.setfsgid(ctypes.c_uint32(gid))  # first: as another user we might not be allowed to
        _libc.setfsuid(ctypes.c_uint32(uid))
        if _current() != (uid, gid):
            raise PermissionError(f"this process may not act as user {uid}")
        yield
    finally:
        _libc.setfsuid(ctypes.c_uint32(before_uid))
        _libc.setfsgid(ctypes.c_uint32(before_gid))


def _current() -> tuple[int, int]:
    uid, gid = _libc.setfsuid(ctypes.c_uint32(ASK)), _libc.setfsgid(ctypes.c_uint32(ASK))
    return uid & ASK, gid & ASK
